"""Writes on their way to the log: bounds, stamps, ends that nobody knows (O1, A1, C7)."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from runtime_fakes import FakeClock

from configsvc import limits
from configsvc.codec import command as codec
from configsvc.codec.command import CommandDecoder
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    LeaderChangedError,
    OverloadedError,
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
)
from configsvc.proto import rpc_pb2
from configsvc.raft.errors import ProposalDropped
from configsvc.runtime.forwarding import Queued
from configsvc.runtime.passes import Passes
from configsvc.runtime.proposals import CLOCK_SUSPECT_NS, Proposals
from configsvc.types import NodeId

TIMEOUT_S = 5.0
ELECTION_S = 1.0
PUT = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()


class World:
    """The table of member 7."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.forwarded: list[tuple[int, bytes]] = []
        self.handed_back: list[tuple[int, bytes]] = []
        self.refused: list[tuple[int, bytes]] = []
        self.link_up = True
        self.waited_since: list[float] = []
        self.results: list[bytes | ConfigServiceError] = []
        self.table = Proposals(
            self_id=NodeId(7),
            clock=self.clock,
            entropy=lambda count: bytes(range(1, 1 + count % 200)).ljust(count, b"e"),
            forwarder=self,
            wake=lambda: None,
            timeout=TIMEOUT_S,
            election_timeout=ELECTION_S,
            why_late=self._why_late,
        )

    def _why_late(self, since: float) -> ConfigServiceError:
        self.waited_since.append(since)
        return RequestTimeoutError()

    def forward(self, leader: NodeId, body: bytes) -> bool:
        if self.link_up:
            self.forwarded.append((leader, body))
        return self.link_up

    def hand_back(self, peer: NodeId, body: bytes) -> None:
        self.handed_back.append((peer, body))

    def refuse(self, peer: NodeId, body: bytes) -> None:
        self.refused.append((peer, body))

    def put(self, op: bytes = PUT, **more: Any) -> None:
        waiting = self.table.submit(
            codec.SYSTEM_ACTOR, codec.OP_PUT, op, lambda effects: b"done", **more
        )
        waiting.bind(self.results.append)

    def taken(self, applied_ns: int = 0) -> list[bytes]:
        return self.table.take_for_leader(applied_ns)[0]

    @property
    def outcome(self) -> list[type]:
        return [type(each) for each in self.results]


def stamps(commands: Iterable[bytes]) -> list[tuple[int, bool]]:
    decoder = CommandDecoder()
    envelopes = [decoder.decode(command).envelope for command in commands]
    return [(each.time_ns, each.time_suspect) for each in envelopes]


# --- O1: admission --------------------------------------------------------------------------------


def test_writes_are_bounded_and_urgent_ones_have_twice_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PROPOSALS_WAITING_MAX", 3)
    world = World()
    for _ in range(3):
        world.put()
    with pytest.raises(OverloadedError):
        world.put()
    for _ in range(3):
        world.put(urgent=True)
    with pytest.raises(OverloadedError):
        world.put(urgent=True)


def test_their_bytes_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROPOSALS_WAITING_BYTES_MAX", 3 * len(PUT))
    world = World()
    for _ in range(3):
        world.put()
    with pytest.raises(OverloadedError):
        world.put()
    world.clock.now += TIMEOUT_S + 1
    world.table.sweep()
    world.put()
    assert world.table.waiting == 1


def test_one_that_is_too_large_is_refused_before_any_work() -> None:
    with pytest.raises(RequestTooLargeError):
        World().put(bytes(limits.REQUEST_BYTES_MAX + 1))


def test_what_is_past_its_deadline_is_not_proposed_any_more() -> None:
    world = World()
    world.put()
    world.clock.now += TIMEOUT_S + 1
    world.put()
    world.table.sweep()
    assert world.outcome == [RequestTimeoutError]
    assert len(world.taken()) == 1


def test_a_batch_is_one_readys_worth() -> None:
    world = World()
    for _ in range(limits.READY_ENTRIES_MAX + 5):
        world.put()
    assert len(world.taken()) == limits.READY_ENTRIES_MAX
    assert len(world.taken()) == 5


# --- A1: stamps -----------------------------------------------------------------------------------


def test_stamps_grow_whatever_the_wall_clock_does() -> None:
    world = World()
    seen = []
    for seconds in (0.0, 5.0, -200.0, 0.0, 300.0):
        world.clock.now += seconds
        world.put()
        world.put()
        seen += [time_ns for time_ns, _ in stamps(world.taken())]
    assert seen == sorted(set(seen))
    assert seen[-2] == world.clock.time_ns(), "and follow it when it is ahead"


