"""Passwords and tokens: hashing off the loop, in a bounded pool; minting bound to a certificate.

Under --insecure-dev tokens are of etcd's kinds (``identity.etcd_tokens``).

A login costs tens of milliseconds of CPU and about 19 MiB, so at most two run at once and few
wait (PW-2). Unknown, locked, password-less and wrong all look and last alike (N25).

Not here: whether a token is good (``api.callers``), hashing itself (``identity.passwords``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol

from configsvc.auth.messages import User
from configsvc.auth.state import AuthState
from configsvc.errors import (
    AuthFailedError,
    ConfigServiceError,
    InvalidArgumentError,
    OverloadedError,
    RequestTooManyRequestsError,
)
from configsvc.identity.etcd_tokens import EtcdTokens
from configsvc.identity.passwords import (
    PasswordPool,
    PasswordRefused,
    PoolFull,
    hash_password,
    verify_password,
)
from configsvc.identity.tokens import TokenKey, mint
from configsvc.runtime.proposals import Clock
from configsvc.types import Principal, Source

TOKEN_TTL_S: Final = 300
LOGINS_PER_S: Final = 20  # per member (LIM-10)
FAILURES_PER_MIN: Final = 5  # per (identity, address); then the delay doubles (LIM-9)
LOCK_MAX_S: Final = 900
ACCOUNT_FAILURES_MAX: Final = 10  # of one user, whoever tries, until its password opens nothing
ACCOUNT_WINDOW_S: Final = 900  # counted from the first of them, and locked until it is over
TRACKED_MAX: Final = 10_000  # (identity, address) pairs remembered; the oldest are forgotten

Told = Callable[["str | ConfigServiceError"], None]


class RecordLogin(Protocol):
    def __call__(self, principal: Principal, source: Source, name: str, outcome: str) -> None:
        """Tell the local audit stream how a login ended."""


class Logins:
    """Password work of one member."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        auth: Callable[[], AuthState],
        key: TokenKey,
        issuer: str,
        audience: str,
        record: RecordLogin,
        etcd: EtcdTokens | None = None,
        applied: Callable[[], int] = lambda: 0,
    ) -> None:
        """``etcd``: gives out tokens of etcd's kinds, under --insecure-dev only."""
        self._etcd = etcd
        self._applied = applied
        self._loop = loop
        self._clock = clock
        self._auth = auth
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self._record = record
        self._pool = PasswordPool()
        self._recent: list[float] = []
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        self._accounts: dict[str, tuple[int, float]] = {}  # user -> failures, when they began

    def close(self) -> None:
        self._pool.close()

    def hash(self, password: str, told: Told) -> None:
        """PHC string of a new password; refuses weak ones (PW-1) unless data is throwaway."""
        insecure = self._auth().insecure
        self._run(lambda: hash_password(password, insecure=insecure), told)

    def login(
        self, principal: Principal, source: Source, name: str, password: str, told: Told
    ) -> None:
        """A token for ``name`` bound to the caller's certificate if secure, or AuthFailedError.

        Raises:
            RequestTooManyRequestsError: over the rate, or this identity must wait.
        """
        self._admit(principal, source)
        user = self._auth().users.get(name)
        phc = user.password_hash if user is not None and user.password_hash else None
        if self.locked(name):
            phc = None  # as long as any other failure

        def judged(result: bool | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                told(result)
                return
            # The user may have changed while the hash was computed: look again.
            current = self._auth().users.get(name)
            if not result or user is None or current != user or self.locked(name):
                self._failed(principal, source)
                self._record(principal, source, name, "denied")
                told(AuthFailedError())
                self._failed_account(name)
                return
            self._failures.pop((principal.cert_uri, source.ip), None)
            self._accounts.pop(name, None)
            self._record(principal, source, name, "ok")
            told(self._token(principal, user))

        self._run(lambda: verify_password(password, phc), judged)

    def _token(self, principal: Principal, user: User) -> str | ConfigServiceError:
        auth, now_ns = self._auth(), self._clock.time_ns()
        if self._etcd is not None and auth.insecure:
            try:
                return self._etcd.assign(auth, user, self._applied(), now_ns)
            except ConfigServiceError as error:
                return error
        return mint(
            self._key,
            iss=self._issuer,
            aud=self._audience,
            sub=user.name,
            uid=user.uid,
            cid=principal.cert_uri,
            arev=auth.revision,
            now=now_ns // 1_000_000_000,
            ttl=TOKEN_TTL_S,
        )

    def _admit(self, principal: Principal, source: Source) -> None:
        if self._auth().insecure:
            return  # suites log in as fast as they can, and wrongly on purpose (DEV-5)
        now = self._clock.monotonic()
        self._recent = [t for t in self._recent if now - t < 1.0]
        if len(self._recent) >= LOGINS_PER_S:
            raise RequestTooManyRequestsError
        self._recent.append(now)
        count, until = self._failures.get((principal.cert_uri, source.ip), (0, 0.0))
        if count >= FAILURES_PER_MIN and now < until:
            raise RequestTooManyRequestsError

    def _failed(self, principal: Principal, source: Source) -> None:
        key = (principal.cert_uri, source.ip)
        now = self._clock.monotonic()
        count, until = self._failures.pop(key, (0, 0.0))
        if now - until > LOCK_MAX_S:
            count = 0
        count += 1
        wait = min(LOCK_MAX_S, 2.0 ** max(0, count - FAILURES_PER_MIN) * 12)
        self._failures[key] = (count, now + wait)
        while len(self._failures) > TRACKED_MAX:
            del self._failures[next(iter(self._failures))]

    def locked(self, name: str) -> bool:
        """Whether too many have tried this user's password lately (LIM-9).

        Its certificate opens the account all the same.
        """
        count, since = self._accounts.get(name, (0, 0.0))
        return count >= ACCOUNT_FAILURES_MAX and self._clock.monotonic() - since < ACCOUNT_WINDOW_S

    def _failed_account(self, name: str) -> None:
        """Names that nobody has cost no memory; a lock is not prolonged by trying on."""
        auth = self._auth()
        if auth.insecure or name not in auth.users or self.locked(name):
            return
        now = self._clock.monotonic()
        count, since = self._accounts.pop(name, (0, now))
        if now - since >= ACCOUNT_WINDOW_S:
            count, since = 0, now
        self._accounts[name] = (count + 1, since)
        while len(self._accounts) > TRACKED_MAX:
            del self._accounts[next(iter(self._accounts))]

    def _run(self, work: Callable[[], object], told: Callable[..., None]) -> None:
        try:
            future = self._pool.submit(work)
        except PoolFull:
            raise OverloadedError from None

        def done(finished: Future[object]) -> None:
            self._loop.call_soon_threadsafe(deliver, finished)

        def deliver(finished: Future[object]) -> None:
            error = finished.exception()
            if error is None:
                told(finished.result())
            elif isinstance(error, PasswordRefused):
                told(InvalidArgumentError(f"password: {error}"))
            elif isinstance(error, ConfigServiceError):
                told(error)
            else:
                told(AuthFailedError())  # any doubt means no (FC-6)

        future.add_done_callback(done)
