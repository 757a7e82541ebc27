"""What callers are told when the leader, or the way to it, went away while they waited."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.errors import (
    LeaderChangedError,
    NoLeaderError,
    RequestTimeoutError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
)
from configsvc.runtime.lost_leader import LostLeader
from configsvc.runtime.passes import Passes
from configsvc.runtime.rpc import PeerCalls, PeerMethod
from configsvc.types import NodeId
from tests.unit.runtime.runtime_fakes import FakeClock, FakeMember


class World:
    """Member 1, which follows member 2."""

    def __init__(self) -> None:
        self.member: Any = FakeMember()
        self.told: list[str] = []
        self.up_since: dict[int, float] = {2: 0.0, 3: 0.0}
        self.member.is_leader = False
        self.member.machine.raft.leader_silent = False
        self.member.net.active_since = self.up_since.get
        self.member.proposals = SimpleNamespace(
            leadership_changed=lambda: self.told.append("writes"),
            connection_lost=lambda: self.told.append("doubt"),
        )
        self.member.reads.leadership_changed = lambda: self.told.append("reads")
        self.member.calls = SimpleNamespace(
            leader_lost=lambda who: self.told.append(f"calls of {who}")
        )
        self.lost = LostLeader(self.member)
        self.lost.leadership(NodeId(2))

    @property
    def now(self) -> float:
        return float(self.member.clock.now)

    def after(self, seconds: float, *, silent: bool = False) -> None:
        self.member.clock.now += seconds
        self.member.machine.raft.leader_silent = silent
        self.lost.tick()


def test_a_silent_leader_is_waited_for_no_more_and_that_is_told_once() -> None:
    world = World()
    world.after(0.9)
    assert world.told == []
    for _ in range(3):
        world.after(0.1, silent=True)
    assert world.told == ["writes", "reads", "calls of 2"]
    world.after(0.1)
    world.after(1.0, silent=True)
    assert len(world.told) == 6, "each silence anew"


def test_calls_to_a_former_leader_end_with_its_office() -> None:
    world = World()
    world.lost.leadership(NodeId(2))
    assert world.told == []
    world.lost.leadership(NodeId(0))
    world.lost.leadership(NodeId(3))
    assert world.told == ["calls of 2"]


@pytest.mark.parametrize(("peer", "told"), [(2, ["doubt"]), (3, [])])
def test_only_the_leaders_connection_matters(peer: int, told: list[str]) -> None:
    world = World()
    world.lost.connection_lost(NodeId(peer))
    assert world.told == told


def test_who_waits_over_the_loss_of_a_leader_is_told_so() -> None:
    world = World()
    since = world.now
    assert type(world.lost.why_late(since)) is RequestTimeoutError
    world.after(3.0)
    world.lost.leadership(NodeId(3))
    assert type(world.lost.why_late(since)) is TimeoutDueToLeaderFailError
    assert type(world.lost.why_late(since + 4.0)) is RequestTimeoutError


@pytest.mark.parametrize(
    ("leads", "up", "error"),
    [
        pytest.param(False, {2: -1.0}, RequestTimeoutError, id="connected"),
        pytest.param(False, {3: -1.0}, TimeoutDueToConnectionLostError, id="down"),
        pytest.param(False, {2: 1.0}, TimeoutDueToConnectionLostError, id="it-was-down"),
        pytest.param(True, {2: -1.0}, RequestTimeoutError, id="quorum"),
        pytest.param(True, {2: 1.0, 3: 1.0}, TimeoutDueToConnectionLostError, id="no-quorum"),
    ],
)
def test_who_waits_over_a_broken_connection_is_told_so(
    leads: bool, up: dict[int, float], error: type
) -> None:
    world = World()
    world.after(1.0)
    since = world.now
    world.member.is_leader = leads
    world.up_since.clear()
    world.up_since.update({who: since + at for who, at in up.items()})
    assert type(world.lost.why_late(since)) is error


def test_without_any_leader_it_is_just_late() -> None:
    world = World()
    world.lost.leadership(NodeId(0))
    world.after(1.0)
    world.up_since.clear()
    assert type(world.lost.why_late(world.now)) is RequestTimeoutError


@pytest.mark.parametrize("silent", [False, True])
def test_nothing_is_sent_to_a_leader_that_is_silent(silent: bool) -> None:
    sent: list[Any] = []
    lead = NodeId(2)
    raft = SimpleNamespace(lead=lead, commit_untold=False)
    member: Any = SimpleNamespace(
        loop=None,
        self_id=NodeId(1),
        machine=SimpleNamespace(lead=lead, raft=raft, run=lambda room: False),
        proposals=SimpleNamespace(queued=True, forward_to=sent.append),
        reads=SimpleNamespace(queued=True, flush=sent.append),
        lost_leader=SimpleNamespace(silent=silent),
        news=SimpleNamespace(expected=False),
        history=SimpleNamespace(has_room=lambda: True),
        hub=SimpleNamespace(behind=0, feeding=0),
    )
    Passes(member)._run()
    assert sent == ([] if silent else [lead, raft])


def test_what_only_a_leader_answers_fails_with_it() -> None:
    results: list[tuple[PeerMethod, type]] = []
    frames: Any = SimpleNamespace(send_call=lambda peer, body: True)
    calls = PeerCalls(clock=FakeClock(), frames=frames, timeout=5.0, incarnation=1)
    for peer in (2, 3):
        for method in PeerMethod:
            calls.call(NodeId(peer), method, b"").bind(
                lambda result, method=method: results.append((method, type(result)))  # type: ignore[misc]
            )
    calls.leader_lost(NodeId(2))
    assert results == [
        (method, LeaderChangedError) for method in PeerMethod if method != PeerMethod.FLEET_STATUS
    ]
    results.clear()
    calls.lost(NodeId(2))
    assert results == [(PeerMethod.FLEET_STATUS, NoLeaderError)]
