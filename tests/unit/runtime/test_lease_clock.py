"""When the leader ends leases, and when it must not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from runtime_fakes import FakeClock

from configsvc.apply.state import CORRUPT, NO_SPACE
from configsvc.codec import command as codec
from configsvc.errors import OverloadedError
from configsvc.lease.lessor import Lessor
from configsvc.proto import command_pb2
from configsvc.runtime import leases
from configsvc.runtime.leases import CHECK_EVERY_S, REVOKES_PER_CHECK, Leases
from configsvc.runtime.waiting import Waiting


class World:
    """A leader whose reads are confirmed when the test says so; proposals are kept."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.is_leader = True
        self.lead = self.term = 3
        self.alarms: set[int] = set()
        self.rounds: list[tuple[Callable[[], bytes], Waiting]] = []
        self.sent: list[tuple[int, bytes]] = []
        self.lessor = Lessor(2)
        self.leases = Leases(
            member=cast(Any, self),
            lessor=self.lessor,
            clock=self.clock,
            proposals=cast(Any, SimpleNamespace(submit=self._propose)),
            reads=cast(Any, SimpleNamespace(submit=self._read)),
            calls=cast(Any, SimpleNamespace(serve=lambda method, handler: None)),
            election_timeout=1.0,
        )
        self.leases.promoted()

    def has_alarm(self, alarm: int) -> bool:
        return alarm in self.alarms

    def _propose(self, actor: bytes, field: int, op: bytes, encode: Any, **_: Any) -> Waiting:
        self.sent.append((field, op))
        return Waiting()

    def _read(self, answer: Callable[[], bytes], *, urgent: bool) -> Waiting:
        self.rounds.append((answer, Waiting()))
        return self.rounds[-1][1]

    def confirm(self) -> None:
        for answer, waiting in self.rounds:
            waiting.complete(answer())
        self.rounds.clear()

    def grant(self, lease: int, ttl: int) -> None:
        self.lessor.grant(lease, ttl, "")
        self.leases.granted(lease)

    def passes(self, seconds: float) -> None:
        """Time goes on, and every round that the leader asks for is confirmed."""
        for _ in range(round(seconds / 0.5)):
            self.clock.now += 0.5
            self.leases.tick()
            self.confirm()

    @property
    def ended(self) -> list[int]:
        revokes = [op for field, op in self.sent if field == codec.OP_LEASE_REVOKE]
        return [i for op in revokes for i in command_pb2.LeaseRevoke.FromString(op).ids]


def test_X1_a_lease_ends_after_a_round_that_began_after_its_deadline() -> None:
    world = World()
    world.grant(7, 5)
    world.passes(4.5)
    assert not world.sent
    world.clock.now += 1.0
    world.leases.tick()
    assert world.rounds
    assert not world.sent, "the round is not confirmed yet"
    world.confirm()
    [(field, op)] = world.sent
    assert field == codec.OP_LEASE_REVOKE
    assert command_pb2.LeaseRevoke.FromString(op).decided_term == world.term


def test_a_lost_expiry_is_proposed_again() -> None:
    world = World()
    world.grant(7, 5)
    world.passes(10)
    assert 2 < len(world.ended) <= 6


def test_X5_expiry_after_a_long_outage_is_spread() -> None:
    world = World()
    for lease in range(1, 1_301):
        world.grant(lease, 5)
    world.passes(5.0)
    assert len(world.ended) <= REVOKES_PER_CHECK
    revoked: set[int] = set()
    for _ in range(3):
        before = len(world.ended)
        world.passes(0.5)
        assert len(world.ended) - before <= REVOKES_PER_CHECK
        for lease in world.ended:
            if lease in world.lessor:
                world.lessor.revoke(lease)
        revoked.update(world.ended)
    assert revoked == set(range(1, 1_301))
    assert REVOKES_PER_CHECK / CHECK_EVERY_S <= 1_000


def test_N4_nothing_runs_out_under_corrupt_and_everything_due_does_afterwards() -> None:
    world = World()
    world.grant(7, 5)
    world.grant(8, 9)
    world.alarms = {CORRUPT}
    world.passes(60)
    assert not world.sent
    world.alarms = {NO_SPACE}
    world.passes(0.5)
    assert world.ended == [7, 8]


def test_X2_a_standstill_moves_the_deadlines() -> None:
    world = World()
    world.grant(7, 5)
    world.clock.now += 30.0
    world.leases.stalled(30.0)
    world.passes(4.5)
    assert not world.sent
    world.passes(1.0)
    assert world.ended == [7]


def test_X2_a_new_leader_gives_the_full_ttl_and_an_election_timeout() -> None:
    world = World()
    world.grant(7, 5)
    world.passes(4.5)
    world.leases.demoted()
    world.leases.promoted()
    world.passes(5.5)
    assert not world.sent
    world.passes(1.0)
    assert world.ended == [7]


def test_renewals_that_wait_for_a_round_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWALS_MAX", 2)
    world = World()
    told: list[object] = []
    world.grant(7, 5)
    for _ in range(3):
        world.leases.renew(7, told.append)
    assert [type(each) for each in told] == [OverloadedError]
    world.confirm()
    assert told[1:] == [5, 5]
    world.leases.renew(7, told.append)
    world.confirm()
    assert told[3:] == [5]