def test_a_new_leader_goes_on_above_what_was_applied() -> None:
    world = World()
    applied = world.clock.time_ns() + 7
    world.put()
    assert stamps(world.taken(applied)) == [(applied + 1, False)]


@pytest.mark.parametrize(("ahead_ns", "marked"), [(0, False), (CLOCK_SUSPECT_NS, True)])
def test_a_stamp_far_ahead_of_the_wall_clock_is_marked(ahead_ns: int, marked: bool) -> None:
    world = World()
    world.put()
    [(time_ns, suspect)] = stamps(world.taken(world.clock.time_ns() + ahead_ns))
    assert suspect is marked
    one = world.table.stamp_one(queued_of(world).command, 7, world.clock.time_ns() + ahead_ns)
    assert stamps([one])[0][1] is marked
    assert stamps([one])[0][0] > time_ns


def queued_of(world: World) -> Queued:
    return world.table.prepare(codec.SYSTEM_ACTOR, codec.OP_PUT, PUT, lambda effects: b"")[0]


# --- C7: what is said of an end that nobody knows -------------------------------------------------


def test_what_was_handed_on_is_unknown_when_the_leader_changes_and_never_tried_again() -> None:
    world = World()
    world.put()
    world.taken()
    world.put()  # not proposed yet
    world.table.leadership_changed()
    assert world.outcome == [TimeoutDueToLeaderFailError]
    assert len(world.taken()) == 1, "only what was never proposed is"


def test_what_the_core_dropped_was_not_proposed() -> None:
    world = World()
    world.put()
    _, batch = world.table.take_for_leader(0)
    world.table.give_back(batch)
    world.table.leadership_changed()
    assert world.outcome == []
    assert len(world.taken()) == 1


def test_a_leader_that_never_proposed_hands_back() -> None:
    world = World()
    world.put()
    world.table.forward_to(NodeId(9))
    [(leader, body)] = world.forwarded
    assert leader == 9
    other = World()
    other.table.accept_forwarded(NodeId(7), body)
    other.table.hand_back()
    [(peer, ids)] = other.handed_back
    assert peer == 7
    world.table.handed_back(ids)
    world.table.leadership_changed()
    assert world.outcome == []
    assert len(world.taken()) == 1
    world.table.handed_back(bytes(8))  # of nobody


@pytest.mark.parametrize("then", ["sweep", "leadership_changed"])
def test_who_handed_back_is_not_asked_again_at_once(then: str) -> None:
    world = World()
    world.put()
    world.table.forward_to(NodeId(9))
    other = World()
    other.table.accept_forwarded(NodeId(7), world.forwarded[0][1])
    other.table.hand_back()
    world.table.handed_back(other.handed_back[0][1])
    world.table.forward_to(NodeId(9))
    world.put()
    world.table.forward_to(NodeId(9))
    assert len(world.forwarded) == 1
    getattr(world.table, then)()
    world.table.forward_to(NodeId(9))
    assert len(world.forwarded) == 2
    assert world.outcome == []


def test_without_a_way_to_the_leader_writes_wait() -> None:
    world = World()
    world.link_up = False
    world.put()
    world.table.forward_to(NodeId(9))
    world.table.leadership_changed()
    assert world.outcome == []
    world.link_up = True
    world.table.forward_to(NodeId(9))
    assert len(world.forwarded) == 1
    assert not world.table.queued


def test_a_transfer_refuses_what_waits_and_a_stop_everything() -> None:
    world = World()
    world.put()
    world.table.fail_queued(LeaderChangedError())
    world.put()
    world.taken()
    world.put()
    world.table.stop()
    assert world.outcome == [LeaderChangedError, StoppedError, StoppedError]
    with pytest.raises(StoppedError):
        world.put()


def test_what_was_on_a_broken_connection_is_unknown_unless_the_log_brings_it() -> None:
    member, _ = sent_on(1)
    member.table.connection_lost()
    member.put()
    member.table.forward_to(NodeId(7))  # over the next connection
    member.clock.now += ELECTION_S - 0.1
    member.table.connection_lost()
    member.table.sweep()
    assert member.outcome == []
    member.clock.now += 0.1
    member.table.sweep()
    assert member.outcome == [TimeoutDueToConnectionLostError]
    member.clock.now += ELECTION_S
    member.table.sweep()
    assert member.outcome == 2 * [TimeoutDueToConnectionLostError]
    assert not member.table.queued, "never sent again"


