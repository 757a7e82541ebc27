"""Linearizable reads without writing to the log (read index), and the lease-based shortcut.

A read may be answered once the member that serves it has applied the commit index that the leader
had when the read arrived, provided the leader still was one at that time. ``raft.readqueue`` has
the arithmetic of proving that.

R1: one round is under way; reads that arrive meanwhile share the next, which begins when the
first is confirmed or a heartbeat interval has passed. #34: no read before an entry of the
leader's term is committed. #38: no lease reads while leadership is being handed over.
"""

from __future__ import annotations

from configsvc.raft.errors import ReadDropped
from configsvc.raft.messages import Message, MessageType, ReadState, Role
from configsvc.raft.sending import broadcast_heartbeat
from configsvc.raft.state import NOBODY, Raft
from configsvc.types import LogIndex, NodeId


def request(raft: Raft, context: bytes) -> None:
    """A read of this member's own shell.

    Raises:
        ReadDropped: no leader is known, or too many reads wait.
    """
    if raft.role is Role.LEADER:
        on_leader(raft, Message(MessageType.READ_INDEX, context=context))
    elif raft.lead == NOBODY:
        raise ReadDropped
    else:
        raft.send(Message(MessageType.READ_INDEX, to=raft.lead, context=context))


def on_leader(raft: Raft, message: Message) -> None:
    """Queue a read, the member's own or one that a follower forwarded.

    Raises:
        ReadDropped: too many reads wait.
    """
    if raft.reads.full:
        raise ReadDropped
    if raft.committed_in_term():
        _admit(raft, message.from_, message.context)
    else:
        raft.reads.unproven.append((message.from_, message.context))


def on_follower(raft: Raft, message: Message) -> None:
    """Pass a read on to the leader; a read of another follower that asked the wrong member."""
    if raft.lead not in (NOBODY, message.from_):
        raft.send(message._replace(to=raft.lead))


def on_response(raft: Raft, message: Message) -> None:
    """The leader's answer to a forwarded read; one of a former leader is dropped (R4)."""
    if message.from_ == raft.lead:
        raft.read_states.append(ReadState(message.index, message.context))


def on_commit(raft: Raft) -> None:
    """The leader's commit index moved: reads that waited for the first of the term go on."""
    if raft.reads.unproven and raft.committed_in_term():
        unproven, raft.reads.unproven = raft.reads.unproven, []
        for from_, context in unproven:
            _admit(raft, from_, context)


def on_acknowledgement(raft: Raft, from_: NodeId, round_: int) -> None:
    """A heartbeat answer of ``from_`` names ``round_``, which it has seen; 0: none."""
    if raft.reads.waiting and round_:
        raft.reads.acknowledge(from_, round_)
        answer_confirmed(raft)


def on_beat(raft: Raft) -> None:
    """Heartbeats are about to go out: reads that wait for the next round go with them."""
    if raft.reads.next_round_waits():
        raft.reads.begin()


def answer_confirmed(raft: Raft) -> None:
    """Answer every read that a quorum confirms now, and begin the next round if one waits.

    Also called when the configuration changes, because the quorum does.
    """
    while True:
        for read in raft.reads.take_confirmed(raft.conf, raft.id):
            _answer(raft, read.from_, read.commit_index, read.context)
        # A read of the round under way may still be unconfirmed; the next round then waits.
        if not raft.reads.waiting or raft.reads.waiting[0].round <= raft.reads.begun:
            return
        raft.reads.begin()
        broadcast_heartbeat(raft)


def _admit(raft: Raft, from_: NodeId, context: bytes) -> None:
    if raft.config.read_only == "lease-based" and raft.transferee == NOBODY:
        _answer(raft, from_, raft.log.committed, context)
    elif raft.reads.add(raft.log.committed, from_, context):
        # The queue was empty: begins the round, and a single voter confirms it at once.
        answer_confirmed(raft)


def _answer(raft: Raft, from_: NodeId, index: int, context: bytes) -> None:
    if from_ in (NOBODY, raft.id):
        raft.read_states.append(ReadState(LogIndex(index), context))
    else:
        raft.send(
            Message(MessageType.READ_INDEX_RESP, to=from_, index=LogIndex(index), context=context)
        )
