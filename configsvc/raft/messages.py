"""The vocabulary of the consensus core: entries, messages, states. Values only, no rules.

Names and meanings are those of the Raft paper and of etcd/raft. The fields of ``Message`` that a
type does not use are zero or empty. Entry payloads are opaque bytes and travel unchanged from the
proposal to the log and to every peer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from configsvc.types import LogIndex, NodeId, Term


class EntryKind(IntEnum):
    """What an entry's payload is; an unknown kind stops the member (reliability.md V1)."""

    NORMAL = 0
    CONF_CHANGE = 1  # one operation, the old form
    CONF_CHANGE_V2 = 2  # any number of operations, possibly joint


class Entry(NamedTuple):
    term: Term
    index: LogIndex  # type: ignore[assignment]
    kind: int  # an EntryKind
    data: bytes


class MessageType(IntEnum):
    """Numbers travel on the peer link and never change."""

    HUP = 0
    BEAT = 1
    PROP = 2
    APP = 3
    APP_RESP = 4
    VOTE = 5
    VOTE_RESP = 6
    SNAP = 7
    HEARTBEAT = 8
    HEARTBEAT_RESP = 9
    UNREACHABLE = 10
    SNAP_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESP = 16
    PRE_VOTE = 17
    PRE_VOTE_RESP = 18
    STORAGE_APPEND = 19
    STORAGE_APPEND_RESP = 20
    STORAGE_APPLY = 21
    STORAGE_APPLY_RESP = 22
    FORGET_LEADER = 23


APPEND_THREAD = NodeId(2**64 - 1)  # address of local storage, asynchronous storage writes
APPLY_THREAD = NodeId(2**64 - 2)  # address of the local state machine, likewise


class HardState(NamedTuple):
    """What must be durable before anything that depends on it leaves the member."""

    term: Term = Term(0)
    vote: NodeId = NodeId(0)
    commit: LogIndex = LogIndex(0)  # a hint on disk: never the cause of a sync


class ConfState(NamedTuple):
    """A configuration, as stored with the applied index. Ids ascend."""

    voters: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()  # not empty while the configuration is joint
    learners: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()  # outgoing voters that become learners
    auto_leave: bool = False


class Snapshot(NamedTuple):
    """State as of ``index``; ``data`` names what to fetch, the bytes travel as an install."""

    index: LogIndex = LogIndex(0)  # type: ignore[assignment]  # 0: no snapshot
    term: Term = Term(0)
    conf_state: ConfState = ConfState()
    data: bytes = b""


class Message(NamedTuple):
    type: MessageType
    to: NodeId = NodeId(0)
    from_: NodeId = NodeId(0)
    term: Term = Term(0)  # 0: local message
    log_term: Term = Term(0)
    index: LogIndex = LogIndex(0)  # type: ignore[assignment]
    entries: tuple[Entry, ...] = ()
    commit: LogIndex = LogIndex(0)
    vote: NodeId = NodeId(0)
    reject: bool = False
    reject_hint: LogIndex = LogIndex(0)
    snapshot: Snapshot | None = None
    context: bytes = b""  # read-index context or the campaign-transfer mark
    read_round: int = 0  # leader's read round, on heartbeats and their answers (R2)
    responses: tuple[Message, ...] = ()  # asynchronous storage writes only


_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


def append_message(
    to: NodeId,
    from_: NodeId,
    term: int,
    log_term: int,
    index: int,
    entries: tuple[Entry, ...],
    commit: int,
) -> Message:
    """An append, made at a third of the constructor's price."""
    return _new(
        Message,
        (
            MessageType.APP,
            to,
            from_,
            term,
            log_term,
            index,
            entries,
            commit,
            0,
            False,
            0,
            None,
            b"",
            0,
            (),
        ),
    )


def append_answer(to: NodeId, from_: NodeId, term: int, index: int) -> Message:
    """The answer to an append that fits, likewise."""
    return _new(
        Message,
        (
            MessageType.APP_RESP,
            to,
            from_,
            term,
            0,
            index,
            (),
            0,
            0,
            False,
            0,
            None,
            b"",
            0,
            (),
        ),
    )


def stored_message(
    to: NodeId, term: int, log_term: int, index: int, snapshot: Snapshot | None
) -> Message:
    """What the log's storage answers, likewise."""
    return _new(
        Message,
        (
            MessageType.STORAGE_APPEND_RESP,
            to,
            APPEND_THREAD,
            term,
            log_term,
            index,
            (),
            0,
            0,
            False,
            0,
            snapshot,
            b"",
            0,
            (),
        ),
    )


def applied_message(to: NodeId, entries: tuple[Entry, ...]) -> Message:
    """What the state machine answers, likewise."""
    return _new(
        Message,
        (
            MessageType.STORAGE_APPLY_RESP,
            to,
            APPLY_THREAD,
            0,
            0,
            0,
            entries,
            0,
            0,
            False,
            0,
            None,
            b"",
            0,
            (),
        ),
    )


class Role(IntEnum):
    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class SoftState(NamedTuple):
    """Volatile: worth telling the shell, not worth a write."""

    lead: NodeId  # 0: none known
    role: Role


class ReadState(NamedTuple):
    """The read with ``context`` may be answered once ``index`` is applied."""

    index: LogIndex  # type: ignore[assignment]
    context: bytes


class ConfChangeType(IntEnum):
    ADD_NODE = 0
    REMOVE_NODE = 1
    UPDATE_NODE = 2
    ADD_LEARNER = 3


class ConfChangeTransition(IntEnum):
    AUTO = 0  # simple when one voter changes, else joint with auto-leave
    JOINT_IMPLICIT = 1  # joint, left automatically
    JOINT_EXPLICIT = 2  # joint until told otherwise


class ConfChangeSingle(NamedTuple):
    type: ConfChangeType
    node_id: NodeId


class ConfChange(NamedTuple):
    """A membership change. No operations and AUTO: leave the joint configuration.

    ``v1`` is the old entry kind: exactly one operation. ``context`` is opaque to the core; the
    product puts the encoded ``Command`` of the membership operation there.
    """

    changes: tuple[ConfChangeSingle, ...] = ()
    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    context: bytes = b""
    v1: bool = False


class Ready(NamedTuple):
    """Work the core asks for. The order of carrying it out is ``raft.plan``'s."""

    soft_state: SoftState | None  # changed since the last Ready
    hard_state: HardState | None  # changed since the last Ready and not all zero
    read_states: tuple[ReadState, ...]
    entries: tuple[Entry, ...]  # to be made durable
    snapshot: Snapshot | None  # to be installed
    committed_entries: tuple[Entry, ...]  # to be applied
    messages: tuple[Message, ...]  # first outbox, then what waits for the write (see raft.plan)
    must_sync: bool
