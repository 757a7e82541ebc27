"""One node of a scenario: a core, its storage, its work queues and its toy state machine."""

from __future__ import annotations

import random
from collections import deque

from scenario_format import indented, message_text, ready_text

from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.config import RaftConfig
from configsvc.raft.errors import SnapshotTemporarilyUnavailable
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    Entry,
    EntryKind,
    HardState,
    Message,
    Snapshot,
)
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog


class ScenarioError(Exception):
    """Misuse of the language; its text is part of the output."""


class ScenarioNode:
    """Carries out Readies and storage work as the scripts prescribe."""

    def __init__(self, config: RaftConfig, start: Snapshot) -> None:
        self.config = config
        self.history = [start]  # a snapshot per applied entry; the last is what peers are sent
        self.storage = MemoryLog(snapshot_source=self._snapshot)
        if start.index:
            self.storage.apply_snapshot(start)
        self.append_work: deque[Message] = deque()
        self.apply_work: deque[Message] = deque()
        self.core = self._new_core(start)

    def _new_core(self, state: Snapshot) -> RawNode:
        return RawNode(
            self.config,
            self.storage,
            random.Random(self.config.id),
            hard_state=self.storage.hard,
            conf_state=state.conf_state,
            applied=state.index,
        )

    def restart(self) -> None:
        """Lose everything but storage and the state machine."""
        self.append_work.clear()
        self.apply_work.clear()
        self.core = self._new_core(max(self.storage.installed(), self.history[-1]))

    def _snapshot(self) -> Snapshot:
        if self.history[-1].index == 0:
            raise SnapshotTemporarilyUnavailable
        return self.history[-1]

    # --- work; each returns its output and puts messages on ``flight`` ------------------------

    def process_ready(self, flight: list[Message]) -> str:
        ready = self.core.ready()
        text = ready_text(ready)
        if not self.config.async_storage_writes:
            self._store(ready.hard_state, ready.entries, ready.snapshot)
            self._apply(ready.committed_entries)
            flight.extend(ready.messages)
            self.core.advance()
            return text
        for message in ready.messages:
            if message.to == APPEND_THREAD:
                self.append_work.append(message)
            elif message.to == APPLY_THREAD:
                self.apply_work.append(message)
            else:
                flight.append(message)
        return text

    def process_append(self, flight: list[Message]) -> str:
        if not self.append_work:
            return "no append work to perform"
        message = self.append_work.popleft()
        hard = HardState(message.term, message.vote, message.commit)
        changed = hard if hard != HardState() else None
        self._store(changed, message.entries, message.snapshot)
        return self._respond(message, flight)

    def process_apply(self, flight: list[Message]) -> str:
        if not self.apply_work:
            return "no apply work to perform"
        message = self.apply_work.popleft()
        self._apply(message.entries)
        return self._respond(message, flight)

    def _respond(self, message: Message, flight: list[Message]) -> str:
        flight.extend(message.responses)
        shown = [message_text(message._replace(responses=()))]
        return "\n".join(
            ["Processing:", *shown, "Responses:", *map(message_text, message.responses)]
        )

    def _store(
        self, hard: HardState | None, entries: tuple[Entry, ...], snapshot: Snapshot | None
    ) -> None:
        if hard is not None:
            self.storage.set_hard_state(hard)
        if snapshot is not None and snapshot.index:
            if entries:
                raise ScenarioError("can't apply snapshot and entries at the same time")
            self.storage.apply_snapshot(snapshot)
        else:
            self.storage.append(entries)

    def _apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            before = self.history[-1]
            conf, data = before.conf_state, entry.data
            if entry.kind != EntryKind.NORMAL:
                change = decode_conf_change(entry.data)
                conf, data = self.core.apply_conf_change(change), change.context
            self.history.append(Snapshot(entry.index, entry.term, conf, before.data + data))


def headed(member: int, what: str, text: str) -> str:
    """``text`` under a heading, as nested output is shown."""
    return f"> {member} {what}\n" + indented(text)
