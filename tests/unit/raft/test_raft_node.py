"""The core from outside: starts, batches, refusals, counters that return to zero."""

from __future__ import annotations

import random

import pytest
from raft_fakes import ONE, THREE, TWO, Group, config, entry, voters

from configsvc.errors import (
    ConfigError,
    DecodeError,
    ExitCode,
    FatalError,
    InvariantViolationError,
)
from configsvc.raft.config import RaftConfig, product_config
from configsvc.raft.errors import (
    ConfChangeInvalid,
    LocalMessage,
    PeerNotFound,
    ProposalDropped,
    ReadDropped,
)
from configsvc.raft.messages import (
    APPEND_THREAD,
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, NodeId, Term


def remove(member: NodeId) -> ConfChange:
    return ConfChange((ConfChangeSingle(ConfChangeType.REMOVE_NODE, member),))


# --- settings -----------------------------------------------------------------------------


def test_the_product_has_no_choice() -> None:
    made = product_config(ONE, 20, 2)
    assert made.pre_vote
    assert made.check_quorum
    assert made.step_down_on_removal
    assert made.validate_conf_changes
    assert not made.forward_proposals
    assert made.read_only == "safe"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("id", 0),
        ("heartbeat_ticks", 0),
        ("election_ticks", 1),
        ("read_only", "lease-based"),
        ("inflight_messages", 0),
        ("inflight_bytes", 0),
        ("max_uncommitted_bytes", 0),
        ("max_append_bytes", -1),
        ("max_committed_bytes_per_ready", 0),
        ("max_committed_entries_per_ready", 0),
    ],
)
def test_bad_settings_are_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        RaftConfig(**{"id": ONE, setting: value})  # type: ignore[arg-type]


# --- starting -----------------------------------------------------------------------------


def test_a_start_hands_out_nothing() -> None:
    core = RawNode(config(), MemoryLog(), random.Random(1))
    assert not core.has_ready()
    assert (core.term, core.lead, core.role, core.last_index) == (0, 0, Role.FOLLOWER, 0)


def test_a_restart_hands_out_what_was_committed_and_not_applied() -> None:
    log = MemoryLog(10, 1)
    log.append([entry(1, 11), entry(1, 12), entry(2, 13)])
    hard = HardState(Term(2), TWO, LogIndex(12))
    core = RawNode(
        config(), log, random.Random(1), hard_state=hard, conf_state=voters(3), applied=11
    )
    assert (core.term, core.commit_index, core.applied_index) == (2, 12, 11)
    ready = core.ready()
    assert [e.index for e in ready.committed_entries] == [12]
    assert (ready.hard_state, ready.entries, ready.must_sync) == (None, (), False)
    core.advance()
    assert core.applied_index == 12


def test_timeouts_are_spread_over_the_whole_range() -> None:
    rng = random.Random(3)
    core = RawNode(config(), MemoryLog(), rng, conf_state=voters(3))
    seen = set()
    for _ in range(300):
        core.step(Message(MessageType.HEARTBEAT, to=ONE, from_=TWO, term=Term(core.term + 1)))
        seen.add(core.raft.randomized_timeout)
    assert seen == set(range(10, 20))


# --- the contract of ready and advance ----------------------------------------------------


def test_each_ready_is_advanced_once() -> None:
    core = Group(1).lead()
    core.propose([b"x"])
    core.ready()
    with pytest.raises(InvariantViolationError):
        core.ready()
    core.advance()
    with pytest.raises(InvariantViolationError):
        core.advance()


def test_one_batch_is_one_append_per_peer() -> None:
    group = Group()
    leader = group.lead()
    leader.propose([b"%d" % i for i in range(100)])
    messages = [m for m in group.work(ONE) if m.type is MessageType.APP]
    assert [(m.to, len(m.entries)) for m in messages] == [(TWO, 100), (THREE, 100)]


def test_same_input_same_output() -> None:
    def trace() -> list[Message]:
        group = Group(5, seed=9)
        for _ in range(60):
            for core in group.cores.values():
                core.tick()
            group.settle()
        for core in group.cores.values():
            if core.role is Role.LEADER:
                core.propose([b"a", b"b"])
                core.read_index(b"r")
        group.settle()
        return group.sent

    first = trace()
    assert first == trace()
    assert any(m.type is MessageType.APP and len(m.entries) == 2 for m in first)


