"""One member's drive loop: consensus, log, apply, answers. No asyncio, no sockets, no clock.

Owns the order of things (``raft.plan``): what may be sent early, what waits for the disk, when an
entry is applied, when a caller is answered. The asyncio shell (``runtime.passes``) and the
simulator drive it through the same calls and hand it the same ports.

Always true:
  * One write is in flight at a time; nothing that promises state leaves before it is durable.
  * An entry is applied only when it is committed and locally durable (C5).
  * A waiting caller is answered by the entry that carries its request id, or told "unknown".

Not here: who waits for what (``runtime.proposals``, ``runtime.reads``), watches
(``runtime.watch_hub``), leases (``runtime.leases``), sockets (``transport``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from configsvc.apply.applier import Applier
from configsvc.apply.commands import Command, Effects
from configsvc.codec.confstate import encode_conf_state
from configsvc.codec.records import RecordCache
from configsvc.errors import ensure
from configsvc.raft.errors import RaftError
from configsvc.raft.messages import (
    ConfState,
    HardState,
    Message,
    Ready,
    Role,
    Snapshot,
    SoftState,
)
from configsvc.raft.node import RawNode
from configsvc.raft.plan import Plan, plan
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.applying import Applying
from configsvc.storage.wal.format import Installed
from configsvc.types import NodeId

PASSES_MAX = 8  # Readys handled in one run; then sockets and timers get their turn (P5),
PASS_S_MAX = 0.02  # as they do after this long
FEW_ENTRIES_MAX: Final = 8  # of a write; for more of them, its time is used for the rest


class LogWriter(Protocol):
    """The write-ahead log as the machine sees it; ``durable`` comes back with the token."""

    def submit(
        self,
        hard_state: HardState,
        first_index: int,
        count: int,
        records: bytes,
        token: int,
    ) -> None:
        """Queue one frame; returns at once."""

    def submit_installed(self, hard_state: HardState, installed: Installed, token: int) -> None:
        """Queue the frame that puts an installed generation in the place of the log before it."""


class Net(Protocol):
    """Member to member; never blocks."""

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over; loss is allowed, order within a peer and class is kept."""

    def flush(self) -> None:
        """What was handed over leaves now, not at the end of the pass."""


class Listener(Protocol):
    """What the shell wants to know, always called between two steps of the machine."""

    def on_role(self, lead: NodeId, role: Role) -> None:
        """The leader or this member's role changed."""

    def on_read(self, index: int, context: bytes) -> None:
        """A read round was confirmed at ``index``."""

    def on_applied(self, effects: Sequence[Effects], commands: Sequence[Command | None]) -> None:
        """A run of entries took effect; callers are answered and watchers fed from here."""

    def on_configuration(self, conf_state: ConfState, index: int) -> None:
        """A configuration took effect."""

    def on_snapshot(self, snapshot: Snapshot) -> int:
        """The core took a snapshot: the generation of the install behind it."""

    def on_installed(self) -> None:
        """Its INSTALLED frame is durable: that generation becomes this member's state."""


