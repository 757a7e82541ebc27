"""Rules of stream L: what one member saw that does not pass the log (AUD-5, AUD-6, LIM-9).

Denied requests, failed logins, audited reads, exports, start and stop. The same leaves and tree as
stream M, under an origin of its own, kept by the member; its head is anchored into stream M, so
that records cannot vanish unnoticed.

A flood of equal refusals must not fill the disk: beyond ``REPEATS_SINGLE_MAX`` in a minute they are
only counted, and one record with the count closes the minute. Nothing is dropped: when too many
kinds of refusal are counted at once, each refusal gets its own record again.

Not here: writing and syncing (``storage``), when to look at the clock (``runtime``).
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc.audit.actors import KnownActors
from configsvc.audit.merkle import Frontier
from configsvc.audit.record import NOTHING, CommitValues, Position, Recorder, Resource
from configsvc.limits import (
    ANCHOR_INTERVAL_NS,
    ANCHOR_RECORDS,
    REPEAT_KINDS_MAX,
    REPEAT_WINDOW_NS,
    REPEATS_SINGLE_MAX,
)
from configsvc.types import Principal, Source


class Occurrence(NamedTuple):
    """Something to be recorded. ``salt``: 32 random bytes; ``time_ns``: this member's clock."""

    event: str
    principal: Principal
    source: Source
    time_ns: int
    salt: bytes
    code: str = "OK"
    rule: str = ""
    detail: str = ""
    resource: Resource = NOTHING
    request_id: int = 0
    reason: str = ""
    ticket: str = ""


class _Stamp(NamedTuple):
    """An occurrence as ``Recorder`` wants it."""

    request_id: int
    principal: Principal
    source: Source
    reason: str
    ticket: str
    salt: bytes
    time_ns: int
    time_suspect: bool
    accepted_by: int


class _Repeats:
    """Equal refusals of the running minute; ``last`` is the newest one that has no record."""

    __slots__ = ("count", "last", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.count = 0
        self.last: Occurrence | None = None


class LocalStream:
    """One member's stream: its tree, its actors, what is being counted, what is not anchored."""

    def __init__(
        self,
        member: int,
        anchored: int = 0,
        frontier: Frontier | None = None,
        actors: KnownActors | None = None,
    ) -> None:
        """``anchored``: size of this stream that stream M already holds an anchor of."""
        self._member = member
        self._recorder = Recorder(frontier, actors)
        self._repeats: dict[tuple[object, ...], _Repeats] = {}
        self._last_ns = 0
        self._anchored = anchored
        self._first_new_ns = 0  # of the oldest record without anchor; 0: from before this start

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._recorder.frontier.size

    @property
    def anchored_size(self) -> int:
        """Leaves that stream M holds an anchor of."""
        return self._anchored

    def root(self) -> bytes:
        """Root of the tree."""
        return self._recorder.frontier.root()

    def note(self, seen: Occurrence, position: Position) -> tuple[bytes, CommitValues] | None:
        """The record of ``seen``, to be made durable before its request is answered (FC-2).

        None: a repeated refusal that is counted; ``flush`` will tell.

        Args:
            seen: what happened.
            position: revision and versions it was judged by; index and term 0.
        """
        if seen.code == "OK":
            return self._write(seen, position)
        kind = (seen.event, seen.principal, seen.source, seen.code, seen.detail, seen.resource)
        repeats = self._repeats.get(kind)
        if repeats is None:
            if len(self._repeats) >= REPEAT_KINDS_MAX:
                return self._write(seen, position)
            repeats = self._repeats[kind] = _Repeats(seen.time_ns)
        repeats.count += 1
        if repeats.count <= REPEATS_SINGLE_MAX:
            return self._write(seen, position)
        repeats.last = seen
        return None

    def flush(
        self, now_ns: int, position: Position, *, everything: bool = False
    ) -> list[tuple[bytes, CommitValues]]:
        """Close the minutes that are over; ``everything``: all of them, before stopping.

        Call it at least once a second while something is counted.
        """
        made = []
        for kind, repeats in list(self._repeats.items()):
            if not everything and now_ns - repeats.since_ns < REPEAT_WINDOW_NS:
                continue
            del self._repeats[kind]
            if repeats.last is not None:
                uncounted = repeats.count - REPEATS_SINGLE_MAX
                resource = repeats.last.resource._replace(repeated=uncounted)
                made.append(self._write(repeats.last._replace(resource=resource), position))
        return made

    def anchor_due(self, now_ns: int) -> bool:
        """Whether the head should go into stream M now; never without new records (AUD-6)."""
        new = self.size - self._anchored
        return new >= ANCHOR_RECORDS or (
            new > 0 and now_ns - self._first_new_ns >= ANCHOR_INTERVAL_NS
        )

    def anchored(self, size: int, now_ns: int) -> None:
        """The head of ``size`` leaves stands in stream M; later leaves wait from ``now_ns`` on."""
        self._anchored = max(self._anchored, size)
        self._first_new_ns = now_ns

    def _write(self, seen: Occurrence, position: Position) -> tuple[bytes, CommitValues]:
        # A member's clock may step back; its records keep their order (TIME-1, TIME-2).
        self._last_ns = max(self._last_ns, seen.time_ns)
        if self.size == self._anchored:
            self._first_new_ns = self._last_ns
        stamp = _Stamp(
            seen.request_id,
            seen.principal,
            seen.source,
            seen.reason,
            seen.ticket,
            seen.salt,
            self._last_ns,
            False,
            self._member,
        )
        return self._recorder.record(
            stamp,
            position,
            seen.event,
            code=seen.code,
            rule=seen.rule,
            detail=seen.detail,
            resource=seen.resource,
        )
