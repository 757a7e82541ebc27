"""Committed entries on their way through apply, in the order of the log.

An entry that changes very many keys is applied in pieces, one per pass: heartbeats, the log and
other connections get their turn in between. Entries behind it wait here, and so do all while the
history lags (``held``): the core goes on handing out what to write and to send, for a leader that
fell silent because its SQL is slow would lose its office.

Always true:
  * Effects are told in the order of the log; those of one run of entries in one call.
  * A configuration takes effect in its place: while one waits, the core is not told that its
    ``Ready`` is done (``holds_configuration``).
  * What waits is applied at most ``READY_ENTRIES_MAX`` at a time, when the history has room.

Not here: when it runs (``machine``), the pieces themselves (``apply.applier``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from configsvc.apply.applier import Applier, Pieces
from configsvc.apply.commands import Command, Effects, Refused
from configsvc.codec.command import CommandDecoder
from configsvc.errors import DecodeError, ExitCode, FatalError, RequestError
from configsvc.limits import (
    APPLY_WAITING_BYTES_MAX,
    APPLY_WAITING_ENTRIES_MAX,
    READY_ENTRIES_MAX,
)
from configsvc.mvcc.messages import PutOp
from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    Entry,
    EntryKind,
)
from configsvc.raft.sizes import retained_bytes
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.machine import Listener, Machine

# A configuration change that apply refused is told to the core as a change of nobody.
_NO_CHANGE: Final = ConfChange((ConfChangeSingle(ConfChangeType.UPDATE_NODE, NodeId(0)),))


class _Large(NamedTuple):
    """The entry whose pieces are being done."""

    command: Command | None
    pieces: Pieces


class Applying:
    """What one machine applies."""

    __slots__ = (
        "_applier",
        "_configurations",
        "_decoder",
        "_large",
        "_listener",
        "_machine",
        "_waiting",
        "held",
        "meaningless",
        "waiting_bytes",
    )

    def __init__(self, machine: Machine, applier: Applier, listener: Listener) -> None:
        self._machine = machine
        self._applier = applier
        self._listener = listener
        self._decoder = CommandDecoder()
        self._large: _Large | None = None
        self._waiting: deque[Entry] = deque()
        self._configurations = 0  # among those that wait
        self.waiting_bytes = 0  # of those that wait
        self.held = False  # the history has no room
        self.meaningless = 0  # entries taken for empty ones

    @property
    def busy(self) -> bool:
        """Whether anything that was taken is not applied yet."""
        return self._large is not None or bool(self._waiting)

    @property
    def in_pieces(self) -> bool:
        """Whether an entry is half done."""
        return self._large is not None

    @property
    def can_go_on(self) -> bool:
        """Whether ``go_on`` would do something now."""
        return self._large is not None or (bool(self._waiting) and not self.held)

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken for now."""
        return (
            len(self._waiting) >= APPLY_WAITING_ENTRIES_MAX
            or self.waiting_bytes >= APPLY_WAITING_BYTES_MAX
        )

    @property
    def holds_configuration(self) -> bool:
        """Whether a change of the configuration is among what waits."""
        return self._configurations > 0

    def take(self, entries: Sequence[Entry]) -> None:
        """The next entries of the log: applied now, or behind what is not done yet."""
        if self.held or self._large is not None or self._waiting:
            self._waiting.extend(entries)
            self._configurations += _configurations(entries)
            self.waiting_bytes += retained_bytes(entries)
        else:
            self._apply(entries)

    def go_on(self) -> None:
        """One piece of the large entry, or the next of those that wait."""
        large = self._large
        if large is None:
            run = tuple(islice(self._waiting, READY_ENTRIES_MAX))
            for _ in run:
                self._waiting.popleft()
            if run:
                self._configurations -= _configurations(run)
                self.waiting_bytes -= retained_bytes(run)
                self._apply(run)
            return
        try:
            next(large.pieces)
        except StopIteration as done:
            self._large = None
            self._tell([done.value], [large.command])

    def drop(self) -> None:
        """Forget what waits and what is half done: it is part of what is being installed."""
        self._large = None
        self._waiting.clear()
        self._configurations = self.waiting_bytes = 0

    def _apply(self, entries: Sequence[Entry]) -> None:
        effects: list[Effects] = []
        commands: list[Command | None] = []  # the last ones may be puts that are still to be done
        for at, entry in enumerate(entries):
            if entry.kind != EntryKind.NORMAL:
                # A configuration takes effect in its place; what came before is answered first.
                self._put(entries, at, effects, commands)
                self._configure(entry, effects, commands)
                effects, commands = [], []
                continue
            command = self._decode(entry.data)
            if command is not None and type(command.op) is PutOp:
                commands.append(command)
                continue
            self._put(entries, at, effects, commands)
            outcome = self._applier.begin(entry.index, entry.term, command)
            if not isinstance(outcome, Effects):
                self._tell(effects, commands)
                self._large = _Large(command, outcome)
                rest = entries[at + 1 :]
                self._waiting.extendleft(reversed(rest))
                self._configurations += _configurations(rest)
                self.waiting_bytes += retained_bytes(rest)
                return
            effects.append(outcome)
            commands.append(command)
        self._put(entries, len(entries), effects, commands)
        self._tell(effects, commands)

    def _put(
        self,
        entries: Sequence[Entry],
        end: int,
        effects: list[Effects],
        commands: list[Command | None],
    ) -> None:
        """Do the puts before place ``end`` that are decoded and not done yet, all at once."""
        due = len(commands) - len(effects)
        if due:
            puts = cast("list[Command]", commands[-due:])
            effects += self._applier.puts(entries[end - due : end], puts)

    def _configure(
        self, entry: Entry, effects: list[Effects], commands: list[Command | None]
    ) -> None:
        if entry.kind not in (EntryKind.CONF_CHANGE, EntryKind.CONF_CHANGE_V2):
            raise FatalError(
                ExitCode.TOO_NEW,
                f"log entry {entry.index} is of unknown kind {entry.kind}",
                "start the release that wrote it",
            )
        machine = self._machine
        change = decode_conf_change(entry.data)
        command = self._decode(change.context)
        outcome = self._applier.apply(entry.index, entry.term, command)
        effects.append(outcome)
        commands.append(command)
        refused = isinstance(outcome.result, Refused)
        machine.conf_state = machine.raft.apply_conf_change(_NO_CHANGE if refused else change)
        machine.conf_index = entry.index
        self._tell(effects, commands)
        self._listener.on_configuration(machine.conf_state, entry.index)

    def _tell(self, effects: list[Effects], commands: list[Command | None]) -> None:
        if effects:
            self._machine.applied = effects[-1].index
            self._listener.on_applied(effects, commands)

    def _decode(self, data: bytes) -> Command | None:
        """The command of an entry; None when it has none that could be meant.

        A faulty or hostile member can get bytes committed that no proposer of ours makes. Every
        member sees the same bytes, so all of them take the entry for an empty one (2.1, P5).
        """
        if not data:
            return None
        try:
            return self._decoder.decode(data)
        except (DecodeError, RequestError):
            self.meaningless += 1
            return None


def _configurations(entries: Sequence[Entry]) -> int:
    return sum(entry.kind != EntryKind.NORMAL for entry in entries)
