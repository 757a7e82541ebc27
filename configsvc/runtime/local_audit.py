"""Stream L on the loop: what happened goes to its record, and its answer waits for the disk (FC-2).

Always true:
  * ``done`` of a noted occurrence is called once: with None when the record is on disk (or only
    counted, as the hundredth equal refusal of a minute is), with ``AuditUnavailableError`` when it
    could not be written. Nothing that is to be recorded is answered before.
  * While the disk fails nothing new is taken, so the stream has no gaps; what was turned away
    meanwhile is counted, and the count is recorded once the disk is back.

Not here: the rules of repetition and anchoring (``audit.local``), the file (``storage.local``),
which refusal makes which record (``api.refusals``), anchors (``anchors``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from configsvc.audit.actors import KnownActors
from configsvc.audit.levels import Level, Levels
from configsvc.audit.local import LocalStream, Occurrence
from configsvc.audit.merkle import Frontier
from configsvc.audit.record import NOTHING, CommitValues, Position, Resource
from configsvc.errors import (
    AuditUnavailableError,
)
from configsvc.limits import CLOCK_STEP_NS, LOCAL_CLOSE_S
from configsvc.runtime.anchors import Anchors, local_origin
from configsvc.runtime.waiting import Waiting, answered
from configsvc.storage.local.messages import LocalActor, LocalHead, LocalRecord
from configsvc.storage.local.writer import LocalItem
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL, KeySpan, Principal, Source

if TYPE_CHECKING:
    from configsvc.runtime.member import Member
    from configsvc.runtime.parts import Report

SALT_BYTES: Final = 32
TICK_S: Final = 1.0
UNAVAILABLE: Final = AuditUnavailableError.text

Done = Callable[["AuditUnavailableError | None"], None]


class Writer(Protocol):
    """``storage.local.writer``, as it is used here."""

    @property
    def takes(self) -> bool: ...

    def submit(self, item: LocalItem) -> None: ...

    def close(self, timeout_s: float) -> bool: ...


class LocalAudit:
    """The stream of one member; everything runs on its loop."""

    def __init__(
        self,
        member: Member,
        *,
        writer: Writer,
        head: LocalHead,
        mark: str,
        known_actors: list[tuple[bytes, bytes]],
        levels: Levels,
        entropy: Callable[[int], bytes],
    ) -> None:
        """``head``, ``mark`` and ``known_actors``: what the file held when it was opened."""
        actors = KnownActors()
        actors.load(known_actors)
        self._member = member
        self._report: Report = member.report
        self._writer = writer
        self._entropy = entropy
        self._stream = LocalStream(
            member.self_id, frontier=Frontier.restore(head.size, head.roots), actors=actors
        )
        # TIME-2 over restarts: a record is never older than the one before it.
        self._floor_ns = head.time_ns
        self._durable = head.size
        self._waiting: deque[tuple[int, Done]] = deque()  # (size that must be durable, whom)
        self._failure = ""
        self._missed = 0
        self._next_tick = 0.0
        self._drift: int | None = None  # wall clock minus monotonic clock, ns
        self.origin = local_origin(member, mark)  # name of the stream in anchors and exports
        self._anchors = Anchors(member, self._stream, self.origin, self.note)
        self._levels = levels
        self._read_spans = marked_spans(levels)
        self.recorded_total = 0
        self.refused_total = 0

    # --- facts -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Leaves, those that are not on disk yet included."""
        return self._stream.size

    @property
    def durable(self) -> int:
        """Leaves on disk."""
        return self._durable

    @property
    def problem(self) -> str:
        """Why this member must not look healthy; "" when all is well."""
        return self._failure or self._anchors.problem

    def marks_read(self, event: str, span: KeySpan | None) -> bool:
        """Whether an allowed read is recorded (AUD-1). Cheap for the usual no."""
        if event == "kv.range" and span is not None and self._read_spans is not None:
            start, end = span
            for low, high in self._read_spans:  # KeySpan.intersects, without its two calls
                if (high is None or start < high) and (end is None or low < end):
                    break
            else:
                return False
        return self._levels.level(event, span) >= Level.METADATA

    # --- noting ----------------------------------------------------------------------------------

    def note(
        self,
        event: str,
        principal: Principal = SYSTEM_PRINCIPAL,
        source: Source = NO_SOURCE,
        done: Done | None = None,
        *,
        code: str = "OK",
        rule: str = "",
        detail: str = "",
        resource: Resource = NOTHING,
        request_id: int = 0,
        reason: str = "",
        ticket: str = "",
    ) -> None:
        """Record something. ``done`` None: nobody waits for it.

        Args are ``audit.local.Occurrence``'s; texts must be ours or checked, never a secret.
        """
        if not self._writer.takes:
            self._missed += 1
            self.refused_total += 1
            if done is not None:
                done(AuditUnavailableError())
            return
        seen = Occurrence(
            event,
            principal,
            source,
            max(self._member.time_ns(), self._floor_ns),
            self._entropy(SALT_BYTES),
            code,
            rule,
            detail,
            resource,
            request_id,
            reason,
            ticket,
        )
        made = self._stream.note(seen, self._position())
        if made is not None:
            self._submit(made)
        if done is None:
            return
        if made is None:
            done(None)
        else:
            self._waiting.append((self._stream.size, done))

    def settled(self, done: Done) -> None:
        """Call ``done`` once everything noted so far is on disk."""
        if self._durable >= self._stream.size:
            done(None)
        elif not self._writer.takes:
            done(AuditUnavailableError())
        else:
            self._waiting.append((self._stream.size, done))

    def before(self, answer: Callable[[], bytes | Waiting]) -> tuple[Waiting, Done]:
        """A slot that is answered by ``answer`` once ``Done`` is called with None."""
        out = Waiting()

        def done(error: AuditUnavailableError | None) -> None:
            if error is not None:
                out.complete(error)
                return
            result = answered(self._member.report_failure, answer)
            if isinstance(result, Waiting):
                out.follow(result)
            else:
                out.complete(result)

        return out, done

    # --- told by the writer (on the loop) --------------------------------------------------------

    def on_durable(self, size: int) -> None:
        """The first ``size`` leaves are on disk."""
        self._durable = max(self._durable, size)
        if self._failure:
            self._failure = ""
            self._report.info("audit", "the local audit log is written again", size=size)
        waiting = self._waiting
        while waiting and waiting[0][0] <= size:
            waiting.popleft()[1](None)

    def on_failed(self, why: str) -> None:
        """The disk would not take the newest records; they are kept and tried again."""
        if not self._failure:
            self._report.error("audit", "the local audit log cannot be written", reason=why)
        self._failure = UNAVAILABLE
        waiting, self._waiting = self._waiting, deque()
        self.refused_total += len(waiting)
        for _, done in waiting:
            done(AuditUnavailableError())

    # --- life ------------------------------------------------------------------------------------

    def begin(self, version: str, weakened: list[str]) -> None:
        """The first records of a boot: settings weaker than the defaults, then the start."""
        listed = ", ".join(weakened) or "none weaker than the defaults"
        self.note("settings", detail=listed)
        self.note("start", resource=Resource(object=version))

    def tick(self) -> None:
        """Called every raft tick."""
        now = self._member.clock.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self._look_at_clock(now)
        if not self._writer.takes:
            return
        self._flush(everything=False)
        if self._missed:
            missed, self._missed = self._missed, 0
            self.note("limit.hit", detail=UNAVAILABLE, resource=Resource(repeated=missed))
        self._anchors.tick(now, self._durable)

    def end(self, why: str) -> bool:
        """The last records, and the end of the writer; False: not all are on disk in time."""
        if self._writer.takes:
            self._flush(everything=True)
            self.note("stop", detail=why)
        return self._writer.close(LOCAL_CLOSE_S)

    # --- inside ----------------------------------------------------------------------------------

    def _position(self) -> Position:
        state = self._member.state
        auth = state.auth
        return Position(0, 0, state.store.revision, auth.revision, auth.policy.version)

    def _submit(self, made: tuple[bytes, CommitValues]) -> None:
        leaf, values = made
        seq, time_ns, hashed, record, salt = values[0], values[4], values[6], values[7], values[8]
        actor = LocalActor(seq, hashed, record, salt) if record else None
        row = LocalRecord(seq, leaf, values[10], values[11], values[12])
        self._floor_ns = time_ns
        self.recorded_total += 1
        self._writer.submit(LocalItem(row, actor, time_ns))

    def _flush(self, *, everything: bool) -> None:
        now_ns = max(self._member.time_ns(), self._floor_ns)
        for made in self._stream.flush(now_ns, self._position(), everything=everything):
            self._submit(made)

    def _look_at_clock(self, now: float) -> None:
        """A wall clock that moved against the monotonic one was set (TIME-3)."""
        drift = self._member.time_ns() - int(now * 1e9)
        before, self._drift = self._drift, drift
        if before is not None and abs(drift - before) > CLOCK_STEP_NS:
            forward = drift > before
            seconds = abs(drift - before) // 1_000_000_000
            detail = f"{'forward' if forward else 'back'} {seconds} s"
            self.note("time.step", detail=detail)
            self._report.warn("audit", "the wall clock was set", reason=detail)


def marked_spans(levels: Levels) -> tuple[KeySpan, ...] | None:
    """Spans outside of which no Range is recorded; None: there is no such bound."""
    spans: list[KeySpan] = []
    for rule in levels.rules:
        if "kv.range" not in rule.events:
            continue
        if not rule.spans:
            return tuple(spans) if rule.level is Level.NONE else None
        if rule.level is not Level.NONE:
            spans += rule.spans
    return None
