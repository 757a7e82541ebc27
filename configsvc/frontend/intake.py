"""What one connection keeps of incomplete requests, and who may send more (LIM-18).

A stream starts with a small window. When a message turns out to need more, its whole size is
reserved and the window is widened by what is missing; while the connection (its identity, the
member) has no room, the stream waits for its window and nothing has to be refused. Only the small
windows together can still exceed the bound, with more than thirty large messages begun at once:
then the youngest goes.
"""

from __future__ import annotations

from configsvc.frontend.admission import Admission, Tally
from configsvc.http2.connection import Connection
from configsvc.http2.protocol import REFUSED_STREAM
from configsvc.http2.stream import Stream
from configsvc.limits import (
    CONNECTION_IN_BYTES_MAX,
    CONNECTION_RESERVED_BYTES_MAX,
)


class Intake:
    """Bytes that are kept or reserved, per stream.

    Always true: ``total`` is the sum over all streams, and part of ``Admission.in_bytes``.
    """

    __slots__ = ("_admission", "_held", "_http2", "_reserved", "_tally", "_waiting", "total")

    def __init__(self, http2: Connection, admission: Admission, tally: Tally) -> None:
        self._http2 = http2
        self._admission = admission
        self._tally = tally
        self._held: dict[int, int] = {}
        self._reserved: dict[int, int] = {}  # size of the message that may come in whole
        self._waiting: dict[int, tuple[Stream, int]] = {}  # and the size that it needs
        self.total = 0

    def hold(self, stream: Stream, count: int, need: int) -> None:
        """A stream keeps ``count`` bytes; what it reads is complete at ``need`` bytes."""
        missing = need - count - stream.receive_window
        if missing <= 0 and self._reserved.get(stream.id) == need:
            return  # on its way, and accounted for
        self._reserved.pop(stream.id, None)
        self._waiting.pop(stream.id, None)
        self._set(stream, count)
        if missing > 0:
            self._waiting[stream.id] = (stream, need)
            self._serve()

    def keep(self, stream: Stream, count: int) -> None:
        """A whole request that cannot be answered yet is kept."""
        self._set(stream, count)

    def release(self, stream: Stream) -> None:
        """Nothing is kept of the stream any more."""
        if self._held:
            self._reserved.pop(stream.id, None)
            self._waiting.pop(stream.id, None)
            self._set(stream, 0)
            if self._waiting:
                self._serve()

    def refuse_youngest(self, now: float) -> Stream | None:
        """Beyond the bounds: reset the newest incomplete request. The caller cleans up after it."""
        if self.total <= CONNECTION_IN_BYTES_MAX and not self._admission.crowded(self._tally):
            return None
        stream = self._http2.streams.get(max(self._held, default=0))
        if stream is not None:
            self._http2.refuse(stream, REFUSED_STREAM, now)
        return stream

    def _set(self, stream: Stream, count: int) -> None:
        change = count - self._held.pop(stream.id, 0)
        if count:
            self._held[stream.id] = count
        self.total += change
        self._admission.hold(self._tally, change)

    def _serve(self) -> None:
        """Widen windows in the order in which they were asked for."""
        while self._waiting:
            stream, need = next(iter(self._waiting.values()))
            extra = need - self._held.get(stream.id, 0)
            # One message is always let in, or nobody would ever get on.
            if self._reserved and (
                sum(self._reserved.values()) + need > CONNECTION_RESERVED_BYTES_MAX
                or self.total + extra > CONNECTION_IN_BYTES_MAX
                or self._admission.crowded(self._tally, extra)
            ):
                return
            del self._waiting[stream.id]
            missing = extra - stream.receive_window
            self._set(stream, need)
            self._reserved[stream.id] = need
            self._http2.widen(stream, missing)
