"""A bad disk does not lead: slow, hung, full, and well again (D1, E3, O7)."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.errors import ExitCode
from configsvc.limits import DISK_RESERVE_BYTES, WAL_SEGMENT_BYTES
from configsvc.runtime.disk_health import NO_SPACE, DiskHealth, DiskState
from tests.unit.runtime.runtime_fakes import FakeMember

ENOUGH = 2 * WAL_SEGMENT_BYTES + DISK_RESERVE_BYTES


class World:
    """A member, its disk, and time."""

    def __init__(self) -> None:
        self.member = FakeMember()
        self.free = ENOUGH
        member: Any = self.member
        self.disk = DiskHealth(member, lambda: self.free)

    def ticks(self, seconds: float, *, age: float | None = None) -> None:
        """Let time pass; a write that hangs gets older."""
        tick = self.member.config.tick
        for _ in range(round(seconds / tick)):
            self.member.clock.now += tick
            if age is not None:
                age += tick
                self.member.wal.age = age
            self.disk.tick(self.member.clock.now)


@pytest.fixture
def world() -> World:
    return World()


def test_a_healthy_disk_changes_nothing(world: World) -> None:
    world.ticks(30)
    assert world.disk.state is DiskState.OK
    assert (world.member.handed_over, world.member.unfit) == (0, set())


def test_hung_disk_hands_over_then_gives_up_then_ends(world: World) -> None:
    member = world.member
    world.ticks(0.45, age=0.0)
    assert (member.handed_over, member.gave_up) == (0, 0)
    world.ticks(0.4, age=0.45)
    assert (member.handed_over, member.gave_up) == (1, 0)
    world.ticks(0.3, age=0.85)
    assert (member.gave_up, member.unfit, world.disk.state) == (1, {"disk"}, DiskState.HUNG)
    world.ticks(8.0, age=1.15)
    assert member.died is None
    world.ticks(1.5, age=9.15)
    assert member.died is not None
    assert member.died.code == ExitCode.STORAGE


def test_a_write_that_comes_back_makes_it_fit_again(world: World) -> None:
    world.ticks(3.0, age=0.0)
    assert world.member.unfit == {"disk"}
    world.member.wal.age = 0.0
    world.ticks(0.1)
    assert (world.member.unfit, world.disk.state) == (set(), DiskState.OK)


def test_own_standstill_is_no_hang_that_ends_it(world: World) -> None:
    """Only ticks of this process count towards its end: one long pause is one tick (H2)."""
    world.member.wal.age = 60.0
    world.disk.tick(world.member.clock.now)
    assert world.member.gave_up == 1  # real time counts where it reduces authority
    assert world.member.died is None


def test_hand_overs_for_a_slow_disk_are_rare(world: World) -> None:
    member = world.member
    for _ in range(30):
        member.wal.frames_total += 1
        member.wal.sync_seconds_last = 0.4
        world.ticks(0.5)
    assert world.disk.state is DiskState.SLOW
    assert member.handed_over == 2  # 15 s at one in ten timeouts
    assert member.unfit == set()  # a slow disk never forbids a campaign
    assert member.healthy_wanted == [True, True], "another slow one would hand it back"


def test_one_slow_sync_is_no_slow_disk(world: World) -> None:
    world.member.wal.frames_total = 1
    world.member.wal.sync_seconds_last = 1.0
    world.ticks(0.1)
    assert world.disk.state is DiskState.OK


@pytest.mark.parametrize("cause", ["log", "space"])
def test_a_full_disk_hands_over_and_does_not_campaign(world: World, cause: str) -> None:
    if cause == "log":
        world.disk.log_space(False)
    else:
        world.free = ENOUGH - 1
    world.ticks(2.0)
    assert (world.disk.state, world.member.unfit) == (DiskState.FULL, {"space"})
    assert not any(world.member.healthy_wanted), "a slow one is better than a full one"
    assert world.member.handed_over == 1
    assert world.member.alarms == []
    world.disk.log_space(True)
    world.free = ENOUGH
    world.ticks(2.0)
    assert (world.disk.state, world.member.unfit) == (DiskState.OK, set())


def test_the_alarm_stops_growth_when_nobody_fitter_can_lead(world: World) -> None:
    world.member.successor = False
    world.free = 0
    world.ticks(2.0)
    assert world.member.alarms == [NO_SPACE]


def test_a_follower_only_says_so(world: World) -> None:
    world.member.is_leader = False
    world.free = 0
    world.ticks(2.0)
    assert (world.member.handed_over, world.member.alarms) == (0, [])
    assert world.disk.state is DiskState.FULL


def test_a_file_system_that_does_not_tell_ends_no_tick(world: World) -> None:
    member: Any = world.member

    def unknown() -> int:
        raise OSError(5, "it does not tell")

    disk = DiskHealth(member, unknown)
    for _ in range(100):
        world.member.clock.now += 0.05
        disk.tick(world.member.clock.now)
    assert disk.state is DiskState.OK
    world.free = 0
    world.ticks(1.5)
    assert world.disk.state is DiskState.FULL
