"""Linearizable reads: everybody who waits in a pass shares one round.

A round's context is (member, incarnation, counter), new for every attempt, retries included (R3).
One round is in flight; a second starts only when the first is older than a heartbeat (R1). A
change of leader or role fails the waiting reads at once (R4), so clients try again and no answer
confirmed for an earlier leader is ever used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

from configsvc import limits
from configsvc.errors import (
    ConfigServiceError,
    LeaderChangedError,
    OverloadedError,
    RequestTimeoutError,
    StoppedError,
    TimeoutWaitAppliedIndexError,
)
from configsvc.raft.errors import ReadDropped
from configsvc.runtime.proposals import Clock
from configsvc.runtime.waiting import Waiting, answered
from configsvc.types import NodeId

RETRY_S: Final = 0.5  # a round without an answer is asked for again under a new context
_CONTEXT = struct.Struct("<QQQ")

Answer = Callable[[], "bytes | Waiting"]


class ReadCore(Protocol):
    def read_index(self, ctx: bytes) -> None:
        """Start a round; its answer comes as a read state."""


class _Read:
    __slots__ = ("answer", "deadline", "waiting")

    def __init__(self, waiting: Waiting, answer: Answer, deadline: float) -> None:
        self.waiting = waiting
        self.answer = answer
        self.deadline = deadline


class Reads:
    """The reads of one member that wait for a round, or for apply to catch up with one."""

    def __init__(
        self,
        *,
        self_id: NodeId,
        incarnation: int,
        clock: Clock,
        wake: Callable[[], None],
        timeout: float,
        heartbeat: float,
        why_late: Callable[[float], ConfigServiceError] = lambda since: RequestTimeoutError(),
        report: Callable[[BaseException], str] = lambda error: type(error).__name__,
    ) -> None:
        """``timeout``, ``heartbeat``: seconds. ``why_late``: what to tell who waited for a round
        since a moment of the monotonic clock. ``report``: logs a bug, gives the id for the client.
        """
        self._self_id = self_id
        self._incarnation = incarnation
        self._clock = clock
        self._wake = wake
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._why_late = why_late
        self._report = report
        self._counter = 0
        self._queue: list[_Read] = []
        self._rounds: dict[bytes, tuple[float, list[_Read]]] = {}
        self._confirmed: list[tuple[int, list[_Read]]] = []  # wait for apply
        self.stopped = False
        self.shedding = False  # set from outside: reads of clients are refused
        self.failed_total = 0
        self.slow_total = 0

    def submit(self, answer: Answer, *, urgent: bool = False) -> Waiting:
        """Call ``answer`` once a read at this moment is linearizable.

        ``urgent``: the member's own and renewals; not shed when memory is short (O8).

        Raises:
            OverloadedError: PENDING_READS_MAX reads wait already, or memory is short.
            StoppedError: the member is shutting down.
        """
        if self.stopped:
            raise StoppedError
        if self.waiting >= limits.PENDING_READS_MAX or (self.shedding and not urgent):
            raise OverloadedError
        waiting = Waiting()
        self._queue.append(_Read(waiting, answer, self._clock.monotonic() + self._timeout))
        self._wake()
        return waiting

    def once_applied(self, index: int, answer: Answer) -> Waiting:
        """Call ``answer`` once ``index`` is applied here, whatever the leader says.

        Raises:
            OverloadedError: PENDING_READS_MAX reads wait already.
            StoppedError: the member is shutting down.
        """
        if self.stopped:
            raise StoppedError
        if self.waiting >= limits.PENDING_READS_MAX:
            raise OverloadedError
        waiting = Waiting()
        read = _Read(waiting, answer, self._clock.monotonic() + self._timeout)
        self._confirmed.append((index, [read]))
        return waiting

    @property
    def waiting(self) -> int:
        """Reads that wait, in all stages."""
        return (
            len(self._queue)
            + sum(len(reads) for _, reads in self._rounds.values())
            + sum(len(reads) for _, reads in self._confirmed)
        )

    @property
    def queued(self) -> bool:
        """Whether reads wait for a round to start."""
        return bool(self._queue)

    def flush(self, core: ReadCore) -> None:
        """Start a round for what waits, if none is in flight or the last one is old."""
        if not self._queue:
            return
        now = self._clock.monotonic()
        if self._rounds:
            started = max(at for at, _ in self._rounds.values())
            if now - started < self._heartbeat:
                return
        self._counter += 1
        context = _CONTEXT.pack(self._self_id, self._incarnation, self._counter)
        try:
            core.read_index(context)
        except ReadDropped:
            return  # no leader just now: they wait for one, or for their deadline
        self._rounds[context] = (now, self._queue)
        self._queue = []

    def confirmed(self, index: int, context: bytes, applied: int) -> None:
        """A round was confirmed: its reads may run once ``index`` is applied."""
        found = self._rounds.pop(context, None)
        if found is None:
            return  # of an earlier role, or asked for again meanwhile
        if index <= applied:
            self._run(found[1])
        else:
            self._confirmed.append((index, found[1]))
        if self._queue:
            self._wake()

    def applied(self, index: int) -> None:
        """Apply moved on."""
        if not self._confirmed:
            return
        ready = [reads for at, reads in self._confirmed if at <= index]
        self._confirmed = [(at, reads) for at, reads in self._confirmed if at > index]
        for reads in ready:
            self._run(reads)

    def leadership_changed(self) -> None:
        """Fail what was asked of an earlier leader; the rest waits for the new one."""
        lost = [r for _, reads in self._rounds.values() for r in reads]
        self._rounds.clear()
        self.failed_total += len(lost)
        for read in lost:
            read.waiting.complete(LeaderChangedError())

    def sweep(self) -> None:
        """Ask again for silent rounds and fail what is past its deadline."""
        now = self._clock.monotonic()
        for context, (at, reads) in list(self._rounds.items()):
            if now - at >= RETRY_S:
                del self._rounds[context]
                self.slow_total += 1
                self._queue = reads + self._queue
        self._queue, late = _parted(self._queue, now)
        for read in late:
            self._fail([read], self._why_late(read.deadline - self._timeout))
        unapplied: list[_Read] = []
        for _, reads in self._confirmed:
            reads[:], late = _parted(reads, now)
            unapplied += late
        if unapplied:
            self._confirmed = [(at, reads) for at, reads in self._confirmed if reads]
            self._fail(unapplied, TimeoutWaitAppliedIndexError())
        if self._queue:
            self._wake()

    def stop(self) -> None:
        """Refuse new reads and fail the waiting ones."""
        self.stopped = True
        reads = self._queue
        for _, more in self._rounds.values():
            reads += more
        for _, more in self._confirmed:
            reads += more
        self._queue, self._rounds, self._confirmed = [], {}, []
        self._fail(reads, StoppedError())

    def _run(self, reads: list[_Read]) -> None:
        for read in reads:
            waiting = read.waiting
            if waiting.cancelled:
                continue
            answer = answered(self._report, read.answer)
            if isinstance(answer, Waiting):
                waiting.follow(answer)
            else:
                waiting.complete(answer)

    def _fail(self, reads: list[_Read], error: ConfigServiceError) -> None:
        self.failed_total += len(reads)
        for read in reads:
            if not read.waiting.cancelled:
                read.waiting.complete(error)


def _parted(reads: list[_Read], now: float) -> tuple[list[_Read], list[_Read]]:
    """Those that wait on, and those that are past their deadline or that nobody wants."""
    late = [r for r in reads if r.deadline <= now or r.waiting.cancelled]
    if not late:
        return reads, late
    return [r for r in reads if r.deadline > now and not r.waiting.cancelled], late
