"""A stall of this process: messages first, then one tick at most (H2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.runtime.timing import STALL_TICKS, Timing

TICK_S = 0.05
DUTIES = ("lost_leader", "proposals", "reads", "calls", "leases", "installs", "housekeeping",
          "disk", "cluster_health", "memory", "membership", "audit", "publishing", "checkpoints",
          "elections", "handover")  # fmt: skip


class Duty:
    """Anything that is ticked."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def tick(self, *_: Any) -> None:
        self._world.ticked.append(self._name)

    sweep = tick

    def stalled(self, seconds: float) -> None:
        self._world.stalls.append((self._name, round(seconds, 3)))


class World:
    """A member whose loop is a list of timers."""

    def __init__(self) -> None:
        self.now = 10.0
        self.ticked: list[str] = []
        self.stalls: list[tuple[str, float]] = []
        self.timers: list[tuple[float, Any]] = []
        self.raft_ticks = 0
        self.streams: list[Any] = []
        self.clock = SimpleNamespace(monotonic=lambda: self.now)
        self.config = SimpleNamespace(tick=TICK_S, election_timeout_ms=1_000)
        self.loop = SimpleNamespace(call_later=self._call_later)
        self.machine = SimpleNamespace(raft=SimpleNamespace(tick=self._raft_tick))
        for name in DUTIES:
            setattr(self, name, Duty(self, name))
        member: Any = self
        self.timing = Timing(member)
        self.timing.start()

    def wake(self) -> None:
        self.ticked.append("pass")

    def _raft_tick(self) -> None:
        self.raft_ticks += 1

    def _call_later(self, delay: float, call: Any) -> Any:
        self.timers.append((self.now + delay, call))
        return SimpleNamespace(cancel=lambda: None)

    def fire(self) -> None:
        """The next timer, at its time or as late as it is."""
        self.timers.sort(key=lambda timer: timer[0])
        at, call = self.timers.pop(0)
        self.now = max(self.now, at)
        call()


def test_everything_periodic_is_called_once_a_tick_and_a_pass_follows() -> None:
    world = World()
    world.fire()
    assert sorted(world.ticked) == sorted((*DUTIES, "pass"))
    assert world.ticked[-1] == "pass"
    assert world.raft_ticks == 1


@pytest.mark.parametrize("ticks_lost", [STALL_TICKS + 2, 40, 10_000])
def test_a_stall_is_one_tick_and_not_before_what_arrived(ticks_lost: int) -> None:
    world = World()
    world.now += TICK_S * ticks_lost
    world.fire()
    assert world.raft_ticks == 0, "what arrived meanwhile is read first"
    assert {name for name, _ in world.stalls} == {"leases", "housekeeping"}
    lost = TICK_S * (ticks_lost - 1)
    assert all(seconds == pytest.approx(lost, abs=0.01) for _, seconds in world.stalls)
    began = world.now
    world.fire()
    assert world.raft_ticks == 1
    assert world.now - began < TICK_S
    world.fire()
    assert world.raft_ticks == 2, "and then as always"


def test_a_timer_that_is_a_little_late_is_no_stall() -> None:
    world = World()
    world.now += TICK_S * STALL_TICKS
    world.fire()
    assert (world.raft_ticks, world.stalls) == (1, [])


def test_streams_that_need_a_leader_end_after_three_elections_without_one() -> None:
    world = World()
    lost: list[str] = []
    world.streams = [
        SimpleNamespace(needs_leader=True, leader_lost=lambda: lost.append("needs")),
        SimpleNamespace(needs_leader=False, leader_lost=lambda: lost.append("does not")),
    ]
    nobody: Any = 0
    world.timing.leadership(nobody)
    for _ in range(int(2.9 / TICK_S)):
        world.fire()
    assert lost == []
    for _ in range(6):
        world.fire()
    assert set(lost) == {"needs"}
