"""Writes that wait: admission, envelopes, the leader's stamp, forwarding, answers in bulk.

Always true:
  * A request id is used once; a proposal that was handed on is never sent again by the server,
    unless the other side proves that it never proposed it (C7).
  * Whoever waits is answered exactly once: by the entry with its id, or with a doubt (a code of
    Unavailable), never with a code that means "not done" when it may have been.
  * What a leader will not propose is refused at the member that took it, too (O2, Q5).
  * The leader stamps strictly growing times, and only once everything of earlier terms is applied.

Not here: what an entry does (``apply``), when a batch reaches the log (``runtime.machine``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from configsvc import limits
from configsvc.apply.commands import Effects
from configsvc.codec import command as codec
from configsvc.errors import (
    ConfigServiceError,
    OverloadedError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
)
from configsvc.runtime import forwarding
from configsvc.runtime.forwarding import Forwarder, Queued
from configsvc.runtime.waiting import Waiting, answered
from configsvc.types import NodeId

CLOCK_SUSPECT_NS: Final = 5_000_000_000  # a stamp further ahead of the wall clock is marked (A1)
SALT_BYTES: Final = 32
_SALT_POOL: Final = 128  # salts drawn from the system at a time

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor

Encode = Callable[[Effects], "bytes | ConfigServiceError | Waiting"]


class Clock(Protocol):
    """Two clocks: one for waiting, one for stamps."""

    def monotonic(self) -> float:
        """Seconds; only differences mean anything."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC; may jump."""


class Pending:
    """One caller that waits for its entry."""

    __slots__ = ("deadline", "encode", "handed_on", "queued", "size", "waiting")

    def __init__(
        self,
        waiting: Waiting,
        encode: Encode,
        deadline: float,
        size: int,
        queued: Queued,
    ) -> None:
        self.waiting = waiting
        self.queued = queued  # kept until answered: a leader may hand it back unproposed
        self.encode = encode
        self.deadline = deadline
        self.size = size
        self.handed_on = False  # proposed or forwarded: from here on the outcome may be unknown