class Machine:
    """Drives one ``RawNode``. Every method is called on one thread."""

    def __init__(
        self,
        *,
        raft: RawNode,
        log: MemoryLog,
        applier: Applier,
        writer: LogWriter,
        net: Net,
        listener: Listener,
        conf_state: ConfState,
        hard_state: HardState,
        applied: int,
        durable: int,
        records: RecordCache,
        monotonic: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``monotonic``: seconds; bounds how long a run takes."""
        self.raft = raft
        self.log = log
        self.applier = applier
        self.conf_state = conf_state
        self.conf_index = applied  # index of the entry that made it, or where we started
        self.applied = applied
        self.durable = durable  # highest index that the local disk holds
        self.lead = NodeId(0)
        self.role = Role.FOLLOWER
        self._writer = writer
        self._records = records
        self._monotonic = monotonic
        self._net = net
        self._listener = listener
        self._applying = Applying(self, applier, listener)
        self._advance_due = False  # all but a configuration's turn is done for the last Ready
        self._hard_state = hard_state
        self._token = 0
        self._in_flight: Plan | None = None
        self._in_flight_last = 0  # last index of the write in flight
        self._running = False
        self.messages_refused = 0

    # --- inputs ----------------------------------------------------------------------------------

    def step(self, messages: Sequence[Message]) -> None:
        """Messages of one peer; what they cause goes out with the next ``run``."""
        step = self.raft.step
        for message in messages:
            try:
                step(message)
            except RaftError:
                self.messages_refused += 1  # from a stranger or of a local kind

    def durable_up_to(self, token: int) -> None:
        """The write with ``token`` is on disk: finish the Ready it belongs to."""
        pending = self._in_flight
        if pending is None or token < self._token:
            return
        self._in_flight = None
        self.durable = max(self.durable, self._in_flight_last)
        if pending.write is not None and pending.write.snapshot is not None:
            self._installed(pending.write.snapshot)
        if pending.send_late:
            self._net.send(pending.send_late)
            self._net.flush()  # a leader waits for it, and apply can wait
        if pending.apply_after:
            self._applying.take(pending.apply_after)
        self._advance()

    @property
    def entries_meaningless(self) -> int:
        """Entries without a command that could be meant."""
        return self._applying.meaningless

    @property
    def apply_lag_bytes(self) -> int:
        """Bytes of committed entries that wait to be applied."""
        return self._applying.waiting_bytes

    @property
    def writing(self) -> bool:
        """Whether a write is in flight."""
        return self._in_flight is not None

    @property
    def hard_state(self) -> HardState:
        """The newest hard state handed to the log."""
        return self._hard_state

    def run(self, may_apply: Callable[[], bool] = lambda: True) -> bool:
        """Handle what the core has ready; True when there is more for another pass.

        ``may_apply`` is asked when something is, and may put off what would be applied: the log
        and the links go on, as far as there is room for what waits.
        """
        ensure(not self._running, "the machine is not re-entrant")
        self._running = True
        try:
            raft, applying = self.raft, self._applying
            if applying.busy:
                applying.held = not (applying.in_pieces or may_apply())
                if not applying.held:
                    self._go_on()
                    applying.held = not may_apply()  # what a write in flight brings is next
            ends = self._monotonic() + PASS_S_MAX
            for number in range(PASSES_MAX):
                if number and self._monotonic() >= ends:
                    break
                if self._in_flight is not None or self._advance_due or not raft.has_ready():
                    return applying.can_go_on
                if applying.full:
                    return applying.can_go_on
                applying.held = not may_apply()
                self._handle(raft.ready())
            return applying.can_go_on or (self._in_flight is None and raft.has_ready())
        finally:
            self._running = False

    def _go_on(self) -> None:
        self._applying.go_on()
        if self._advance_due and not self._applying.holds_configuration:
            self._advance_due = False
            self.raft.advance()

    def _advance(self) -> None:
        """The last Ready is carried out, or all of it that may not wait for its turn in apply."""
        if self._applying.holds_configuration:
            self._advance_due = True
        else:
            self.raft.advance()

    # --- one Ready -------------------------------------------------------------------------------

    def _handle(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self._applying.drop()  # the snapshot holds what they would have done
        steps = plan(ready, self.durable, self._hard_state)
        if steps.send_early:
            self._net.send(steps.send_early)
            if steps.write is not None and len(steps.write.entries) <= FEW_ENTRIES_MAX:
                self._net.flush()  # the log's thread would fight for the interpreter meanwhile
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        if steps.write is not None:
            steps = self._postponed(steps)
            self._write(steps)
            if steps.send_early:
                self._net.flush()  # many: while the log's thread wakes; apply can wait
        if ready.soft_state is not None:
            self._role(ready.soft_state)
        for read in ready.read_states:
            self._listener.on_read(read.index, read.context)
        if steps.apply_now:
            self._applying.take(steps.apply_now)
        if steps.write is None:
            if steps.send_late:
                self._net.send(steps.send_late)
            if steps.apply_after:
                self._applying.take(steps.apply_after)
            self._advance()

    def _postponed(self, steps: Plan) -> Plan:
        """A follower's few entries are applied after its write: its leader waits for that.

        Many are applied beside the write, which then costs no time of its own.
        """
        if (
            self.role is Role.LEADER
            or not steps.apply_now
            or len(steps.apply_now) > FEW_ENTRIES_MAX
            or (steps.write is not None and steps.write.snapshot is not None)
        ):
            return steps
        return steps._replace(apply_now=(), apply_after=steps.apply_now + steps.apply_after)

    def _write(self, steps: Plan) -> None:
        ensure(steps.write is not None, "a write step has something to write")
        write = steps.write
        self._in_flight = steps
        entries = write.entries if write is not None else ()
        if write is not None and write.snapshot is not None:
            self._write_snapshot(write.snapshot)
            if not entries:
                return
        first = entries[0].index if entries else 0
        if entries:
            self.log.append(entries)
            self._in_flight_last = entries[-1].index
            if first <= self.durable:  # a conflicting suffix is being replaced
                self.durable = first - 1
        self._token += 1
        records = self._records.encode(entries)
        self._writer.submit(self._hard_state, first, len(entries), records, self._token)

    def _write_snapshot(self, snapshot: Snapshot) -> None:
        """The log before it is void; entries of the same Ready follow in a frame of their own."""
        generation = self._listener.on_snapshot(snapshot)
        self.log.apply_snapshot(snapshot)
        self._in_flight_last = snapshot.index
        self.durable = min(self.durable, snapshot.index)
        self._token += 1
        installed = Installed(
            snapshot.index, snapshot.term, encode_conf_state(snapshot.conf_state), generation
        )
        self._writer.submit_installed(self._hard_state, installed, self._token)

    def _installed(self, snapshot: Snapshot) -> None:
        self.applied = self.conf_index = snapshot.index
        self.conf_state = snapshot.conf_state
        self._listener.on_installed()
        self._listener.on_configuration(self.conf_state, snapshot.index)

    def notice_role(self) -> None:
        """Tell a change of role that no Ready has told yet, for a write that hangs keeps them."""
        raft = self.raft
        if (raft.lead, raft.role) != (self.lead, self.role):
            self._role(SoftState(raft.lead, raft.role))

    def _role(self, soft: SoftState) -> None:
        self.lead, self.role = soft.lead, soft.role
        self._listener.on_role(soft.lead, soft.role)
