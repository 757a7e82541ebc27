"""What a follower says it has is what was compared with its leader's log (#14).

A false word is harmless in nearly every run: hints name the last common entry exactly, so the
next append meets the conflict and cuts it off. No order of messages that the simulator finds makes
a commit of it; here the core is asked directly.
"""

from __future__ import annotations

import random

import pytest
from raft_fakes import ONE, TWO, config, entry, voters

from configsvc.raft.messages import Entry, Message, MessageType
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, Term


def longer_follower() -> RawNode:
    """Entries 1 and 2 are the leader's, 3 and 4 of a leader of term 2 that nobody else heard."""
    log = MemoryLog(0, 0)
    log.append([entry(1, 1), entry(1, 2), entry(2, 3), entry(2, 4)])
    return RawNode(config(), log, random.Random(1), conf_state=voters(3))


@pytest.mark.parametrize(
    ("entries", "acknowledged"),
    [((), 1), ((entry(1, 2),), 2), ((entry(1, 2), entry(3, 3)), 3)],
    ids=["nothing new", "what it has", "what it has and a conflict"],
)
def test_a_follower_acknowledges_what_was_compared(
    entries: tuple[Entry, ...], acknowledged: int
) -> None:
    core = longer_follower()
    append = Message(MessageType.APP, to=ONE, from_=TWO, term=Term(3))
    core.step(append._replace(index=LogIndex(1), log_term=Term(1), entries=entries))
    answers = [m for m in core.ready().messages if m.type is MessageType.APP_RESP]
    assert [(m.index, m.reject) for m in answers] == [(acknowledged, False)]


def test_a_heartbeat_commits_only_what_an_append_of_this_start_has_verified() -> None:
    """A directory of yesterday may hold entries that were replaced since, below what the leader
    was told before: a commit index alone would make them outcomes (#48).
    """
    core = longer_follower()
    heartbeat = Message(MessageType.HEARTBEAT, to=ONE, from_=TWO, term=Term(3), commit=LogIndex(3))
    core.step(heartbeat)
    assert core.commit_index == 0
    append = Message(MessageType.APP, to=ONE, from_=TWO, term=Term(3))
    core.step(append._replace(index=LogIndex(1), log_term=Term(1), entries=(entry(1, 2),)))
    core.step(heartbeat)
    assert core.commit_index == 2
    core.step(append._replace(index=LogIndex(2), log_term=Term(1), entries=(entry(3, 3),)))
    core.step(heartbeat)
    assert core.commit_index == 3
    core.step(heartbeat._replace(term=Term(4)))
    assert core.commit_index == 3
