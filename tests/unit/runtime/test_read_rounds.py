"""Rounds of linearizable reads: shared, one in flight, each under a new context (R1–R4)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from runtime_fakes import FakeClock

from configsvc import limits
from configsvc.errors import (
    ConfigServiceError,
    LeaderChangedError,
    OverloadedError,
    RequestTimeoutError,
    StoppedError,
    TimeoutWaitAppliedIndexError,
)
from configsvc.raft.errors import ReadDropped
from configsvc.runtime.reads import RETRY_S, Reads
from configsvc.types import NodeId

HEARTBEAT_S = 0.1
TIMEOUT_S = 5.0


class World:
    """The reads of member 7 in its third start, and a core that notes what it is asked."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.rounds: list[bytes] = []
        self.woken = 0
        self.drops = False
        self.waited_since: list[float] = []
        self.told: list[tuple[str, bytes | ConfigServiceError]] = []
        self.reads = Reads(
            self_id=NodeId(7),
            incarnation=3,
            clock=self.clock,
            wake=self._wake,
            timeout=TIMEOUT_S,
            heartbeat=HEARTBEAT_S,
            why_late=self._why_late,
        )

    def _why_late(self, since: float) -> ConfigServiceError:
        self.waited_since.append(since)
        return RequestTimeoutError()

    def _wake(self) -> None:
        self.woken += 1

    def read_index(self, ctx: bytes) -> None:
        if self.drops:
            raise ReadDropped
        self.rounds.append(ctx)

    def read(self, name: str, **more: Any) -> None:
        waiting = self.reads.submit(lambda: name.encode(), **more)
        waiting.bind(lambda result: self.told.append((name, result)))

    def flush(self) -> None:
        self.reads.flush(self)

    @property
    def outcome(self) -> dict[str, bytes | type]:
        return {k: v if isinstance(v, bytes) else type(v) for k, v in self.told}


def test_R1_everybody_who_waits_shares_a_round() -> None:
    world = World()
    for name in "abc":
        world.read(name)
    world.flush()
    assert len(world.rounds) == 1
    world.reads.confirmed(5, world.rounds[0], applied=5)
    assert world.outcome == {"a": b"a", "b": b"b", "c": b"c"}


def test_R1_a_second_round_only_when_the_first_is_older_than_a_heartbeat() -> None:
    world = World()
    world.read("a")
    world.flush()
    world.read("b")
    world.flush()
    assert len(world.rounds) == 1
    world.clock.now += 1.5 * HEARTBEAT_S
    world.flush()
    assert len(world.rounds) == 2
    world.reads.confirmed(5, world.rounds[1], applied=5)
    assert world.outcome == {"b": b"b"}, "a round answers those who waited when it began"


def test_R1_who_came_during_a_round_gets_the_next_at_once() -> None:
    world = World()
    world.read("a")
    world.flush()
    world.read("b")
    before = world.woken
    world.reads.confirmed(5, world.rounds[0], applied=5)
    assert world.woken > before
    world.flush()
    assert len(world.rounds) == 2


def test_R1_the_queue_is_bounded_and_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PENDING_READS_MAX", 4)
    world = World()
    world.read("queued")
    world.flush()
    world.read("queued, too")
    world.reads.once_applied(9, lambda: b"")
    world.read("the fourth")
    with pytest.raises(OverloadedError):
        world.read("one too many")
    with pytest.raises(OverloadedError):
        world.reads.once_applied(9, lambda: b"")


def test_R3_a_context_is_member_start_and_counter_and_never_used_twice() -> None:
    world = World()
    for _ in range(3):
        world.read("a")
        world.flush()
        world.clock.now += RETRY_S  # no answer: asked for again
        world.reads.sweep()
        world.flush()
    parts = [struct.unpack("<QQQ", context) for context in world.rounds]
    assert {(who, start) for who, start, _ in parts} == {(7, 3)}
    counters = [counter for _, _, counter in parts]
    assert counters == sorted(set(counters))
    assert len(counters) > 3


def test_R3_an_answer_to_an_attempt_that_was_given_up_counts_for_nothing() -> None:
    world = World()
    world.read("a")
    world.flush()
    world.clock.now += RETRY_S
    world.reads.sweep()
    world.reads.confirmed(5, world.rounds[0], applied=5)
    assert world.told == []
    world.flush()
    world.reads.confirmed(6, world.rounds[1], applied=6)
    assert world.outcome == {"a": b"a"}


def test_a_read_waits_until_its_index_is_applied() -> None:
    world = World()
    world.read("a")
    world.flush()
    world.reads.confirmed(7, world.rounds[0], applied=5)
    world.reads.applied(6)
    assert world.told == []
    world.reads.applied(7)
    assert world.outcome == {"a": b"a"}


def test_R4_a_change_of_leader_fails_what_was_asked_and_drops_its_answer() -> None:
    world = World()
    world.read("asked")
    world.flush()
    world.read("not asked yet")
    world.reads.leadership_changed()
    assert world.outcome == {"asked": LeaderChangedError}
    world.reads.confirmed(5, world.rounds[0], applied=5)
    assert world.outcome == {"asked": LeaderChangedError}
    world.flush()
    world.reads.confirmed(5, world.rounds[1], applied=5)
    assert world.outcome["not asked yet"] == b"not asked yet"


def test_without_a_leader_reads_wait_for_one_or_for_their_deadline() -> None:
    world = World()
    began = world.clock.now
    world.drops = True
    world.read("a")
    world.flush()
    world.clock.now += TIMEOUT_S - 0.1
    world.reads.sweep()
    assert world.told == []
    world.clock.now += 0.2
    world.reads.sweep()
    assert world.outcome == {"a": RequestTimeoutError}
    assert world.waited_since == [began]


def test_a_read_that_apply_does_not_get_to_says_so() -> None:
    world = World()
    world.read("a")
    world.flush()
    world.reads.confirmed(6, world.rounds[0], applied=5)
    world.clock.now += TIMEOUT_S + 0.1
    world.reads.sweep()
    assert world.outcome == {"a": TimeoutWaitAppliedIndexError}
    assert world.waited_since == []


def test_O8_clients_are_shed_and_the_members_own_reads_are_not() -> None:
    world = World()
    world.reads.shedding = True
    with pytest.raises(OverloadedError):
        world.read("a client")
    world.read("a renewal", urgent=True)


def test_a_stop_fails_reads_of_every_stage() -> None:
    world = World()
    world.read("confirmed")
    world.flush()
    world.reads.confirmed(9, world.rounds[0], applied=1)
    world.read("asked")
    world.flush()
    world.read("queued")
    world.reads.stop()
    assert world.outcome == dict.fromkeys(("confirmed", "asked", "queued"), StoppedError)
    with pytest.raises(StoppedError):
        world.read("late")
