"""One stream: its state, its windows, and what waits to be sent on it.

The legal moves are a table (RFC 9113, figure 2, as a server that never pushes sees it). Whoever
asks for a move that is not in it has a bug; a peer's frame that does not fit the state is judged
by ``connection`` before.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from configsvc.errors import ensure
from configsvc.http2.request import RequestHead
from configsvc.limits import HTTP2_STREAM_WINDOW_BYTES

IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_REMOTE: Final = 2  # the peer sends no more
HALF_CLOSED_LOCAL: Final = 3  # we send no more
CLOSED: Final = 4

RECEIVE_HEADERS: Final = 0
RECEIVE_END: Final = 1
SEND_END: Final = 2
RESET: Final = 3  # by either side

MOVES: Final[dict[tuple[int, int], int]] = {
    (IDLE, RECEIVE_HEADERS): OPEN,
    (OPEN, RECEIVE_END): HALF_CLOSED_REMOTE,
    (OPEN, SEND_END): HALF_CLOSED_LOCAL,
    (OPEN, RESET): CLOSED,
    (HALF_CLOSED_REMOTE, SEND_END): CLOSED,
    (HALF_CLOSED_REMOTE, RESET): CLOSED,
    (HALF_CLOSED_LOCAL, RECEIVE_END): CLOSED,
    (HALF_CLOSED_LOCAL, RESET): CLOSED,
}


class Stream:
    """A stream that is not idle and not yet closed."""

    __slots__ = (
        "body_bytes",
        "closing",
        "context",
        "head",
        "headers_sent",
        "id",
        "queue",
        "queued",
        "receive_window",
        "send_window",
        "state",
        "wants_room",
    )

    def __init__(self, stream_id: int, head: RequestHead, send_window: int) -> None:
        self.id = stream_id
        self.head = head
        self.state = OPEN
        self.send_window = send_window  # may be negative after a change of settings
        self.receive_window = HTTP2_STREAM_WINDOW_BYTES
        self.body_bytes = 0  # without padding, to be compared with content-length
        self.queue: deque[bytes | memoryview] | None = None  # waits for window or room
        self.queued = 0  # bytes in ``queue``
        self.closing: bytes | None = None  # trailer block to send after ``queue``; b"" none
        self.headers_sent = False
        self.wants_room = False  # tell the consumer when half of the bound is free again
        self.context: Any = None  # the consumer's

    def move(self, event: int) -> None:
        """The only writer of ``state`` outside of the hot path."""
        after = MOVES.get((self.state, event))
        ensure(after is not None, "stream may not move that way")
        self.state = after or CLOSED