# --- refusals -----------------------------------------------------------------------------


def test_nobody_takes_a_proposal_without_a_leader() -> None:
    core = Group().cores[ONE]
    with pytest.raises(ProposalDropped):
        core.propose([b"x"])
    core.campaign()
    with pytest.raises(ProposalDropped):
        core.propose([b"x"])
    with pytest.raises(ReadDropped):
        core.read_index(b"r")


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Message(MessageType.HUP), LocalMessage),
        (Message(MessageType.UNREACHABLE, from_=TWO), LocalMessage),
        (Message(MessageType.STORAGE_APPEND_RESP, from_=TWO), LocalMessage),
        (Message(MessageType.APP_RESP, from_=NodeId(9), term=Term(1)), PeerNotFound),
        (Message(MessageType.HEARTBEAT_RESP, from_=NodeId(9), term=Term(1)), PeerNotFound),
        (
            Message(MessageType.APP_RESP, from_=TWO, term=Term(1), index=LogIndex(99)),
            DecodeError,
        ),
    ],
)
def test_what_a_leader_refuses(message: Message, error: type[Exception]) -> None:
    core = Group().lead()
    before = core.status()
    with pytest.raises(error):
        core.step(message)
    after = core.status()
    assert (after.term, after.commit, after.role) == (before.term, before.commit, before.role)


def test_the_product_takes_no_entries_from_peers() -> None:
    core = Group().lead()
    with pytest.raises(ProposalDropped):
        core.step(Message(MessageType.PROP, to=ONE, from_=TWO, entries=(entry(0, 0, b"x"),)))
    assert core.last_index == 1


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageType.APP, index=LogIndex(1), log_term=Term(1), entries=(entry(1, 3),)),
        Message(MessageType.APP, entries=(entry(1, 1), entry(1, 3))),
        Message(MessageType.APP, entries=(entry(7, 1),)),
        Message(MessageType.SNAP),
    ],
)
def test_what_a_follower_refuses(message: Message) -> None:
    core = Group().cores[ONE]
    with pytest.raises(DecodeError):
        core.step(message._replace(to=ONE, from_=TWO, term=Term(1)))
    assert core.last_index == 0


def test_a_member_that_went_back_in_time_stops() -> None:
    core = Group().cores[ONE]
    with pytest.raises(FatalError) as caught:
        core.step(
            Message(MessageType.HEARTBEAT, to=ONE, from_=TWO, term=Term(1), commit=LogIndex(3))
        )
    assert caught.value.code is ExitCode.WENT_BACK


def test_unknown_kinds_are_counted_and_dropped() -> None:
    core = Group().lead()
    core.step(Message(99, to=ONE, from_=TWO))  # type: ignore[arg-type]
    assert core.status().messages_unknown == 1
    assert not core.has_ready()


# --- committing -----------------------------------------------------------------------------


def test_entries_of_earlier_terms_are_not_committed_by_counting() -> None:
    """Raft paper, figure 8 (#13)."""
    log = MemoryLog(0, 0)
    log.append([entry(1, 1, b"old")])
    core = RawNode(
        config(), log, random.Random(1), hard_state=HardState(Term(2)), conf_state=voters(3)
    )
    core.campaign()
    for kind in (MessageType.PRE_VOTE_RESP, MessageType.VOTE_RESP):
        core.ready()
        core.advance()
        core.step(Message(kind, to=ONE, from_=TWO, term=Term(3)))
    assert (core.role, core.term) == (Role.LEADER, 3)
    log.append(core.ready().entries)
    core.advance()
    answer = Message(MessageType.APP_RESP, to=ONE, from_=TWO, term=Term(3))
    core.step(answer._replace(index=LogIndex(1)))
    assert core.status().progress[TWO].match == 1
    assert core.commit_index == 0  # although a quorum holds it
    core.step(answer._replace(index=LogIndex(2)))
    assert core.commit_index == 2


