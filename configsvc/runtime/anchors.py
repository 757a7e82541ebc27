"""Brings the head of the member-local stream into stream M (AUD-6).

A flood of refusals costs few log entries that way, and yet none can vanish unnoticed: whoever
compares the stream with its anchors sees what is gone. Without new records nothing is proposed.
A head that M holds and this member does not is told, recorded, and makes the member look bad.

Not here: when an anchor is due (``audit.local``), what a refused anchor means (``apply.cluster``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from configsvc.apply.commands import Effects, Refused
from configsvc.audit.local import LocalStream
from configsvc.audit.record import Resource
from configsvc.codec import command as codec
from configsvc.codec.publishing import anchor_op
from configsvc.errors import ConfigServiceError
from configsvc.limits import ANCHOR_RETRY_S

if TYPE_CHECKING:
    from configsvc.runtime.member import Member


class Note(Protocol):
    def __call__(self, event: str, *, detail: str, resource: Resource) -> None:
        """Record something in the stream."""


def local_origin(member: Member, mark: str) -> str:
    """Name of a member's stream; ``mark`` tells a file that was made anew from the one before."""
    insecure = "insecure/" if member.config.insecure_dev else ""
    cluster = f"{member.trust_domain}/{member.cluster_id:016x}"
    return f"{insecure}{cluster}/local/{member.self_id:016x}/{mark}"


class Anchors:
    """The anchors of one member; ``tick`` moves them on."""

    def __init__(self, member: Member, stream: LocalStream, origin: str, note: Note) -> None:
        self._member = member
        self._stream = stream
        self._origin = origin
        self._note = note
        self._candidate: tuple[int, bytes] | None = None  # a head that waits for the disk
        self._next_try = 0.0
        self._under_way = False
        self._compared = False
        self.problem = ""

    def tick(self, now: float, durable: int) -> None:
        """Take the head when it is due, propose it when all of it is on disk.

        Args:
            now: Seconds, monotonic.
            durable: Leaves on disk.
        """
        member, stream = self._member, self._stream
        if self._under_way or now < self._next_try or not member.ready:
            return
        known = member.state.anchors.get(member.self_id)
        if not self._compared:
            self._compared = True
            self._compare(known)
        if known is not None and known[0] == self._origin and known[1] > stream.anchored_size:
            stream.anchored(known[1], member.time_ns())  # of an earlier run
        if self._candidate is None and stream.anchor_due(member.time_ns()):
            self._candidate = (stream.size, stream.root())
        if self._candidate is not None and durable >= self._candidate[0]:
            self._propose(*self._candidate, now)

    def _compare(self, known: tuple[str, int, bytes] | None) -> None:
        """What stream M remembers of this stream must be here."""
        if known is None:
            return
        origin, size, root = known
        if origin != self._origin:
            problem = "local audit log begun anew"
            self._member.report.error("audit", problem, origin=origin, anchored=size)
            self._note("internal", detail=problem, resource=Resource(object=origin, size=size))
        elif size > self._stream.size or (
            size == self._stream.size and root != self._stream.root()
        ):
            self.problem = "local audit log went back"
            held = self._stream.size
            self._member.report.error("audit", self.problem, held=held, anchored=size)
            self._note("internal", detail=self.problem, resource=Resource(size=size))

    def _propose(self, size: int, root: bytes, now: float) -> None:
        member = self._member
        self._under_way = True
        self._next_try = now + ANCHOR_RETRY_S

        def done(result: bytes | ConfigServiceError) -> None:
            self._under_way = False
            self._candidate = None
            if not isinstance(result, ConfigServiceError):
                self._stream.anchored(size, member.time_ns())
                self._next_try = 0.0

        try:
            member.proposals.submit(
                codec.SYSTEM_ACTOR,
                codec.OP_AUDIT_ANCHOR,
                anchor_op(member.self_id, self._origin, size, root),
                applied,
                urgent=True,
            ).bind(done)
        except ConfigServiceError as error:
            done(error)


def applied(effects: Effects) -> bytes | ConfigServiceError:
    """Answer of an entry of the member's own: empty, or the refusal."""
    result = effects.result
    return result.error if isinstance(result, Refused) else b""
