"""Memory that runs short: shed, recover, hand over, end (O8)."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.errors import ExitCode
from configsvc.runtime.memory_health import MemoryHealth
from tests.unit.runtime.runtime_fakes import FakeMember


class World:
    def __init__(self, bound: int = 1_000) -> None:
        self.member = FakeMember()
        self.used = 100
        member: Any = self.member
        self.memory = MemoryHealth(member, lambda: self.used, bound)

    def at(self, used: int, seconds: float = 0.6) -> None:
        self.used = used
        self.member.clock.now += seconds
        self.memory.tick(self.member.clock.now)


def test_shed_above_the_soft_bound_until_calm() -> None:
    world = World()
    seen = []
    for used in (799, 800, 799, 750, 749, 700):
        world.at(used)
        seen.append(world.memory.tight)
        assert world.member.reads.shedding == world.memory.tight
    assert seen == [False, True, True, True, False, False]


def test_a_leader_hands_over_before_it_ends() -> None:
    world = World()
    world.at(960)
    assert (world.member.handed_over, world.member.died) == (1, None)
    world.at(960)
    assert world.member.died is None  # within its election timeout
    world.member.is_leader = False
    world.at(960)
    assert world.member.died is not None
    assert world.member.died.code == ExitCode.MEMORY
    assert "memory" in world.member.unfit


@pytest.mark.parametrize("leads", [False, True])
def test_nobody_is_waited_for_in_vain(leads: bool) -> None:
    world = World()
    world.member.is_leader = leads
    world.member.successor = False
    world.at(990)
    assert world.member.died is not None


def test_a_transfer_that_hangs_does_not_keep_it() -> None:
    world = World()
    world.at(960)
    world.at(960, seconds=1.1)
    assert world.member.died is not None


def test_an_unknown_bound_is_none() -> None:
    world = World(bound=0)
    world.at(10**12)
    assert not world.memory.tight
    assert world.member.died is None