def test_a_change_that_was_dropped_is_not_waited_for() -> None:
    """Else the barrier of 5.5 a would keep every later proposal out, for good."""
    group = Group(max_uncommitted_bytes=100)
    leader = group.lead(ONE)
    leader.propose([b"x" * 99])
    with pytest.raises(ProposalDropped):
        leader.propose_conf_change(remove(THREE))
    group.settle()
    assert not leader.conf_change_unapplied
    leader.propose_conf_change(remove(THREE))
    group.settle()
    assert leader.raft.conf.voters == (ONE, TWO)


# --- counters return to zero (I22) --------------------------------------------------------


def test_uncommitted_bytes_return_to_zero_over_changes_of_leader() -> None:
    group = Group(max_uncommitted_bytes=100)
    group.lead(ONE)
    group.cores[ONE].propose([b"x" * 60])
    with pytest.raises(ProposalDropped):
        group.cores[ONE].propose([b"x" * 60])
    group.cut = {TWO, THREE}
    group.settle()
    assert group.cores[ONE].status().uncommitted_bytes == 60
    group.cut = set()
    group.cores[ONE].step_down()
    leader = group.lead(ONE)  # the entry of the old term commits with the new one's
    assert leader.status().uncommitted_bytes == 0
    leader.propose([b"x" * 99])
    group.settle()
    assert leader.status().uncommitted_bytes == 0
    assert leader.raft.log.applying_bytes() == 0
    assert all(len(p.inflights) == 0 for p in leader.raft.progress.values())
    assert [e.data for e in group.applied[TWO] if e.data] == [b"x" * 60, b"x" * 99]


# --- commits that the shell tells ---------------------------------------------------------


def appends(messages: list[Message]) -> list[tuple[int, int, int]]:
    """(to, entries, commit) of each append."""
    return [(m.to, len(m.entries), m.commit) for m in messages if m.type is MessageType.APP]


def untold(core: RawNode) -> bool:
    """A call, because it changes between two looks."""
    return core.commit_untold


def test_a_commit_waits_for_entries_or_for_the_shell() -> None:
    group = Group(tell_commits=False)
    leader = group.lead()
    first = leader.commit_index
    assert untold(leader)
    leader.propose([b"x"])
    group.settle()
    assert appends(group.sent) == [(TWO, 1, first), (THREE, 1, first)]
    assert group.cores[TWO].commit_index == first
    assert leader.tell_commit(first + 1)
    assert not untold(leader)
    group.settle()
    assert appends(group.sent)[2:] == [(TWO, 0, first + 1), (THREE, 0, first + 1)]
    assert [e.data for e in group.applied[TWO] if e.data] == [b"x"]
    assert not leader.tell_commit(first + 1)


def test_one_follower_can_be_told_alone() -> None:
    group = Group(tell_commits=False)
    leader = group.lead()
    assert leader.tell_commit(leader.commit_index, to=THREE)
    assert untold(leader)  # the other one still waits
    group.settle()
    assert appends(group.sent) == [(THREE, 0, leader.commit_index)]


def test_news_of_a_former_leader_is_not_told() -> None:
    group = Group(tell_commits=False)
    leader = group.lead()
    leader.step_down()
    assert not untold(leader)
    assert not leader.tell_commit(leader.commit_index)
    group.settle()
    assert appends(group.sent) == []


def test_a_member_alone_has_nobody_to_tell() -> None:
    group = Group(1, tell_commits=False)
    leader = group.lead()
    leader.propose([b"x"])
    group.settle()
    assert not untold(leader)


# --- reads --------------------------------------------------------------------------------


def test_reads_are_bounded_and_forgotten_with_the_leadership() -> None:
    group = Group(pending_reads=3)
    leader = group.lead()
    group.cut = {TWO, THREE}
    for number in range(3):
        leader.read_index(b"%d" % number)
    with pytest.raises(ReadDropped):
        leader.read_index(b"3")
    assert leader.status().reads_waiting == 3
    leader.step_down()
    assert leader.status().reads_waiting == 0
    group.cut = set()
    group.settle()
    assert group.reads == []


def test_reads_of_one_round_are_answered_in_order() -> None:
    group = Group()
    leader = group.lead()
    for number in range(5):
        leader.read_index(b"%d" % number)
    group.settle()
    assert [read.context for read in group.reads] == [b"0", b"1", b"2", b"3", b"4"]
    rounds = sum(m.type is MessageType.HEARTBEAT for m in group.sent) // 2
    assert rounds == 2  # the first read's, and one for all others


