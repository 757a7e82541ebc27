"""Passwords: Argon2id at OWASP's minimum, in a small pool of threads (PW-1, PW-2).

Always true: the parameters inside a stored string are bounded before anything is computed, for a
planted one could cost seconds and gigabytes; unknown users cost as much as known ones; no text
here repeats a password.

Not here: rates and locks (``runtime.logins``).
"""

from __future__ import annotations

import os
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from configsvc.identity.errors import PasswordRefused, PoolFull
from configsvc.limits import (
    ARGON2_LANES_MAX,
    ARGON2_MEMORY_KIB_MAX,
    ARGON2_ROUNDS_MAX,
    PASSWORD_BYTES_MAX,
    PASSWORD_BYTES_MIN,
    PASSWORD_QUEUE_MAX,
    PASSWORD_THREADS_MAX,
)

__all__ = [
    "PasswordPool",
    "PasswordRefused",
    "PoolFull",
    "bounded",
    "hash_password",
    "verify_password",
]

T = TypeVar("T")

MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
_DISTINCT_MIN: Final = 4
_PHC: Final = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})"
    r"\$[A-Za-z0-9+/]{11,88}\$[A-Za-z0-9+/]{22,88}",
    re.ASCII,
)
# Costs what a real one costs; its result is never used.
_DUMMY: Final = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${'A' * 22}${'A' * 43}"
# What people type when a rule asks for twelve characters; compared without case and digits' tail.
_DENIED: Final = frozenset(
    {
        "password", "passwordpassword", "qwertyuiop", "qwertyuiopas", "qwertyuiopasdfghjkl",
        "administrator", "letmeinletmein", "letmein", "changeme", "changemechangeme",
        "changemeplease", "iloveyou", "iloveyouiloveyou", "abcdefghijkl", "abcdefghijklmnop",
        "configsvc", "rootrootroot", "rootpassword", "adminadmin", "adminadminadmin",
        "adminpassword", "welcome", "welcomewelcome", "correcthorsebatterystaple", "trustno",
        "monkeymonkey", "dragondragon", "footballfootball", "secretsecret", "mypassword",
        "etcdetcdetcd", "default", "defaultpassword", "p@ssw0rd", "p@ssword", "passw0rd",
    }
)  # fmt: skip
_SEQUENCES: Final = "01234567890123456789abcdefghijklmnopqrstuvwxyz"


def hash_password(password: str, *, insecure: bool = False) -> str:
    """PHC string of a new password. About 45 ms and 19 MiB: run it in the pool.

    Args:
        password: as the client sent it; it is normalized here.
        insecure: a store born under --insecure-dev has no floor (DEV-5).

    Raises:
        PasswordRefused: too short, too long, or too easily guessed.
    """
    data = _normal(password)
    if len(data) > PASSWORD_BYTES_MAX:
        raise PasswordRefused(f"at most {PASSWORD_BYTES_MAX} bytes")
    if not insecure:
        if len(data) < PASSWORD_BYTES_MIN:
            raise PasswordRefused(f"at least {PASSWORD_BYTES_MIN} bytes are needed")
        if _easily_guessed(data.decode("utf-8", "replace")):
            raise PasswordRefused("too easily guessed")
    kdf = Argon2id(
        salt=os.urandom(SALT_BYTES),
        length=HASH_BYTES,
        iterations=PASSES,
        lanes=LANES,
        memory_cost=MEMORY_KIB,
    )
    return kdf.derive_phc_encoded(data)


def verify_password(password: str, phc: str | None) -> bool:
    """Whether ``password`` belongs to ``phc``. Costs as ``hash_password`` does.

    None, for an unknown user or one without a password, computes a dummy and is False (N25). So
    does a stored string whose parameters are out of bounds.
    """
    stored = phc if phc is not None and bounded(phc) else None
    data = _normal(password)
    too_long = len(data) > PASSWORD_BYTES_MAX  # nobody has such a password; never cut to fit
    try:
        Argon2id.verify_phc_encoded(data[:PASSWORD_BYTES_MAX], stored or _DUMMY)
    except Exception:  # noqa: BLE001  # InvalidKey, or anything: any doubt means no (FC-6)
        return False
    return stored is not None and not too_long


def bounded(phc: str) -> bool:
    """Whether a stored string is Argon2id of a cost that we would compute (PW-2)."""
    match = _PHC.fullmatch(phc)
    if match is None:
        return False
    memory, rounds, lanes = (int(number) for number in match.groups())
    return (
        8 * lanes <= memory <= ARGON2_MEMORY_KIB_MAX
        and 1 <= rounds <= ARGON2_ROUNDS_MAX
        and 1 <= lanes <= ARGON2_LANES_MAX
    )


class PasswordPool:
    """At most two computations at once and a short queue; beyond it callers are refused."""

    def __init__(
        self, threads: int = PASSWORD_THREADS_MAX, queue: int = PASSWORD_QUEUE_MAX
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._room = threads + queue
        self._open = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` on a thread.

        Raises:
            PoolFull: the queue is full.
        """
        with self._lock:
            if self._open >= self._room:
                raise PoolFull("too many password computations wait")
            self._open += 1
        future = self._threads.submit(work)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[T]) -> None:
        with self._lock:
            self._open -= 1

    def close(self) -> None:
        """Drop what waits; what runs ends on its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _normal(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _easily_guessed(password: str) -> bool:
    plain = password.casefold()
    stem = plain.rstrip("0123456789!.?-_ ")
    return (
        len(set(plain)) < _DISTINCT_MIN
        or stem in _DENIED
        or plain in _SEQUENCES
        or plain in _SEQUENCES[::-1]
    )
