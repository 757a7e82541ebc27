"""M6: who must be here now for a change of members; the rest is judged where it is applied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from configsvc.apply.commands import MemberChangeOp
from configsvc.apply.members import ADD, REMOVE
from configsvc.errors import UnhealthyError
from configsvc.runtime.membership import Membership


def membership(voters: int, here: int, *, strict: bool = True, learners: int = 0) -> Membership:
    """Members 1 to ``voters``, of which the first ``here`` are connected, and then learners."""
    found = [SimpleNamespace(id=n, is_learner=n > voters) for n in range(1, voters + learners + 1)]
    member = SimpleNamespace(
        calls=SimpleNamespace(serve=lambda *_: None),
        self_id=1,
        config=SimpleNamespace(strict_reconfig_check=strict),
        state=SimpleNamespace(members=SimpleNamespace(sorted=lambda: found)),
        peer_active_for=lambda peer: 5.0 if peer <= here else 4.9,
    )
    return Membership(cast(Any, member))


def judged(made: Membership, action: str, member: int) -> bool:
    try:
        made._check_live(MemberChangeOp(action, member, (), False))
    except UnhealthyError:
        return False
    return True


@pytest.mark.parametrize(
    ("voters", "here", "allowed"),
    [(1, 1, True), (2, 2, True), (2, 1, False), (3, 3, True), (3, 2, False), (4, 3, True),
     (4, 2, False), (5, 4, True), (5, 3, False)],
)  # fmt: skip
def test_to_add_a_quorum_with_the_new_one_is_here(voters: int, here: int, allowed: bool) -> None:
    assert judged(membership(voters, here), ADD, 99) == allowed
    assert judged(membership(voters, here, learners=1), ADD, 99) == allowed
    assert judged(membership(voters, here, strict=False), ADD, 99)


@pytest.mark.parametrize(
    ("voters", "here", "gone", "allowed"),
    [(3, 3, 1, True), (3, 2, 1, False), (3, 2, 3, True), (3, 1, 3, True), (2, 2, 1, True),
     (5, 4, 1, True), (5, 3, 1, False), (5, 3, 5, True), (1, 1, 1, True)],
)  # fmt: skip
def test_to_remove_one_that_is_here_leaves_a_quorum(
    voters: int, here: int, gone: int, allowed: bool
) -> None:
    assert judged(membership(voters, here), REMOVE, gone) == allowed
    assert judged(membership(voters, here, strict=False), REMOVE, gone)


def test_a_learner_can_always_go() -> None:
    assert judged(membership(3, 1, learners=1), REMOVE, 4)


def test_the_text_is_etcds() -> None:
    assert UnhealthyError.text == "etcdserver: unhealthy cluster"
