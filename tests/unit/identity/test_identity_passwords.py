"""PW-1, PW-2, N25: hashing, verifying, bounds, and the pool."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from configsvc.identity import passwords as module
from configsvc.identity.errors import PasswordRefused, PoolFull
from configsvc.identity.passwords import PasswordPool, bounded, hash_password, verify_password

GOOD = "correct horse battery 7"


def test_a_password_belongs_to_its_hash_only() -> None:
    phc = hash_password(GOOD)
    assert phc.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert GOOD not in phc
    assert verify_password(GOOD, phc)
    assert not verify_password(GOOD + "x", phc)
    assert not verify_password("", phc)
    assert hash_password(GOOD) != phc


def test_spellings_of_one_text_are_one_password() -> None:
    phc = hash_password("pa\u0308sswort-mit-umlaut")  # a and a combining diaeresis
    assert verify_password("p\u00e4sswort-mit-umlaut", phc)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        pytest.param("short", "at least 12", id="short"),
        pytest.param("x" * 11, "at least 12", id="eleven"),
        pytest.param("ab1" * 342, "at most 1024", id="long"),
        pytest.param("aaaaaaaaaaaa", "guessed", id="one-letter"),
        pytest.param("abababababab", "guessed", id="two-letters"),
        pytest.param("Password2026!", "guessed", id="password-with-year"),
        pytest.param("CHANGEMECHANGEME", "guessed", id="changeme"),
        pytest.param("012345678901", "guessed", id="digits"),
        pytest.param("lkjihgfedcba", "guessed", id="alphabet-backwards"),
    ],
)
def test_refused_passwords_are_not_repeated(password: str, reason: str) -> None:
    with pytest.raises(PasswordRefused, match=reason) as caught:
        hash_password(password)
    assert password not in str(caught.value)


def test_no_floor_under_insecure_dev_but_a_ceiling() -> None:
    assert verify_password("123", hash_password("123", insecure=True))
    with pytest.raises(PasswordRefused):
        hash_password("x" * 1_025, insecure=True)


def test_a_longer_password_is_not_cut_to_fit() -> None:
    longest = "".join(chr(97 + at % 26) for at in range(1_024))
    phc = hash_password(longest)
    assert verify_password(longest, phc)
    assert not verify_password(longest + "x", phc)


@pytest.mark.parametrize(
    ("phc", "expected"),
    [
        (f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}", True),
        (f"$argon2id$v=19$m=262144,t=10,p=4${'A' * 22}${'A' * 43}", True),
        (f"$argon2id$v=19$m=262145,t=2,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=19$m=4194304,t=2,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=19$m=19456,t=11,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=19$m=19456,t=0,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=19$m=19456,t=2,p=5${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=19$m=7,t=2,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2i$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}", False),
        (f"$argon2id$v=16$m=19456,t=2,p=1${'A' * 22}${'A' * 43}", False),
        ("$2b$12$abcdefghijklmnopqrstuv", False),
        ("", False),
        ("plaintext", False),
    ],
)
def test_parameters_are_bounded_before_anything_is_computed(phc: str, expected: bool) -> None:
    assert bounded(phc) == expected


def test_a_planted_hash_costs_no_more_than_a_good_one() -> None:
    planted = f"$argon2id$v=19$m=4194304,t=3,p=1${'A' * 22}${'A' * 43}"
    began = time.monotonic()
    assert not verify_password(GOOD, planted)
    assert time.monotonic() - began < 2.0  # the string asks for 26 s and 4 GiB


def test_unknown_users_cost_as_much_as_known_ones() -> None:
    phc = hash_password(GOOD)

    def cost(work: Callable[[], bool]) -> float:
        began = time.thread_time()
        assert not work()
        return time.thread_time() - began

    known = statistics.median(cost(lambda: verify_password("wrong one", phc)) for _ in range(5))
    unknown = statistics.median(cost(lambda: verify_password(GOOD, None)) for _ in range(5))
    assert 0.5 < unknown / known < 2


def test_the_dummy_is_bounded_and_opens_for_nobody() -> None:
    assert bounded(module._DUMMY)
    assert not verify_password("", None)


def test_the_pool_is_bounded_and_empties() -> None:
    pool = PasswordPool(threads=2, queue=3)
    gate = threading.Event()
    try:
        running = [pool.submit(gate.wait) for _ in range(5)]
        with pytest.raises(PoolFull):
            pool.submit(lambda: None)
        gate.set()
        assert all(future.result(5) for future in running)
        assert pool.submit(lambda: 7).result(5) == 7
    finally:
        gate.set()
        pool.close()


def test_an_error_in_the_pool_frees_its_place() -> None:
    pool = PasswordPool(threads=1, queue=0)
    try:
        for _ in range(3):
            with pytest.raises(PasswordRefused):
                pool.submit(lambda: hash_password("short")).result(5)
    finally:
        pool.close()
