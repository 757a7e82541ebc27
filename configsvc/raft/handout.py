"""What the next ``Ready`` holds, and what its completion tells the core.

Owns what was handed out before: soft and hard state are told when they changed. Each entry and
message is handed out once. Not here: the order of carrying it out (``raft.plan``).
"""

from __future__ import annotations

from configsvc.errors import ensure
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    Entry,
    HardState,
    Message,
    MessageType,
    Ready,
    Snapshot,
    applied_message,
    stored_message,
)
from configsvc.raft.state import Raft
from configsvc.types import NodeId

_NO_HARD_STATE = HardState()
_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


class Handout:
    """The output side of one core."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._asynchronous = raft.config.async_storage_writes
        self._soft = raft.soft_state()
        self._hard = raft.hard_state()
        self._on_advance: list[Message] = []
        self._advance_due = False

    def waits(self) -> bool:
        """Whether there is anything to hand out."""
        raft = self._raft
        log = raft.log
        return bool(
            raft.outbox
            or raft.outbox_after_append
            or raft.read_states
            or log.unstable.in_progress <= log.last_index
            or log.has_next_committed(allow_unstable=not self._asynchronous)
            or log.unstable.next_snapshot() is not None
            or raft.lead != self._soft.lead
            or raft.role is not self._soft.role
            or self._hard_state_changed()
        )

    def take(self) -> Ready:
        """Hand out everything that waits."""
        ensure(not self._advance_due, "a Ready must be advanced before the next one")
        raft = self._raft
        log, unstable = raft.log, raft.log.unstable
        soft = None
        if raft.lead != self._soft.lead or raft.role is not self._soft.role:
            soft = self._soft = raft.soft_state()
        hard = raft.hard_state() if self._hard_state_changed() else None
        entries = unstable.next_entries()
        snapshot = unstable.next_snapshot()
        committed = log.next_committed(allow_unstable=not self._asynchronous)
        must_sync = bool(entries) or raft.term != self._hard.term or raft.vote != self._hard.vote
        stored = self._stored(snapshot)
        applied = self._applied(committed)
        if self._asynchronous:
            messages = self._asynchronous_messages(
                entries, hard, snapshot, committed, stored, applied
            )
        else:
            messages = self._synchronous_messages(stored, applied)
        reads = tuple(raft.read_states)
        ready = _new(
            Ready, (soft, hard, reads, entries, snapshot, committed, tuple(messages), must_sync)
        )
        self._hard = hard or self._hard
        raft.outbox, raft.outbox_after_append, raft.read_states = [], [], []
        unstable.accept()
        if committed:
            log.accept_applying(committed, allow_unstable=not self._asynchronous)
        return ready

    def acknowledgements(self) -> list[Message]:
        """What the completion of the last ``Ready`` tells the core, fixed when it was taken."""
        ensure(self._advance_due, "advance without a Ready")
        self._advance_due = False
        steps, self._on_advance = self._on_advance, []
        return steps

    def _hard_state_changed(self) -> bool:
        """Whether it differs from the one told last; all zero is never told."""
        raft = self._raft
        term, vote, commit = self._hard
        if raft.log.committed == commit and raft.term == term and raft.vote == vote:
            return False
        return raft.hard_state() != _NO_HARD_STATE

    def _stored(self, snapshot: Snapshot | None) -> Message | None:
        """Answer to the write: the log is stable up to its present end, the snapshot installed.

        The end counts and not what this Ready writes: earlier writes are done by then too.
        """
        log = self._raft.log
        unstable = bool(log.unstable.entries)
        if not unstable and snapshot is None:
            return None
        return stored_message(
            self._raft.id,
            self._raft.term,
            log.last_term() if unstable else 0,
            log.last_index if unstable else 0,
            snapshot,
        )

    def _applied(self, committed: tuple[Entry, ...]) -> Message | None:
        if not committed:
            return None
        return applied_message(self._raft.id, committed)

    def _synchronous_messages(
        self, stored: Message | None, applied: Message | None
    ) -> list[Message]:
        own = self._raft.id
        messages = self._raft.outbox
        for message in self._raft.outbox_after_append:
            (self._on_advance if message.to == own else messages).append(message)
        if stored is not None:
            self._on_advance.append(stored)
        if applied is not None:
            self._on_advance.append(applied)
        self._advance_due = True
        return messages

    def _asynchronous_messages(
        self,
        entries: tuple[Entry, ...],
        hard: HardState | None,
        snapshot: Snapshot | None,
        committed: tuple[Entry, ...],
        stored: Message | None,
        applied: Message | None,
    ) -> list[Message]:
        own = self._raft.id
        messages = self._raft.outbox
        after = self._raft.outbox_after_append
        if entries or hard is not None or snapshot is not None or after:
            written = hard or _NO_HARD_STATE
            messages.append(
                Message(
                    MessageType.STORAGE_APPEND,
                    to=APPEND_THREAD,
                    from_=own,
                    term=written.term,
                    entries=entries,
                    commit=written.commit,
                    vote=NodeId(written.vote),
                    snapshot=snapshot,
                    responses=(*after, stored) if stored is not None else tuple(after),
                )
            )
        if applied is not None:
            messages.append(
                Message(
                    MessageType.STORAGE_APPLY,
                    to=APPLY_THREAD,
                    from_=own,
                    entries=committed,
                    responses=(applied,),
                )
            )
        return messages