def test_what_was_handed_back_is_in_no_doubt() -> None:
    member, leader = sent_on(1)
    member.table.connection_lost()
    leader.table.hand_back()
    member.table.handed_back(leader.handed_back[0][1])
    member.table.sweep()  # a tick later
    member.table.forward_to(NodeId(9))
    member.put()
    member.table.connection_lost()
    member.table.leadership_changed()
    assert member.outcome == [TimeoutDueToLeaderFailError]
    member.clock.now += 2 * ELECTION_S
    member.table.sweep()
    assert len(member.outcome) == 1, "the other one waits for a leader"


def test_who_waited_in_vain_is_told_why() -> None:
    world = World()
    began = world.clock.now
    world.put()
    world.clock.now += TIMEOUT_S
    world.table.sweep()
    assert world.waited_since == [began]


# --- O2, Q5: behind its bounds --------------------------------------------------------------------


def sent_on(*sizes: int, urgent: int = 0) -> tuple[World, World]:
    """A leader that holds writes of member 8, and that member."""
    member, leader = World(), World()
    for _ in range(sum(sizes) - urgent):
        member.put()
    for _ in range(urgent):
        member.put(urgent=True)
    member.table.forward_to(NodeId(7))
    for _, body in member.forwarded:
        leader.table.accept_forwarded(NodeId(8), body)
    return member, leader


