"""Which log keys a member's signatures are judged by, whatever became of the member."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configsvc.apply.cluster import drop_keys_of
from configsvc.apply.state import ApplyState, SigningKey
from configsvc.runtime.standing import Standing

OTHERS = (("t", "token", 2, "active"), ("b", "log", 3, "active"))


def keys_of(*states: str) -> ApplyState:
    """Log keys of member 2 in these states, beside keys that are none of its log keys."""
    state = ApplyState()
    own = tuple((f"k{at}", "log", 2, each) for at, each in enumerate(states))
    for kid, use, member, each in OTHERS + own:
        public = kid.encode() * (32 // len(kid))
        state.signing_keys[kid] = SigningKey(kid, use, member, public, each, 1)
    return state


def standing(state: ApplyState) -> Standing:
    return Standing(state, cast(Any, None))


@pytest.mark.parametrize(
    ("states", "signs_with", "judged_by"),
    [
        ((), None, []),
        (("active",), b"k0", [b"k0"]),
        (("retired",), None, [b"k0"]),
        (("retired", "active"), b"k1", [b"k0", b"k1"]),
        (("pending",), None, []),
        (("removed",), None, []),
    ],
)
def test_keys_by_state(
    states: tuple[str, ...], signs_with: bytes | None, judged_by: list[bytes]
) -> None:
    made = standing(keys_of(*states))
    found = made.log_public_key(2)
    assert (found and found[:2]) == signs_with
    assert [key[:2] for key in made.log_public_keys(2)] == judged_by


def test_what_a_removed_member_signed_can_still_be_judged() -> None:
    state = keys_of("active")
    made = standing(state)
    drop_keys_of(state, 2, 7)
    assert made.log_public_key(2) is None
    assert [key[:2] for key in made.log_public_keys(2)] == [b"k0"]
    assert state.signing_keys["t"].state == "removed", "its tokens end"
