"""One message in: settle the term, then hand it to the module that knows its kind.

Rules about terms that hold for all kinds are here, and who may send what. Rules about one kind
are where its handler is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from configsvc.raft import clock, election, proposing, reads, replication, transfer
from configsvc.raft.errors import LocalMessage, PeerNotFound
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from configsvc.raft.roles import become_follower, set_lead
from configsvc.raft.state import NOBODY, Raft

_M = MessageType
_STORAGE = (_M.STORAGE_APPEND, _M.STORAGE_APPEND_RESP, _M.STORAGE_APPLY, _M.STORAGE_APPLY_RESP)
_LOCAL: Final = frozenset(
    {_M.HUP, _M.BEAT, _M.UNREACHABLE, _M.SNAP_STATUS, _M.CHECK_QUORUM, *_STORAGE}
)
_ANSWERS: Final = frozenset(
    {_M.APP_RESP, _M.VOTE_RESP, _M.PRE_VOTE_RESP, _M.HEARTBEAT_RESP, _M.READ_INDEX_RESP}
)
_FROM_LEADER: Final = frozenset({_M.APP, _M.HEARTBEAT, _M.SNAP})
_REQUESTS_OF_VOTE: Final = frozenset({_M.VOTE, _M.PRE_VOTE})

Handler = Callable[[Raft, Message], None]


def step(raft: Raft, message: Message) -> None:
    """Take a message from a peer or a storage thread.

    Raises:
        LocalMessage: only the member itself may send this kind.
        PeerNotFound: an answer from somebody without progress here.
        ProposalDropped, ReadDropped: see ``proposing`` and ``reads``.
        DecodeError: fields that no honest peer sends.
        FatalError: see ``replication.take_heartbeat``.
    """
    kind = message.type
    from_thread = message.from_ in (APPEND_THREAD, APPLY_THREAD)
    if kind in _LOCAL and not from_thread:
        raise LocalMessage
    if kind in _ANSWERS and not from_thread and message.from_ not in raft.progress:
        raise PeerNotFound
    handle(raft, message)


def handle(raft: Raft, message: Message) -> None:
    """As ``step``, for messages that need not be checked for their origin."""
    if message.term != raft.term and message.term and not _settle_term(raft, message):
        return
    handler = _HANDLERS[raft.role].get(message.type)
    if handler is not None:
        handler(raft, message)
    elif message.type not in _KNOWN:
        raft.messages_unknown += 1  # of a later version (C11)


def _settle_term(raft: Raft, message: Message) -> bool:
    """Compare terms, 0 left out; whether the message is to be processed."""
    if message.term < raft.term:
        _answer_lower_term(raft, message)
        return False
    kind = message.type
    if kind in _REQUESTS_OF_VOTE:
        if message.context != election.TRANSFER_MARK and election.in_lease(raft):
            return False
        if kind is _M.PRE_VOTE:
            return True  # asks about a term that need not come
    if kind is _M.PRE_VOTE_RESP and not message.reject:
        return True  # of the term that was asked about
    become_follower(raft, message.term, message.from_ if kind in _FROM_LEADER else NOBODY)
    return True


def _answer_lower_term(raft: Raft, message: Message) -> None:
    kind = message.type
    config = raft.config
    if kind in (_M.APP, _M.HEARTBEAT):
        if config.check_quorum or config.pre_vote:
            # This member may be stuck in a higher term that it cannot win: an answer makes the
            # leader catch up with it. Without these options a vote request would do so.
            raft.send(Message(_M.APP_RESP, to=message.from_))
    elif kind is _M.PRE_VOTE:
        # Else a member with a longer log but a lower term could wait for ever (#28).
        raft.send(Message(_M.PRE_VOTE_RESP, to=message.from_, term=raft.term, reject=True))
    elif kind is _M.STORAGE_APPEND_RESP and message.snapshot is not None:
        # Entries of a lower term may have been overwritten since; a snapshot cannot have been.
        _installed(raft, message.snapshot)


# --- storage ----------------------------------------------------------------------------


def _on_stored(raft: Raft, message: Message) -> None:
    if message.index:
        raft.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _installed(raft, message.snapshot)


def _installed(raft: Raft, snapshot: Snapshot) -> None:
    raft.log.unstable.stable_snapshot_to(snapshot.index)
    raft.log.applied_to(snapshot.index, 0)
    proposing.leave_if_due(raft)


def _on_applied(raft: Raft, message: Message) -> None:
    if message.entries:
        proposing.on_applied(raft, message.entries)


# --- by role ----------------------------------------------------------------------------


def _follow(take: Handler) -> Handler:
    """A leader of this term speaks to a follower: it is alive."""

    def handler(raft: Raft, message: Message) -> None:
        raft.election_elapsed = 0
        set_lead(raft, message.from_)
        take(raft, message)

    return handler


def _yield_to(take: Handler) -> Handler:
    """A leader of this term speaks to a candidate: the election is over."""

    def handler(raft: Raft, message: Message) -> None:
        become_follower(raft, raft.term, message.from_)
        take(raft, message)

    return handler


_COMMON: Final[dict[MessageType, Handler]] = {
    _M.HUP: lambda raft, _: election.start(raft),
    _M.VOTE: election.on_vote_request,
    _M.PRE_VOTE: election.on_vote_request,
    _M.STORAGE_APPEND_RESP: _on_stored,
    _M.STORAGE_APPLY_RESP: _on_applied,
}
_FOLLOWER: Final[dict[MessageType, Handler]] = {
    **_COMMON,
    _M.PROP: proposing.on_follower,
    _M.APP: _follow(replication.take_append),
    _M.HEARTBEAT: _follow(replication.take_heartbeat),
    _M.SNAP: _follow(replication.take_snapshot),
    _M.TRANSFER_LEADER: transfer.on_follower,
    _M.TIMEOUT_NOW: transfer.on_timeout_now,
    _M.READ_INDEX: reads.on_follower,
    _M.READ_INDEX_RESP: reads.on_response,
}
_CANDIDATE: Final[dict[MessageType, Handler]] = {
    **_COMMON,
    _M.PROP: proposing.on_candidate,
    _M.APP: _yield_to(replication.take_append),
    _M.HEARTBEAT: _yield_to(replication.take_heartbeat),
    _M.SNAP: _yield_to(replication.take_snapshot),
    _M.VOTE_RESP: election.on_vote_response,
    _M.PRE_VOTE_RESP: election.on_vote_response,
}
_LEADER: Final[dict[MessageType, Handler]] = {
    **_COMMON,
    _M.BEAT: lambda raft, _: clock.beat(raft),
    _M.CHECK_QUORUM: lambda raft, _: election.check_quorum(raft),
    _M.PROP: proposing.on_forwarded,
    _M.APP_RESP: replication.on_append_response,
    _M.HEARTBEAT_RESP: replication.on_heartbeat_response,
    _M.SNAP_STATUS: replication.on_snapshot_status,
    _M.UNREACHABLE: replication.on_unreachable,
    _M.TRANSFER_LEADER: transfer.on_leader,
    _M.READ_INDEX: reads.on_leader,
}
_HANDLERS: Final = {
    Role.FOLLOWER: _FOLLOWER,
    Role.PRE_CANDIDATE: _CANDIDATE,
    Role.CANDIDATE: _CANDIDATE,
    Role.LEADER: _LEADER,
}
_KNOWN: Final = frozenset(MessageType)
