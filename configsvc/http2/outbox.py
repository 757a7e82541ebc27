"""What goes out on one connection: framing, both send windows, and who waits for them.

Three bounds stop DATA: the stream's window, the connection's window, and ``room``, the bytes that
may be framed before the next socket write. What does not fit waits unframed in its stream, and
streams that could go on take turns, one frame each. HEADERS, trailers and control frames need no
window.

Always true: a stream is in ``ready`` exactly if it has queued bytes and a window above zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import Final

from configsvc.errors import ensure
from configsvc.http2.floods import FrameBudget, PingPolicy
from configsvc.http2.headers import SIZE_UPDATE_TO_ZERO
from configsvc.http2.protocol import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADER_TABLE_BYTES_DEFAULT,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    WINDOW_DEFAULT,
    frame,
)
from configsvc.http2.stream import CLOSED, HALF_CLOSED_LOCAL, OPEN, RESET, SEND_END, Stream
from configsvc.limits import (
    HTTP2_FRAME_BYTES_MAX,
    HTTP2_RESETS_REMEMBERED_MAX,
    OUTPUT_PASS_BYTES_MAX,
    STREAM_OUT_BYTES_SOFT,
)

_CODE: Final = Struct(">I")
_CREDIT_SHIFT: Final = 10  # one more WINDOW_UPDATE is earned per KiB sent


def take(queue: deque[bytes | memoryview], limit: int) -> tuple[list[bytes | memoryview], int]:
    """Up to ``limit`` bytes off a queue's front, and how many; the last part may be cut in two."""
    parts: list[bytes | memoryview] = []
    left = limit
    while queue and left:
        part = queue.popleft()
        if len(part) > left:
            view = memoryview(part)
            queue.appendleft(view[left:])
            part = view[:left]
        parts.append(part)
        left -= len(part)
    return parts, limit - left