class Proposals:
    """The table of waiting writes of one member."""

    def __init__(
        self,
        *,
        self_id: NodeId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        forwarder: Forwarder,
        wake: Callable[[], None],
        timeout: float,
        election_timeout: float = 1.0,
        why_late: Callable[[float], ConfigServiceError] = lambda since: RequestTimeoutError(),
        report: Callable[[BaseException], str] = lambda error: type(error).__name__,
    ) -> None:
        """``timeout``, ``election_timeout``: seconds. ``why_late``: what to tell who waited since
        a moment of the monotonic clock. ``report``: logs a bug, gives the id for the client.
        """
        self._self_id = self_id
        self._clock = clock
        self._entropy = entropy
        self._forwarder = forwarder
        self._wake = wake
        self._timeout = timeout
        self._election_timeout = election_timeout
        self._why_late = why_late
        self._report = report
        self._returned = False  # the leader we know said that it is none
        self._doubtful: dict[int, float] = {}  # handed on over what broke -> told so then
        self._table: dict[int, Pending] = {}
        self._bytes = 0
        self._queue: list[Queued] = []  # this member's own
        self._foreign: list[Queued] = []  # sent here by members that take us for the leader
        self._salts = b""
        self._salt_at = 0
        self._next_id = int.from_bytes(entropy(4), "big") << 32 | 1
        self._last_time_ns = 0
        self.stopped = False
        self.proposed_total = 0
        self.failed_total = 0

    # --- taking writes ---------------------------------------------------------------------------

    def submit(
        self,
        actor_field: bytes,
        op_field: int,
        op: bytes,
        encode: Encode,
        *,
        reason: str = "",
        ticket: str = "",
        facts: tuple[tuple[str, str], ...] = (),
        new_uid: str = "",
        needs_id: bool = False,
        urgent: bool = False,
    ) -> Waiting:
        """Queue one operation; the answer comes when its entry is applied here.

        Args:
            actor_field: ``codec.encode_actor`` of the caller.
            op_field: One of codec's ``OP_`` numbers.
            op: The operation's bytes.
            encode: Makes the answer out of the entry's effects.
            reason: Why; "" when not given.
            ticket: Change ticket; "" when not given.
            facts: Evaluated facts for policy.
            new_uid: uid of an identity that this creates.
            needs_id: The leader adds a random positive id.
            urgent: Membership, revocation, expiry: admitted up to twice the bounds (O1).

        Raises:
            RequestTooLargeError: the operation is above REQUEST_BYTES_MAX.
            OverloadedError: too many writes wait already; nothing was proposed.
            StoppedError: the member is shutting down.
        """
        queued, waiting = self.prepare(
            actor_field,
            op_field,
            op,
            encode,
            reason=reason,
            ticket=ticket,
            facts=facts,
            new_uid=new_uid,
            needs_id=needs_id,
            urgent=urgent,
        )
        self._queue.append(queued)
        self._wake()
        return waiting

    def prepare(
        self,
        actor_field: bytes,
        op_field: int,
        op: bytes,
        encode: Encode,
        *,
        reason: str = "",
        ticket: str = "",
        facts: tuple[tuple[str, str], ...] = (),
        new_uid: str = "",
        needs_id: bool = False,
        urgent: bool = False,
    ) -> tuple[Queued, Waiting]:
        """As ``submit``, but the caller hands the command on by itself (membership changes)."""
        if self.stopped:
            raise StoppedError
        size = len(op)
        if size > limits.REQUEST_BYTES_MAX:
            raise RequestTooLargeError
        room = 2 if urgent else 1
        if (
            len(self._table) >= room * limits.PROPOSALS_WAITING_MAX
            or self._bytes + size > room * limits.PROPOSALS_WAITING_BYTES_MAX
        ):
            raise OverloadedError
        request_id = self._next_id
        self._next_id = request_id + 1
        at = self._salt_at
        if at == len(self._salts):
            self._salts = self._entropy(SALT_BYTES * _SALT_POOL)
            at = 0
        self._salt_at = at + SALT_BYTES
        command = codec.build(
            request_id,
            actor_field,
            self._salts[at : at + SALT_BYTES],
            op_field,
            op,
            reason=reason,
            ticket=ticket,
            facts=facts,
            new_uid=new_uid,
        )
        waiting = Waiting()
        queued = _new(Queued, (command, needs_id, self._self_id, request_id, urgent))
        self._table[request_id] = Pending(
            waiting, encode, self._clock.monotonic() + self._timeout, size, queued
        )
        self._bytes += size
        return queued, waiting

    def waits_for(self, request_id: int) -> bool:
        """Whether somebody still waits for this command."""
        return request_id in self._table

    def withdraw(self, request_id: int, error: ConfigServiceError) -> None:
        """A prepared command was refused before it was proposed."""
        pending = self._table.get(request_id)
        if pending is not None:
            self._fail(request_id, pending, error)

    def stamp_one(self, command: bytes, accepted_by: int, applied_time_ns: int) -> bytes:
        """Stamp a command that is proposed on its own; leader only."""
        now = self._clock.time_ns()
        last = max(self._last_time_ns + 1, applied_time_ns + 1, now)
        self._last_time_ns = last
        return command + codec.stamp(last, accepted_by, suspect=last - now > CLOCK_SUSPECT_NS)

    def accept_forwarded(self, peer: NodeId, body: bytes) -> None:
        """A batch from another member; ``accepted_by`` is the peer its certificate proves.

        Raises:
            DecodeError: the batch is malformed; the connection is closed.
        """
        self._foreign += forwarding.decode_batch(peer, body)
        if len(self._foreign) > 2 * limits.PROPOSALS_WAITING_MAX:
            self._refuse_foreign(OverloadedError(), urgent_too=True)
        self._wake()

    # --- handing writes on -----------------------------------------------------------------------

    def take_for_leader(
        self, applied_time_ns: int, *, urgent_only: bool = False
    ) -> tuple[list[bytes], list[Queued]]:
        """What waits, stamped, up to one Ready's worth; called on the leader, once per pass.

        ``applied_time_ns`` is the newest stamp that apply has seen. ``urgent_only``: the others
        wait on (O2). The second list is for ``give_back`` when the core drops the batch.
        """
        if not self._queue and not self._foreign:
            return [], []
        room = limits.READY_ENTRIES_MAX
        taken, self._foreign = _parted(self._foreign, room, urgent_only=urgent_only)
        own, self._queue = _parted(self._queue, room - len(taken), urgent_only=urgent_only)
        batch = taken + own
        now = self._clock.time_ns()
        last = max(self._last_time_ns, applied_time_ns)
        out = []
        table = self._table
        self_id = self._self_id
        for queued in batch:
            command, needs_id, accepted_by, request_id, _ = queued
            last = max(last + 1, now)
            generated = self._positive_id() if needs_id else 0
            suspect = last - now > CLOCK_SUSPECT_NS
            out.append(command + codec.stamp(last, accepted_by, generated, suspect=suspect))
            if accepted_by == self_id:
                pending = table.get(request_id)
                if pending is not None:
                    pending.handed_on = True
        self._last_time_ns = last
        self.proposed_total += len(out)
        return out, batch

    def give_back(self, batch: list[Queued]) -> None:
        """The core dropped the batch: nothing of it was proposed."""
        own = [queued for queued in batch if queued.accepted_by == self._self_id]
        for queued in own:
            pending = self._table.get(queued.request_id)
            if pending is not None:
                pending.handed_on = False
        self._queue = own + self._queue
        self._foreign = batch[: len(batch) - len(own)] + self._foreign  # they come first

    def forward_to(self, leader: NodeId) -> None:
        """Send what waits to the leader and hand back what others sent us by mistake.

        One that handed something back hears nothing more until it is another or a tick has passed:
        sent again at once, it would come back as fast as the link carries it.
        """
        self.hand_back()
        while self._queue and not self._returned:
            body, taken = forwarding.encode_batch(self._queue)
            if not self._forwarder.forward(leader, body):
                return
            for queued in self._queue[:taken]:
                pending = self._table.get(queued.request_id)
                if pending is not None:
                    pending.handed_on = True
            del self._queue[:taken]

    def hand_back(self) -> None:
        """Tell the senders that we did not propose their batches: they may try elsewhere."""
        foreign, self._foreign = self._foreign, []
        for peer, ids in forwarding.by_member(foreign).items():
            self._forwarder.hand_back(peer, ids)

    def _refuse_foreign(self, error: RequestError, *, urgent_too: bool) -> None:
        """Tell the senders that we will not propose their batches, nor will anybody."""
        refused = [queued for queued in self._foreign if urgent_too or not queued.urgent]
        self._foreign = [q for q in self._foreign if q.urgent and not urgent_too]
        for peer, ids in forwarding.by_member(refused).items():
            self._forwarder.refuse(peer, forwarding.encode_refusal(error, ids))

    def handed_back(self, body: bytes) -> None:
        """The leader we sent these to never proposed them: they are ours again."""
        for request_id in forwarding.decode_ids(body):
            pending = self._table.get(request_id)
            if pending is not None and pending.handed_on:
                pending.handed_on = False
                self._doubtful.pop(request_id, None)
                self._queue.append(pending.queued)
                self._returned = True
        self._wake()

    def refused(self, body: bytes) -> None:
        """The leader we sent these to never proposed them and will not.

        Raises:
            DecodeError: malformed; the connection is closed.
        """
        error, ids = forwarding.decode_refusal(body)
        for request_id in ids:
            pending = self._table.get(request_id)
            if pending is not None and pending.handed_on:
                self._fail(request_id, pending, error)

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, effects: Iterable[Effects], accepted_by: Sequence[int]) -> None:
        """Complete everybody whose entry was applied; called once per run of entries."""
        table = self._table
        own = self._self_id
        for outcome, member in zip(effects, accepted_by, strict=True):
            if member != own:
                continue
            pending = table.pop(outcome.request_id, None)
            if pending is None:
                continue
            self._bytes -= pending.size
            waiting = pending.waiting
            if waiting.cancelled:
                continue
            answer = answered(self._report, pending.encode, outcome)
            if isinstance(answer, Waiting):
                answer.bind(waiting.complete)
            else:
                waiting.complete(answer)

    def leadership_changed(self) -> None:
        """What was handed to an earlier leader has an unknown outcome: say so at once."""
        lost = [(i, p) for i, p in self._table.items() if p.handed_on]
        for request_id, pending in lost:
            self._fail(request_id, pending, TimeoutDueToLeaderFailError())
        self._doubtful.clear()
        self._returned = False

    def connection_lost(self) -> None:
        """What was handed to the leader may have been lost on its way, or its answer.

        It is told so unless the log brings it within an election timeout: by then the members
        speak again, or somebody else leads.
        """
        told_at = self._clock.monotonic() + self._election_timeout
        for request_id, pending in self._table.items():
            if pending.handed_on:
                self._doubtful.setdefault(request_id, told_at)

    def fail_queued(self, error: RequestError) -> None:
        """Refuse what nobody has been handed yet, wherever it came from: none was proposed."""
        self._refuse_queue(error, urgent_too=True)

    def refuse_waiting(self, error: RequestError) -> None:
        """As ``fail_queued``, but urgent ones wait on."""
        self._refuse_queue(error, urgent_too=False)

    def _refuse_queue(self, error: RequestError, *, urgent_too: bool) -> None:
        queue, self._queue = self._queue, []
        for queued in queue:
            if queued.urgent and not urgent_too:
                self._queue.append(queued)
            else:
                self.withdraw(queued.request_id, error)
        self._refuse_foreign(error, urgent_too=urgent_too)

    def sweep(self) -> None:
        """Fail what is past its deadline. The oldest stand first, all wait equally long.

        Called every raft tick.
        """
        now = self._clock.monotonic()
        self._returned = False
        late = []
        for request_id, pending in self._table.items():
            if pending.deadline > now:
                break
            late.append((request_id, pending))
        for request_id, pending in late:
            self._fail(request_id, pending, self._why_late(pending.deadline - self._timeout))
        self._sweep_doubtful(now)
        if late:
            alive = self._table
            self._queue = [q for q in self._queue if q.request_id in alive]

    def _sweep_doubtful(self, now: float) -> None:
        for request_id, told_at in list(self._doubtful.items()):
            if told_at > now:
                break
            del self._doubtful[request_id]
            pending = self._table.get(request_id)
            if pending is not None:
                self._fail(request_id, pending, TimeoutDueToConnectionLostError())

    def stop(self) -> None:
        """Refuse new writes and fail the waiting ones."""
        self.stopped = True
        for request_id, pending in list(self._table.items()):
            self._fail(request_id, pending, StoppedError())
        self._queue.clear()
        self.hand_back()

    def _fail(self, request_id: int, pending: Pending, error: ConfigServiceError) -> None:
        del self._table[request_id]
        self._bytes -= pending.size
        self.failed_total += 1
        if not pending.waiting.cancelled:
            pending.waiting.complete(error)

    @property
    def waiting(self) -> int:
        """Writes that wait for their entry."""
        return len(self._table)

    @property
    def queued(self) -> bool:
        """Whether something waits to be proposed or forwarded."""
        return bool(self._queue or self._foreign)

    @property
    def foreign(self) -> tuple[NodeId, ...]:
        """The members whose forwarded writes wait to be proposed."""
        if not self._foreign:
            return ()
        return tuple(sorted({NodeId(queued.accepted_by) for queued in self._foreign}))

    def _positive_id(self) -> int:
        while True:
            value = int.from_bytes(self._entropy(8), "big") >> 1
            if value:
                return value


def _parted(
    queue: list[Queued], room: int, *, urgent_only: bool
) -> tuple[list[Queued], list[Queued]]:
    """The first ones, or the first urgent ones, and the rest in its order."""
    if not urgent_only:
        return queue[:room], queue[room:]
    taken = [queued for queued in queue if queued.urgent][:room]
    ids = {id(queued) for queued in taken}
    return taken, [queued for queued in queue if id(queued) not in ids]
