"""The order in which a Ready is carried out (C4, C5, C6)."""

from __future__ import annotations

from typing import Any

import pytest
from raft_fakes import entry

from configsvc.errors import InvariantViolationError
from configsvc.raft.messages import HardState, Message, MessageType, Ready, Snapshot
from configsvc.raft.plan import Write, plan
from configsvc.types import LogIndex, NodeId, Term

BEFORE = HardState(Term(2), NodeId(1), LogIndex(5))
EARLY = {
    MessageType.APP,
    MessageType.HEARTBEAT,
    MessageType.HEARTBEAT_RESP,
    MessageType.SNAP,
    MessageType.TIMEOUT_NOW,
    MessageType.TRANSFER_LEADER,
    MessageType.READ_INDEX,
    MessageType.READ_INDEX_RESP,
}


def ready(**changes: Any) -> Ready:
    empty = Ready(None, None, (), (), None, (), (), False)
    return empty._replace(**changes)


@pytest.mark.parametrize("kind", MessageType)
def test_only_the_allow_list_leaves_before_the_write(kind: MessageType) -> None:
    message = Message(kind, to=NodeId(2))
    work = ready(messages=(message,), entries=(entry(2, 6),), must_sync=True)
    made = plan(work, 5, BEFORE)
    assert made.send_early == ((message,) if kind in EARLY else ())
    assert made.send_late == (() if kind in EARLY else (message,))


@pytest.mark.parametrize("hard", [BEFORE._replace(term=Term(3)), BEFORE._replace(vote=NodeId(3))])
def test_nothing_leaves_early_with_a_new_term_or_vote(hard: HardState) -> None:
    messages = tuple(Message(kind, to=NodeId(2)) for kind in MessageType)
    made = plan(ready(hard_state=hard, messages=messages, must_sync=True), 5, BEFORE)
    assert (made.send_early, made.send_late) == ((), messages)
    assert made.write == Write(hard, (), None)


def test_a_commit_index_alone_is_not_written() -> None:
    work = ready(hard_state=BEFORE._replace(commit=LogIndex(6)))
    assert plan(work, 6, BEFORE).write is None


def test_a_write_carries_the_whole_hard_state() -> None:
    work = ready(entries=(entry(2, 6),), must_sync=True)
    assert plan(work, 5, BEFORE).write == Write(BEFORE, work.entries, None)


def test_an_install_is_written_even_without_must_sync() -> None:
    snapshot = Snapshot(LogIndex(9), Term(2))
    hard = BEFORE._replace(commit=LogIndex(9))
    made = plan(ready(snapshot=snapshot, hard_state=hard), 5, BEFORE)
    assert made.write == Write(hard, (), snapshot)


@pytest.mark.parametrize(("durable", "now"), [(3, 0), (5, 0), (6, 1), (7, 2), (8, 3), (99, 3)])
def test_only_what_is_durable_is_applied_before_the_write(durable: int, now: int) -> None:
    committed = (entry(2, 6), entry(2, 7), entry(2, 8))
    made = plan(ready(committed_entries=committed), durable, BEFORE)
    assert (made.apply_now, made.apply_after) == (committed[:now], committed[now:])


def test_an_entry_that_replaces_a_durable_one_is_not_durable_yet() -> None:
    new = (entry(3, 6), entry(3, 7))
    work = ready(entries=new, committed_entries=new[:1], must_sync=True)
    made = plan(work, 9, BEFORE)  # 6 to 9 of an older term are on disk
    assert (made.apply_now, made.apply_after) == ((), new[:1])


def test_a_new_vote_that_is_not_to_be_written_is_a_bug() -> None:
    with pytest.raises(InvariantViolationError):
        plan(ready(hard_state=BEFORE._replace(vote=NodeId(3))), 5, BEFORE)
