"""Passwords: Argon2id at OWASP's minimum, in a small pool of threads (PW-1, PW-2)."""

from __future__ import annotations

import os
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from configsvc.errors import ConfigServiceError

MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
BYTES_MAX: Final = 1_024
CHARS_MIN: Final = 12
POOL_THREADS: Final = 2
POOL_QUEUE_MAX: Final = 16
_PHC = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$[^$]{8,128}\$[^$]{8,128}"
)
_M_MAX_KIB, _T_MAX, _P_MAX = 256 * 1024, 10, 4
# Refused whatever their length: what people type when a rule asks for twelve characters.
_DENIED: Final = frozenset(
    {
        "password1234", "passwordpassword", "123456789012", "1234567890123", "qwertyuiop12",
        "qwertyuiopas", "administrator", "letmeinletmein", "changemechangeme", "iloveyou1234",
        "abcdefghijkl", "configsvc1234", "rootrootroot", "adminadminadmin", "welcome12345",
    }
)  # fmt: skip


class PasswordRefused(ConfigServiceError):
    """Why a new password is not taken; never quotes it."""


class PoolFull(ConfigServiceError):
    """Too many password operations wait already."""


def hash_password(password: str) -> str:
    """PHC string of a new password. About 45 ms; run it in the pool.

    Raises:
        PasswordRefused: too short, too long, or on the deny list.
    """
    normal = unicodedata.normalize("NFC", password)
    data = normal.encode("utf-8", "surrogatepass")
    if len(normal) < CHARS_MIN:
        raise PasswordRefused(f"at least {CHARS_MIN} characters are needed")
    if len(data) > BYTES_MAX:
        raise PasswordRefused(f"at most {BYTES_MAX} bytes")
    if normal.lower() in _DENIED or len(set(normal)) < 4:
        raise PasswordRefused("too easily guessed")
    kdf = Argon2id(
        salt=os.urandom(16), length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB
    )
    return kdf.derive_phc_encoded(data)


_dummy_lock = threading.Lock()
_dummy: list[str] = []


def _dummy_phc() -> str:
    """A hash nobody knows the password of, so that unknown users cost as much as known ones."""
    with _dummy_lock:
        if not _dummy:
            _dummy.append(hash_password(os.urandom(24).hex()))
        return _dummy[0]


def verify_password(password: str, phc: str | None) -> bool:
    """Whether ``password`` belongs to ``phc``; None hashes a dummy and is always False (N25)."""
    stored = phc or _dummy_phc()
    if not bounded(stored):
        return False
    data = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")[:BYTES_MAX]
    try:
        Argon2id.verify_phc_encoded(data, stored)
    except (InvalidKey, ValueError):
        return False
    return phc is not None


def bounded(phc: str) -> bool:
    """Whether a stored string's cost is one we would ever have chosen (PW-2)."""
    match = _PHC.fullmatch(phc)
    if match is None:
        return False
    m, t, p = (int(x) for x in match.groups())
    return 8 <= m <= _M_MAX_KIB and 1 <= t <= _T_MAX and 1 <= p <= _P_MAX


class PasswordPool:
    """Two threads and a short queue; beyond it callers are refused."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="password")
        self._open = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Raises ``PoolFull`` when the queue is full."""
        with self._lock:
            if self._open >= POOL_THREADS + POOL_QUEUE_MAX:
                raise PoolFull("too many password operations")
            self._open += 1
        future = self._threads.submit(work)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[Any]) -> None:
        with self._lock:
            self._open -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