class Behind:
    """A leader whose history does not get on."""

    def __init__(self) -> None:
        self.world = World()
        self.clock = self.world.clock
        self.held = self.held_urgent = True
        self.dropping = False
        self.proposed: list[bytes] = []
        table: Any = self.world.table
        member: Any = SimpleNamespace(
            loop=None,
            clock=self.clock,
            proposals=table,
            leading_since_term=1,
            handover=SimpleNamespace(under_way=None),
            housekeeping=SimpleNamespace(
                hold_writes=lambda urgent=False: self.held_urgent if urgent else self.held
            ),
            machine=SimpleNamespace(
                raft=SimpleNamespace(
                    term=1,
                    last_index=1,
                    conf_change_unapplied=False,
                    propose=self._propose,
                )
            ),
            state=SimpleNamespace(last_time_ns=0),
            news=SimpleNamespace(expects=lambda *_: None),
        )
        self.passes = Passes(member)

    def _propose(self, commands: list[bytes]) -> None:
        if self.dropping:
            raise ProposalDropped
        self.proposed += commands

    def after(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            self.clock.now += 0.5
            self.passes._propose()


def test_Q5_writes_wait_a_moment_for_the_history_and_are_then_refused_clearly() -> None:
    behind = Behind()
    behind.world.put()
    behind.world.put(urgent=True)
    behind.after(limits.WRITES_HELD_S_MAX)
    assert behind.world.outcome == []
    behind.after(1.0)
    assert behind.world.outcome == [OverloadedError], "the urgent one waits on"
    behind.held = False
    behind.after(0.5)
    assert len(behind.proposed) == 1


def test_O2_urgent_ones_go_on_up_to_twice_the_bounds() -> None:
    member, _ = sent_on(2, urgent=1)
    behind = Behind()
    behind.world.table.accept_forwarded(NodeId(8), member.forwarded[0][1])
    behind.world.put()
    behind.world.put(urgent=True)
    behind.after(0.5)
    assert behind.proposed == []
    behind.held_urgent = False
    behind.after(0.5)
    assert len(behind.proposed) == 2
    behind.after(limits.WRITES_HELD_S_MAX)
    assert behind.world.outcome == [OverloadedError], "they did not end the wait of the others"
    assert len(behind.world.refused) == 1
    behind.held = False
    behind.after(0.5)
    assert len(behind.proposed) == 2


def test_O2_what_the_core_has_no_room_for_is_refused_after_a_moment() -> None:
    behind = Behind()
    behind.held, behind.dropping = False, True
    behind.world.put()
    behind.after(limits.WRITES_HELD_S_MAX)
    assert behind.world.outcome == []
    behind.after(0.5)
    assert behind.world.outcome == [OverloadedError]
    behind.dropping = False
    behind.world.put()
    behind.after(0.5)
    assert len(behind.proposed) == 1


def test_Q5_one_that_gets_on_refuses_nobody() -> None:
    behind = Behind()
    for _ in range(10):
        behind.held = True
        behind.world.put()
        behind.after(limits.WRITES_HELD_S_MAX - 0.5)
        behind.held = False
        behind.after(0.5)
    assert len(behind.proposed) == 10
    assert behind.world.outcome == []


def test_Q5_a_hold_of_long_ago_is_forgotten() -> None:
    behind = Behind()
    behind.world.put()
    behind.after(1.0)
    behind.world.table.fail_queued(LeaderChangedError())
    behind.world.results.clear()
    behind.after(20.0)
    behind.world.put()
    behind.after(1.0)
    assert behind.world.outcome == []


@pytest.mark.parametrize("urgent", [0, 1])
def test_Q5_those_of_other_members_are_refused_where_they_came_in(urgent: int) -> None:
    member, leader = sent_on(3, urgent=urgent)
    leader.put()
    leader.table.refuse_waiting(OverloadedError())
    assert leader.outcome == [OverloadedError]
    [(peer, body)] = leader.refused
    assert peer == 8
    member.table.refused(body)
    assert member.outcome == (3 - urgent) * [OverloadedError]
    assert member.table.waiting == len(leader.taken()) == urgent
    assert leader.handed_back == [], "or they would come again at once"


def test_Q5_the_leader_of_a_held_log_tells_the_forwarding_member() -> None:
    member, _ = sent_on(2)
    behind = Behind()
    behind.world.table.accept_forwarded(NodeId(8), member.forwarded[0][1])
    behind.after(limits.WRITES_HELD_S_MAX)
    assert behind.world.refused == []
    behind.after(0.5)
    [(peer, body)] = behind.world.refused
    member.table.refused(body)
    assert (peer, member.outcome) == (8, 2 * [OverloadedError])


def test_D2_a_transfer_refuses_what_others_sent() -> None:
    member, leader = sent_on(2, urgent=1)
    leader.table.fail_queued(LeaderChangedError())
    member.table.refused(leader.refused[0][1])
    assert member.outcome == 2 * [LeaderChangedError]


def test_only_what_was_never_proposed_is_refused() -> None:
    member, leader = sent_on(2)
    assert len(leader.taken()) == 2
    leader.table.refuse_waiting(OverloadedError())
    leader.table.fail_queued(LeaderChangedError())
    assert (leader.refused, leader.handed_back) == ([], [])
    assert member.outcome == []


def test_a_refusal_of_what_this_member_does_not_wait_for_is_nobodys() -> None:
    member, leader = sent_on(1)
    leader.table.refuse_waiting(OverloadedError())
    body = leader.refused[0][1]
    member.table.handed_back(body[1:])  # ours again: whoever refuses it now does not hold it
    member.table.refused(body)
    assert member.outcome == []
    member.taken()
    member.table.leadership_changed()
    member.table.refused(body)
    assert member.outcome == [TimeoutDueToLeaderFailError]
    with pytest.raises(DecodeError):
        member.table.refused(b"")


def test_too_many_of_others_are_refused_not_sent_to_and_fro(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PROPOSALS_WAITING_MAX", 2)
    leader = World()
    for peer in (3, 4, 5):
        member, _ = sent_on(2)
        leader.table.accept_forwarded(NodeId(peer), member.forwarded[0][1])
    assert [peer for peer, _ in leader.refused] == [3, 4, 5]
    assert not leader.table.queued


def test_what_a_full_batch_left_of_others_stays_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READY_ENTRIES_MAX", 1)
    member, leader = sent_on(2)
    leader.put()
    assert len(leader.taken()) == 1
    leader.clock.now += TIMEOUT_S + 1
    leader.table.sweep()
    leader.put()
    leader.table.forward_to(NodeId(9))  # another leads by now
    assert len(leader.forwarded) == 1, "only what it took itself goes on in its name"
    [(peer, ids)] = leader.handed_back
    member.table.handed_back(ids)
    assert (peer, len(ids), member.table.queued) == (8, 8, True)


def test_what_the_core_dropped_of_others_stays_theirs() -> None:
    member, leader = sent_on(2)
    leader.put()
    _, batch = leader.table.take_for_leader(0)
    leader.table.give_back(batch)
    assert leader.table.foreign == (8,)
    assert leader.table.take_for_leader(0)[1] == batch
    assert member.outcome == []


def test_a_member_that_stops_hands_back() -> None:
    member, leader = sent_on(1)
    leader.table.stop()
    member.table.handed_back(leader.handed_back[0][1])
    assert len(member.taken()) == 1
