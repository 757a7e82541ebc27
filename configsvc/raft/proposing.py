"""Proposals: what a leader takes into its log, and what it refuses.

One call is one batch: one append to the log, one message to each peer (C7). Not here: where
entries go from there (``raft.sending``).
"""

from __future__ import annotations

from collections.abc import Sequence

from configsvc.errors import ensure
from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.errors import ProposalDropped
from configsvc.raft.messages import Entry, EntryKind, Message, MessageType, Role
from configsvc.raft.sending import (
    append_entries,
    append_payloads,
    broadcast_append,
    reduce_uncommitted,
)
from configsvc.raft.sizes import retained_bytes
from configsvc.raft.state import NOBODY, Raft
from configsvc.types import LogIndex, Term

_NORMAL = int(EntryKind.NORMAL)
_UNPLACED = (Term(0), LogIndex(0))  # a leader fills in term and index


def propose_payloads(raft: Raft, payloads: Sequence[bytes]) -> None:
    """Propose normal entries, all or none.

    Raises:
        ProposalDropped: no leader is known or it may not take proposals; nothing was appended.
    """
    ensure(payloads, "a proposal of nothing")
    if raft.role is not Role.LEADER:
        entries = tuple(Entry(*_UNPLACED, _NORMAL, payload) for payload in payloads)
        _forward(raft, Message(MessageType.PROP, entries=entries))
        return
    _check_in_office(raft)
    if not append_payloads(raft, payloads):
        raise ProposalDropped
    broadcast_append(raft)


def propose_change(raft: Raft, kind: EntryKind, data: bytes) -> None:
    """Propose one change of the configuration, encoded; see ``propose_payloads``.

    A leader that may not take a change now appends an empty normal entry in its place, as
    etcd/raft does: who waits for the change learns its fate when that entry is applied.
    """
    message = Message(MessageType.PROP, entries=(Entry(*_UNPLACED, kind, data),))
    if raft.role is Role.LEADER:
        on_leader(raft, message)
    else:
        _forward(raft, message)


def on_leader(raft: Raft, message: Message) -> None:
    """A batch with entries of any kind."""
    ensure(message.entries, "a proposal of nothing")
    _check_in_office(raft)
    pending = raft.pending_conf_index
    entries = list(message.entries)
    for position, entry in enumerate(entries):
        if entry.kind == _NORMAL:
            continue
        if _may_change(raft, entry):
            raft.pending_conf_index = raft.log.last_index + position + 1
        else:
            entries[position] = Entry(*_UNPLACED, _NORMAL, b"")
    if not append_entries(raft, entries):
        # A change that was never appended is not waited for: the shell takes no other proposals
        # while one is unapplied, so that the log would never get there (5.5 a).
        raft.pending_conf_index = pending
        raise ProposalDropped
    broadcast_append(raft)


def on_forwarded(raft: Raft, message: Message) -> None:
    """A batch from a follower; refused where followers do not forward, because nobody may then
    put entries into the log past the leader's own shell (C7).
    """
    if not raft.config.forward_proposals:
        raise ProposalDropped
    on_leader(raft, message)


def on_candidate(raft: Raft, message: Message) -> None:
    raise ProposalDropped


def on_follower(raft: Raft, message: Message) -> None:
    _forward(raft, message)


def on_applied(raft: Raft, entries: tuple[Entry, ...]) -> None:
    """The shell has applied ``entries``. A joint configuration may now be left by itself."""
    index = entries[-1].index
    raft.log.applied_to(index, retained_bytes(entries))
    reduce_uncommitted(raft, entries)
    leave_if_due(raft)


def leave_if_due(raft: Raft) -> None:
    """Propose the end of a joint configuration that is left automatically, once."""
    if (
        raft.role is Role.LEADER
        and raft.conf.auto_leave
        and raft.log.applied >= raft.pending_conf_index
    ):
        try:
            propose_change(raft, EntryKind.CONF_CHANGE_V2, b"")
        except ProposalDropped:
            return  # handing over: whoever leads next proposes it


def _check_in_office(raft: Raft) -> None:
    if raft.id not in raft.progress or raft.transferee != NOBODY:
        raise ProposalDropped


def _may_change(raft: Raft, entry: Entry) -> bool:
    """One unapplied change at a time, and none before earlier terms are applied (#41)."""
    leaves = not decode_conf_change(entry.data).changes
    if not raft.config.validate_conf_changes:
        return True
    joint = bool(raft.conf.voters_outgoing)
    return raft.pending_conf_index <= raft.log.applied and joint == leaves


def _forward(raft: Raft, message: Message) -> None:
    forwards = raft.role is Role.FOLLOWER and raft.config.forward_proposals
    if not forwards or raft.lead == NOBODY:
        raise ProposalDropped
    raft.send(message._replace(to=raft.lead))