def test_a_joint_configuration_needs_both_halves() -> None:
    group = Group(4)
    leader = group.lead()
    change = ConfChange(
        (
            ConfChangeSingle(ConfChangeType.REMOVE_NODE, THREE),
            ConfChangeSingle(ConfChangeType.REMOVE_NODE, NodeId(4)),
        ),
        transition=2,  # type: ignore[arg-type]
    )
    leader.propose_conf_change(change)
    group.settle()
    assert leader.status().conf_state.voters_outgoing == (1, 2, 3, 4)
    group.cut = {THREE, NodeId(4)}
    leader.read_index(b"r")
    group.settle()
    assert group.reads == []  # half of the outgoing voters is no majority of them
    group.cut = {THREE}
    leader.tick()
    group.settle()
    assert [read.context for read in group.reads] == [b"r"]


# --- membership ---------------------------------------------------------------------------


def test_the_barrier_is_up_until_a_change_is_applied() -> None:
    group = Group()
    leader = group.lead()
    barrier = [leader.conf_change_unapplied]
    leader.propose_conf_change(remove(THREE))
    barrier.append(leader.conf_change_unapplied)
    group.settle()
    barrier.append(leader.conf_change_unapplied)
    assert barrier == [False, True, False]
    assert leader.status().conf_state.voters == (1, 2)


def test_a_removed_leader_steps_down_in_its_term() -> None:
    group = Group()
    leader = group.lead()
    leader.propose_conf_change(remove(ONE))
    group.settle()
    assert (leader.role, leader.term) == (Role.FOLLOWER, 1)
    leader.campaign()
    assert leader.role is Role.FOLLOWER


def test_an_illegal_change_changes_nothing() -> None:
    core = Group(1).lead()
    before = core.status()
    with pytest.raises(ConfChangeInvalid, match="removed all voters"):
        core.apply_conf_change(remove(ONE))
    assert core.status() == before


def test_a_snapshot_is_ignored_while_entries_are_applied() -> None:
    group = Group()
    group.lead()
    follower = group.cores[TWO]
    group.cores[ONE].propose([b"x"])
    for message in group.work(ONE):
        follower.step(message)
    group.work(TWO)
    follower.step(
        Message(MessageType.HEARTBEAT, to=TWO, from_=ONE, term=Term(1), commit=LogIndex(2))
    )
    ready = follower.ready()
    assert [e.data for e in ready.committed_entries] == [b"x"]
    snapshot = Snapshot(LogIndex(50), Term(1), voters(3))
    offer = Message(MessageType.SNAP, to=TWO, from_=ONE, term=Term(1), snapshot=snapshot)
    follower.step(offer)
    assert follower.last_index == 2
    follower.advance()
    follower.step(offer)
    assert follower.last_index == 50


# --- storage answers ----------------------------------------------------------------------


def test_a_late_storage_answer_does_not_make_overwritten_entries_stable() -> None:
    core = RawNode(
        config(async_storage_writes=True), MemoryLog(), random.Random(1), conf_state=voters(3)
    )
    head = Message(MessageType.APP, to=ONE, from_=TWO, term=Term(1))
    core.step(head._replace(entries=(entry(1, 1, b"old"),)))
    late = next(m for m in core.ready().messages if m.to == APPEND_THREAD).responses
    core.step(head._replace(from_=THREE, term=Term(2), entries=(entry(2, 1, b"new"),)))
    for answer in late:
        if answer.to == ONE:
            core.step(answer)
    assert [e.data for e in core.raft.log.unstable.entries] == [b"new"]


# --- a leader that stands still -------------------------------------------------------------------


def test_a_leader_is_silent_after_an_election_timeout() -> None:
    group = Group()
    leader, follower = group.lead(ONE), group.cores[TWO]
    follower.raft.randomized_timeout = 2 * follower.raft.config.election_ticks
    for _ in range(follower.raft.config.election_ticks):
        assert not follower.leader_silent
        follower.tick()
        leader.tick()
    assert follower.leader_silent
    assert not leader.leader_silent
    group.settle()  # heartbeats
    assert not follower.leader_silent
    for _ in range(2 * follower.raft.config.election_ticks):
        follower.tick()
    assert not follower.leader_silent, "it has no leader any more"
