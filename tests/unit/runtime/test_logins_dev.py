"""Passwords in a store born under --insecure-dev: no floor, no rate, the same refusals (DEV-5)."""

from __future__ import annotations

import asyncio
import re

import pytest

from configsvc.auth.state import AuthState
from configsvc.errors import (
    AuthFailedError,
    ConfigServiceError,
    InvalidArgumentError,
    RequestTooManyRequestsError,
)
from configsvc.identity.etcd_tokens import SimpleTokens
from configsvc.identity.passwords import hash_password
from configsvc.identity.tokens import TokenKey
from configsvc.runtime.logins import LOGINS_PER_S, Logins
from configsvc.types import KIND_NONE, Principal, Source

NOBODY = Principal(KIND_NONE, "anonymous", "", "", "", "", "", "insecure-dev", "", "", 0)
SOURCE = Source("127.0.0.1", "", "other", "")


class Clock:
    def monotonic(self) -> float:
        return 1.0

    def time_ns(self) -> int:
        return 10**18


def run_with(state: AuthState, work: object) -> None:
    async def main() -> None:
        logins = Logins(
            loop=asyncio.get_running_loop(), clock=Clock(), auth=lambda: state,
            key=TokenKey.generate(), issuer="i", audience="a", record=lambda *_: None,
        )  # fmt: skip
        try:
            await work(logins)  # type: ignore[operator]
        finally:
            logins.close()

    asyncio.run(main())


async def hashed(logins: Logins, password: str) -> str | ConfigServiceError:
    future: asyncio.Future[str | ConfigServiceError] = asyncio.get_running_loop().create_future()
    logins.hash(password, future.set_result)
    return await future


@pytest.mark.parametrize("password", ["", "x", "root"])
def test_short_passwords_are_taken_only_there(password: str) -> None:
    async def work(logins: Logins) -> None:
        found.append(await hashed(logins, password))

    found: list[str | ConfigServiceError] = []
    for insecure in (True, False):
        run_with(AuthState(insecure=insecure), work)
    assert isinstance(found[0], str)
    assert found[0].startswith("$argon2id$")
    assert isinstance(found[1], InvalidArgumentError)


def test_a_burst_of_wrong_logins_is_judged_one_by_one_there() -> None:
    outcomes: list[str | ConfigServiceError] = []

    async def work(logins: Logins) -> None:
        for _ in range(LOGINS_PER_S + 1):
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            logins.login(NOBODY, SOURCE, "nobody", "x", future.set_result)
            outcomes.append(await future)  # type: ignore[arg-type]

    run_with(AuthState(insecure=True), work)
    assert len(outcomes) == LOGINS_PER_S + 1
    assert all(isinstance(o, AuthFailedError) for o in outcomes)
    with pytest.raises(RequestTooManyRequestsError):
        run_with(AuthState(insecure=False), work)


@pytest.mark.parametrize("insecure", [True, False])
def test_etcds_tokens_are_given_out_there_and_nowhere_else(insecure: bool) -> None:
    state = AuthState(insecure=insecure)
    state.user_add("root", hash_password("a long pass phrase", insecure=True), False, "0" * 32)
    told: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        logins = Logins(
            loop=loop, clock=Clock(), auth=lambda: state, key=TokenKey.generate(), issuer="i",
            audience="a", record=lambda *_: None, etcd=SimpleTokens(300, 0), applied=lambda: 7,
        )  # fmt: skip
        future: asyncio.Future[object] = loop.create_future()
        logins.login(NOBODY, SOURCE, "root", "a long pass phrase", future.set_result)
        told.append(await future)
        logins.close()

    asyncio.run(main())
    simple = re.fullmatch(r"[A-Za-z]{16}\.7", str(told[0]))
    assert bool(simple) is insecure
    assert (str(told[0]).count(".") == 2) is not insecure
