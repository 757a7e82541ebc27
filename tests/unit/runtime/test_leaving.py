"""A removed member goes on voting until the others know, and not for ever (5.5 c, M7)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from runtime_fakes import FakeMember

from configsvc.errors import ExitCode
from configsvc.raft.messages import ConfState
from configsvc.runtime.membership import FAREWELL_S, LINGER_TIMEOUTS, LOST_STORE, Membership
from configsvc.transport.admission import REMOVED
from configsvc.transport.hello import Refusal
from configsvc.types import NodeId

MOST_S = LINGER_TIMEOUTS * 1.0  # election timeouts of the fake


class World:
    """Member 1, removed from a cluster whose voters are given."""

    def __init__(self, *voters: int) -> None:
        self.member = cast(Any, FakeMember())
        self.member.calls = SimpleNamespace(serve=lambda method, handler: None)
        self.member.machine.conf_state = ConfState(voters=tuple(NodeId(v) for v in voters))
        self.leaving = Membership(self.member)

    def removed(self) -> None:
        self.member.state.members.removed.add(1)
        self.leaving.configuration()

    def told_by(self, *peers: int) -> None:
        for peer in peers:
            self.leaving.refused(NodeId(peer), REMOVED)

    def after(self, seconds: float) -> int | None:
        self.member.clock.now += seconds
        self.leaving.tick(self.member.clock.now)
        died = self.member.died
        return died and int(died.code)


def test_who_was_not_removed_stays() -> None:
    world = World(1, 2, 3)
    world.leaving.configuration()
    assert world.after(100.0) is None


@pytest.mark.parametrize(
    ("voters", "told", "ends"),
    [
        ((2, 3), (2,), False),  # half is no majority
        ((2, 3), (2, 3), True),
        ((2, 3, 4), (2, 3), True),
        ((2, 3, 4, 5), (2, 3), False),
        ((2, 3), (9,), False),  # no voter has said anything
    ],
)
def test_it_ends_once_a_majority_of_the_rest_has_applied_it(
    voters: tuple[int, ...], told: tuple[int, ...], ends: bool
) -> None:
    world = World(*voters)
    world.removed()
    world.told_by(*told)
    assert world.after(FAREWELL_S / 2) is None, "answers are on their way"
    assert world.after(FAREWELL_S) == (ExitCode.REMOVED if ends else None)


def test_it_does_not_wait_for_ever() -> None:
    world = World(2, 3)
    world.removed()
    assert world.after(MOST_S - 0.1) is None
    assert world.after(0.2) == ExitCode.REMOVED


def test_who_missed_its_removal_learns_of_it_from_the_others() -> None:
    world = World(1, 2, 3)
    world.told_by(2, 3)
    assert world.after(2 * FAREWELL_S) == ExitCode.REMOVED


def test_one_that_was_removed_itself_has_no_say() -> None:
    world = World(1, 2, 3)
    world.member.state.members.removed.add(9)
    world.leaving.refused(NodeId(9), REMOVED)
    world.leaving.refused(NodeId(9), LOST_STORE)
    assert world.after(2 * MOST_S) is None


@pytest.mark.parametrize("code", [ExitCode.WRONG_IDENTITY, ExitCode.WENT_BACK])
def test_what_only_the_side_at_fault_is_told_ends_it_at_once(code: ExitCode) -> None:
    world = World(1, 2, 3)
    world.leaving.refused(NodeId(2), Refusal(code, "why"))
    assert world.after(0.0) == code


def test_any_other_refusal_is_only_a_refusal() -> None:
    world = World(1, 2, 3)
    world.leaving.refused(NodeId(2), Refusal(0, "not now"))
    assert world.after(100.0) is None