class Outbox:
    """The sending half of a connection. Attributes are read and written by ``grpc``'s hot path."""

    __slots__ = (
        "_paused",
        "_table_shrunk",
        "budget",
        "drained",
        "frames",
        "held",
        "initial_window",
        "pings",
        "ready",
        "reset_by_us",
        "room",
        "size_update_due",
        "streams",
        "window",
    )

    def __init__(self, budget: FrameBudget, pings: PingPolicy) -> None:
        self.budget = budget
        self.pings = pings
        self.streams: dict[int, Stream] = {}
        self.frames: list[bytes | memoryview] = []
        self.window = WINDOW_DEFAULT
        self.initial_window = WINDOW_DEFAULT
        self.room = OUTPUT_PASS_BYTES_MAX
        self.held = 0  # bytes queued in streams
        self.ready: dict[int, Stream] = {}
        self.drained: list[Stream] = []  # streams that wanted room and have it again
        self.reset_by_us: dict[int, None] = {}  # late frames for these are forgiven; bounded
        self.size_update_due = False  # the peer shrank the table: say once that ours is empty
        self._paused = False
        self._table_shrunk = False

    # --- what consumers call ------------------------------------------------------------------

    def headers(self, stream: Stream, block: bytes, *, end: bool = False) -> None:
        """Send a response's header block; ``end`` when no body and no trailers follow."""
        ensure(len(block) < HTTP2_FRAME_BYTES_MAX, "header block of ours fits one frame")
        ensure(not stream.headers_sent, "headers are sent once")
        stream.headers_sent = True
        if end:
            self._end(stream, block)
        else:
            self._header_frame(stream.id, END_HEADERS, block)

    def data(self, stream: Stream, payload: bytes, prefix: bytes = b"") -> None:
        """Send or queue ``prefix + payload``; afterwards ``stream.queued`` says what waits."""
        size = len(prefix) + len(payload)
        self.budget.credit += 2 + (size >> _CREDIT_SHIFT)
        if (
            stream.queue is None
            and size <= self.room
            and size <= self.window
            and size <= stream.send_window
            and size <= HTTP2_FRAME_BYTES_MAX
        ):
            self.room -= size
            self.window -= size
            stream.send_window -= size
            self.pings.cleared = True
            self.frames.append(FRAME_HEADER.pack(size << 8 | DATA, 0, stream.id) + prefix)
            self.frames.append(payload)
            return
        if size == 0:
            return
        self._queue(stream, [part for part in (prefix, payload) if part], size)

    def data_parts(self, stream: Stream, parts: Sequence[bytes], size: int) -> None:
        """Likewise, ``size`` bytes in many parts, which are never joined."""
        self.budget.credit += 2 + (size >> _CREDIT_SHIFT)
        self._queue(stream, [part for part in parts if part], size)

    def _queue(self, stream: Stream, parts: list[bytes], size: int) -> None:
        if stream.queue is None:
            stream.queue = deque(parts)
        else:
            stream.queue.extend(parts)
        stream.queued += size
        self.held += size
        if stream.send_window > 0:
            self.ready[stream.id] = stream
            self.pump()

    def end(self, stream: Stream, trailers: bytes = b"") -> None:
        """End the stream after what is queued, with a block of trailers or without."""
        ensure(stream.headers_sent, "a response starts with headers")
        if stream.queue is not None:
            stream.closing = trailers
        else:
            self._end(stream, trailers)

    def reset(self, stream: Stream, code: int) -> None:
        """End the stream at once; what is queued is dropped. Callers charge the budget."""
        self.forget(stream)
        self.reset_id(stream.id, code)

    def reset_id(self, stream_id: int, code: int) -> None:
        """RST_STREAM for a stream that may not even have come into being."""
        self.frames.append(frame(RST_STREAM, 0, stream_id, _CODE.pack(code)))
        self.reset_by_us[stream_id] = None
        if len(self.reset_by_us) > HTTP2_RESETS_REMEMBERED_MAX:
            del self.reset_by_us[next(iter(self.reset_by_us))]

    def drop_queue(self, stream: Stream) -> None:
        """Give up what waits on a stream; the caller ends it."""
        self.ready.pop(stream.id, None)
        self.held -= stream.queued
        stream.queue = None
        stream.queued = 0

    def take(self) -> bytes:
        """Everything to be written now; b"" when there is nothing."""
        frames = self.frames
        if not frames:
            return b""
        data = b"".join(frames)
        frames.clear()
        if not self._paused:
            self.room = OUTPUT_PASS_BYTES_MAX
            if self.ready:
                self.pump()
        return data

    def pause(self) -> None:
        """The socket takes no more: queue what is data until ``resume``."""
        self._paused = True
        self.room = 0

    def resume(self) -> None:
        """The socket takes bytes again."""
        self._paused = False
        self.room = OUTPUT_PASS_BYTES_MAX
        self.pump()

    # --- what the connection calls --------------------------------------------------------------

    def forget(self, stream: Stream) -> None:
        """A stream is gone: reset by either side."""
        stream.move(RESET)
        self.streams.pop(stream.id, None)
        self.drop_queue(stream)
        stream.closing = None
        stream.wants_room = False

    def shrink_table(self, size: int) -> None:
        """The peer's HEADER_TABLE_SIZE: a smaller table is acknowledged in our next block.

        We never put anything into it, so going down to nothing once is the end of the matter.
        """
        if size < HEADER_TABLE_BYTES_DEFAULT and not self._table_shrunk:
            self._table_shrunk = True
            self.size_update_due = True

    def widen(self, stream: Stream, by: int) -> None:
        """The peer changed the stream's window; ``by`` may be negative."""
        stream.send_window += by
        if stream.queue is not None:
            if stream.send_window > 0:
                self.ready[stream.id] = stream
            else:
                self.ready.pop(stream.id, None)

    def pump(self) -> None:
        """Frame what windows and room allow, one frame per stream and turn."""
        ready = self.ready
        while ready and self.room > 0 and self.window > 0:
            for stream in list(ready.values()):
                limit = min(self.room, self.window, stream.send_window, HTTP2_FRAME_BYTES_MAX)
                if limit <= 0:
                    return
                self._one_frame(stream, limit)

    # --- inside -----------------------------------------------------------------------------

    def _one_frame(self, stream: Stream, limit: int) -> None:
        queue = stream.queue
        if queue is None:  # cannot be: it is in ``ready``
            return
        parts, size = take(queue, limit)
        self.room -= size
        self.window -= size
        self.held -= size
        stream.send_window -= size
        stream.queued -= size
        self.pings.cleared = True
        self.frames.append(FRAME_HEADER.pack(size << 8 | DATA, 0, stream.id))
        self.frames.extend(parts)
        if not queue:
            stream.queue = None
            del self.ready[stream.id]
            if stream.closing is not None:
                self._end(stream, stream.closing)
        elif stream.send_window <= 0:
            del self.ready[stream.id]
        if stream.wants_room and stream.queued <= STREAM_OUT_BYTES_SOFT // 2:
            stream.wants_room = False
            self.drained.append(stream)

    def _end(self, stream: Stream, block: bytes) -> None:
        if block:
            self._header_frame(stream.id, END_HEADERS | END_STREAM, block)
        else:
            self.frames.append(frame(DATA, END_STREAM, stream.id, b""))
            self.pings.cleared = True
        was_open = stream.state == OPEN
        stream.move(SEND_END)
        del self.streams[stream.id]
        if was_open:
            # The answer is complete and the request is not: ask for no more of it (8.1).
            ensure(stream.state == HALF_CLOSED_LOCAL, "ended an open stream")
            self.reset_id(stream.id, NO_ERROR)
            stream.state = CLOSED

    def _header_frame(self, stream_id: int, flags: int, block: bytes) -> None:
        if self.size_update_due:
            self.size_update_due = False
            block = SIZE_UPDATE_TO_ZERO + block
        self.pings.cleared = True
        self.frames.append(frame(HEADERS, flags, stream_id, block))
