"""A simulated member: a core, a disk image that survives crashes, and a toy state machine.

The synchronous member does what ``raft.plan`` says and may crash between any two steps. The
asynchronous one queues the core's storage messages and does them later.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from core_sim_checks import Checks

from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.config import RaftConfig
from configsvc.raft.errors import ConfChangeInvalid, RaftError
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    Ready,
    Role,
    Snapshot,
)
from configsvc.raft.node import RawNode
from configsvc.raft.plan import Write, plan, split_messages
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, Term


class Crash(Exception):
    """The member stops here; its disk image stays."""


@dataclass(frozen=True)
class Machine:
    """The state machine: a rolling digest of what was applied, and the configuration."""

    index: int
    term: int
    digest: int
    conf: ConfState


class Member:
    def __init__(
        self, config: RaftConfig, start: Machine, rng: random.Random, checks: Checks
    ) -> None:
        self.id = config.id
        self.config = config
        self.rng = rng
        self.checks = checks
        self.crash_chance = 0.0  # at each point where a crash is legal
        # What survives a crash.
        self.log = MemoryLog(start.index, start.term, snapshot_source=self._snapshot)
        self.saved = start  # the state machine's checkpoint
        # What does not.
        self.machine = start
        self.out: list[Message] = []
        self.inbox: deque[Message] = deque()  # arrives in the middle of the next piece of work
        # Storage appends, with what may leave only after them.
        self.append_work: deque[tuple[Message | None, tuple[Message, ...]]] = deque()
        self.apply_work: deque[Message] = deque()
        self.core = self._start()

    def _start(self) -> RawNode:
        self._hard = self.log.hard
        return RawNode(
            self.config,
            self.log,
            self.rng,
            hard_state=self.log.hard,
            conf_state=self.saved.conf,
            applied=self.saved.index,
        )

    def restart(self) -> None:
        self.machine = self.saved
        self.out.clear()
        self.inbox.clear()
        self.append_work.clear()
        self.apply_work.clear()
        self.core = self._start()
        self.checks.count("restarts")

    def _snapshot(self) -> Snapshot:
        machine = self.machine
        data = machine.digest.to_bytes(8, "big")
        return Snapshot(LogIndex(machine.index), Term(machine.term), machine.conf, data)

    def checkpoint(self) -> None:
        """The history catches up with the state machine."""
        self.saved = self.machine

    def compact(self, keep: int) -> None:
        index = self.saved.index - keep
        if index >= self.log.first_index():
            self.log.compact(index)
            self.checks.count("compactions")

    # --- work -------------------------------------------------------------------------------

    def work(self) -> None:
        """Carry out what the core asks for, until it asks for nothing."""
        while self.core.has_ready():
            was_leader = self.core.role is Role.LEADER
            ready = self.core.ready()
            self._look(ready, was_leader=was_leader)
            if self.config.async_storage_writes:
                self._queue(ready)
            else:
                self._carry_out(ready)
        self.checks.looked_at(self.core)

    def _look(self, ready: Ready, *, was_leader: bool) -> None:
        soft = ready.soft_state
        if soft is not None and soft.role is Role.LEADER:
            self.checks.took_office(self.core)
        for read in ready.read_states:
            self.checks.read_answered(read.context, read.index)
        for entry in ready.committed_entries:
            self.checks.committed_entry(entry)
        if was_leader and self.config.validate_conf_changes:
            self.checks.one_change_at_a_time(self.core)

    def _carry_out(self, ready: Ready) -> None:
        steps = plan(ready, self.log.last_index(), self._hard)
        self._hard = ready.hard_state or self._hard
        self._send(steps.send_early)
        self._apply(steps.apply_now)
        self._meanwhile()
        if steps.write is not None:
            self._write(steps.write)
        self._meanwhile()
        self._send(steps.send_late)
        self._meanwhile()
        self._apply(steps.apply_after)
        self.core.advance()

    def _queue(self, ready: Ready) -> None:
        promises = ready.hard_state is not None and ready.hard_state[:2] != self._hard[:2]
        self._hard = ready.hard_state or self._hard
        network = tuple(m for m in ready.messages if m.to not in (APPEND_THREAD, APPLY_THREAD))
        early, late = split_messages(network, nothing_early=promises)
        append = next((m for m in ready.messages if m.to == APPEND_THREAD), None)
        self._send(early)
        if append is not None or late:
            self.append_work.append((append, late))
        self.apply_work.extend(m for m in ready.messages if m.to == APPLY_THREAD)

    def has_storage_work(self) -> bool:
        return bool(self.append_work or self.apply_work)

    def storage_work(self) -> None:
        """One item of each queue of an asynchronous member."""
        if self.append_work:
            append, late = self.append_work.popleft()
            if append is not None:
                self._append(append)
            self._send(late)
        if self.apply_work:
            message = self.apply_work.popleft()
            self._apply(message.entries)
            self._answer(message)

    def _append(self, message: Message) -> None:
        hard = HardState(message.term, message.vote, message.commit)
        hard = self.log.hard if hard == HardState() else hard
        self._meanwhile()
        self._write(Write(hard, message.entries, message.snapshot))
        self._meanwhile()
        self._answer(message)

    def _answer(self, work: Message) -> None:
        for message in work.responses:
            if message.to == self.id:
                self.core.step(message)
            else:
                self._send((message,))

    def _meanwhile(self) -> None:
        """Between two steps time goes by, messages come in, and the member may stop."""
        if self.rng.random() < 0.05:
            self.core.tick()
        while self.inbox:
            with suppress(RaftError):
                self.core.step(self.inbox.popleft())
        if self.crash_chance and self.rng.random() < self.crash_chance:
            raise Crash

    def _send(self, messages: tuple[Message, ...]) -> None:
        for message in messages:
            self.checks.sent(self.id, message, self.log.hard, self.log.last_index())
        self.out.extend(messages)

    def _write(self, write: Write) -> None:
        self.log.set_hard_state(write.hard_state)
        if write.snapshot is not None:
            self._install(write.snapshot)
        self.checks.wrote(self.log, write.entries)
        self.log.append(write.entries)

    def _install(self, snapshot: Snapshot) -> None:
        self.log.apply_snapshot(snapshot)
        digest = int.from_bytes(snapshot.data, "big")
        self.machine = Machine(snapshot.index, snapshot.term, digest, snapshot.conf_state)
        self.saved = self.machine  # one transaction
        self.checks.applied(snapshot.index, digest, snapshot.conf_state)
        self.checks.count("installs")

    def _apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            machine = self.machine
            assert entry.index == machine.index + 1, "applied with a gap"
            durable = entry.index <= self.log.last_index()
            assert durable, "C5 applied before it is durable"
            assert self.log.term(entry.index) == entry.term, "C5 applied what is not on disk"
            conf = machine.conf
            if entry.kind != EntryKind.NORMAL:
                conf = self._change(entry.data, conf)
            # Not hash(): it differs from process to process.
            digest = (machine.digest * 1_000_003 + entry.term + sum(entry.data)) % 2**61
            self.machine = Machine(entry.index, entry.term, digest, conf)
            self.checks.applied(entry.index, digest, conf)

    def _change(self, data: bytes, conf: ConfState) -> ConfState:
        try:
            conf = self.core.apply_conf_change(decode_conf_change(data))
        except ConfChangeInvalid:
            self.checks.count("refused changes")
            return conf
        self.checks.count("changes")
        return conf
