"""gRPC over HTTP/2: messages in DATA, metadata in headers, statuses in trailers.

Nothing is ever inflated: a message with the compressed flag is refused, and so is one whose
length prefix is above the bound, before a byte of it is kept (LIM-7).

Not here: which status one of our errors means (``api.status``), handlers (``frontend``).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from configsvc.errors import OverloadedError
from configsvc.http2.headers import field_block, response_block
from configsvc.http2.outbox import Outbox
from configsvc.http2.protocol import DATA, END_HEADERS, END_STREAM, HEADERS
from configsvc.http2.request import Field, RequestHead
from configsvc.http2.stream import CLOSED, HALF_CLOSED_REMOTE, Stream
from configsvc.limits import (
    GRPC_MESSAGE_CHARS_MAX,
    GRPC_TIMEOUT_DIGITS_MAX,
    HTTP2_FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    OVERLOAD_PAUSE_S,
)

# Status codes that framing itself gives
OK: Final = 0
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13

PREFIX_BYTES: Final = 5
_PREFIX: Final = Struct(">BI")  # compressed flag, length
_DATA_HEAD: Final = Struct(">IBIBI")  # a DATA frame's header and the prefix

# Only for load: what is too large, or over its quota, is not better a second later.
_PUSHBACK: Final = (b"grpc-retry-pushback-ms", b"%d" % (1_000 * OVERLOAD_PAUSE_S))
_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_OPENING: Final = response_block(200, [_CONTENT_TYPE])
_OK_TRAILERS: Final = field_block([(b"grpc-status", b"0")])
# Header frame, then the DATA frame's header, then the message's prefix: one pack per answer.
_OPENING_AND_DATA: Final = Struct(f">IBI{len(_OPENING)}sIBIBI")
_TRAILER_FRAME: Final = Struct(f">IBI{len(_OK_TRAILERS)}s")
_OPENING_WORD: Final = len(_OPENING) << 8 | HEADERS
_TRAILER_WORD: Final = len(_OK_TRAILERS) << 8 | HEADERS
_TRAILER_FLAGS: Final = END_HEADERS | END_STREAM

_TIMEOUT: Final = re.compile(rb"([0-9]{1,%d})([HMSmun])" % GRPC_TIMEOUT_DIGITS_MAX)
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}
_NOT_METADATA: Final = frozenset((b"content-type", b"content-length", b"te", b"host"))


class GrpcFault(Exception):
    """A call that breaks gRPC's rules; the text is a constant of ours."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class GrpcHead(NamedTuple):
    """What a call's header fields say."""

    timeout: float | None  # seconds; None without one
    metadata: tuple[Field, ...]  # in order, names lower-case, ``-bin`` values decoded


def grpc_head(head: RequestHead) -> GrpcHead:
    """Read timeout and metadata.

    Raises:
        GrpcFault: INVALID_ARGUMENT for a timeout or binary value that cannot be read.
    """
    timeout = None
    metadata: list[Field] = []
    for name, value in head.fields:
        if name == b"grpc-timeout":
            timeout = _seconds(value)
        elif name.endswith(b"-bin"):
            metadata.extend((name, _binary(part)) for part in value.split(b","))
        elif name not in _NOT_METADATA and not name.startswith(b"grpc-"):
            metadata.append((name, value))
    return GrpcHead(timeout, tuple(metadata))


def _seconds(value: bytes) -> float:
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise GrpcFault(INVALID_ARGUMENT, "malformed grpc-timeout")
    return int(found[1]) * _UNIT_S[found[2]]


def _binary(value: bytes) -> bytes:
    value = value.strip(b" \t")
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error:
        raise GrpcFault(INVALID_ARGUMENT, "malformed binary metadata") from None


class MessageReader:
    """Puts the messages of one stream together, however DATA frames cut them."""

    __slots__ = ("_parts", "held", "need")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.need = PREFIX_BYTES  # bytes from the start of ``_parts`` that complete something
        self.held = 0  # bytes of the incomplete message, prefix included

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that ``chunk`` completes, in order.

        Raises:
            GrpcFault: compressed, or longer than allowed; nothing of it is kept.
        """
        data = chunk
        if self.held:
            self._parts.append(chunk)
            self.held += len(chunk)
            if self.held < self.need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self.held = 0
        messages: list[bytes] = []
        position, end = 0, len(data)
        while True:
            left = end - position
            if left < PREFIX_BYTES:
                self.need = PREFIX_BYTES
                break
            compressed, size = _PREFIX.unpack_from(data, position)
            check_prefix(compressed, size)
            if left - PREFIX_BYTES < size:
                self.need = PREFIX_BYTES + size
                break
            start = position + PREFIX_BYTES
            position = start + size
            messages.append(data[start:position])
        if left:
            self._parts.append(data[position:])
            self.held = left
        return messages


def check_prefix(compressed: int, size: int) -> None:
    """Judge a message by its prefix.

    Raises:
        GrpcFault: the message is not wanted.
    """
    if compressed:
        raise GrpcFault(UNIMPLEMENTED, "compression is not supported")
    if size > MESSAGE_BYTES_MAX:
        text = f"grpc: received message larger than max ({size} vs. {MESSAGE_BYTES_MAX})"
        raise GrpcFault(RESOURCE_EXHAUSTED, text)


def only_message(body: bytes) -> bytes | None:
    """The message, if ``body`` is exactly one whole message; None sends it to a reader."""
    size = len(body) - PREFIX_BYTES
    if size < 0 or body[0] or int.from_bytes(body[1:5], "big") != size or size > MESSAGE_BYTES_MAX:
        return None
    return body[PREFIX_BYTES:]


# --- answers -------------------------------------------------------------------------------------


def answer(outbox: Outbox, stream: Stream, message: bytes) -> None:
    """A unary answer: headers, one message, status OK."""
    length = len(message)
    size = length + PREFIX_BYTES
    if (
        size <= outbox.room
        and size <= outbox.window
        and size <= stream.send_window
        and size <= HTTP2_FRAME_BYTES_MAX
        and stream.state == HALF_CLOSED_REMOTE
        and not outbox.size_update_due
    ):
        stream_id = stream.id
        outbox.frames += (
            _OPENING_AND_DATA.pack(
                _OPENING_WORD,
                END_HEADERS,
                stream_id,
                _OPENING,
                size << 8 | DATA,
                0,
                stream_id,
                0,
                length,
            ),
            message,
            _TRAILER_FRAME.pack(_TRAILER_WORD, _TRAILER_FLAGS, stream_id, _OK_TRAILERS),
        )
        outbox.room -= size
        outbox.window -= size
        outbox.budget.credit += 2 + (size >> 10)
        outbox.pings.cleared = True
        stream.state = CLOSED  # HALF_CLOSED_REMOTE and our end: as in stream.MOVES
        del outbox.streams[stream_id]
        return
    send_message(outbox, stream, message)
    outbox.end(stream, _OK_TRAILERS)


def answer_pieces(outbox: Outbox, stream: Stream, parts: Sequence[bytes], length: int) -> None:
    """``answer`` with one message of ``length`` bytes that nobody put together."""
    open_response(outbox, stream)
    outbox.data_parts(stream, (_PREFIX.pack(0, length), *parts), PREFIX_BYTES + length)
    outbox.end(stream, _OK_TRAILERS)


def send_message(outbox: Outbox, stream: Stream, message: bytes) -> None:
    """One message of a streaming answer; headers first if they are still due."""
    length = len(message)
    size = length + PREFIX_BYTES
    if (
        stream.headers_sent
        and stream.queue is None
        and size <= outbox.room
        and size <= outbox.window
        and size <= stream.send_window
        and size <= HTTP2_FRAME_BYTES_MAX
    ):
        # As ``Outbox.data`` does it, with one head for frame and message.
        outbox.frames += (_DATA_HEAD.pack(size << 8 | DATA, 0, stream.id, 0, length), message)
        outbox.room -= size
        outbox.window -= size
        stream.send_window -= size
        outbox.budget.credit += 2 + (size >> 10)
        outbox.pings.cleared = True
        return
    open_response(outbox, stream)
    outbox.data(stream, message, _PREFIX.pack(0, length))


def open_response(outbox: Outbox, stream: Stream) -> None:
    """Send the headers of an answer unless they are sent."""
    if not stream.headers_sent:
        outbox.headers(stream, _OPENING)


def finish(outbox: Outbox, stream: Stream, code: int, text: str = "") -> None:
    """End a call with a status; trailers only when nothing was sent before."""
    trailers = [(b"grpc-status", b"%d" % code)]
    if text:
        trailers.append((b"grpc-message", percent_encoded(text)))
    if text == OverloadedError.text:
        trailers.append(_PUSHBACK)
    if code == UNIMPLEMENTED:
        trailers.append((b"grpc-accept-encoding", b"identity"))
    if stream.headers_sent:
        outbox.end(stream, field_block(trailers))
    elif code == OK:
        open_response(outbox, stream)
        outbox.end(stream, field_block(trailers))
    else:
        outbox.headers(stream, response_block(200, [_CONTENT_TYPE, *trailers]), end=True)


def percent_encoded(text: str) -> bytes:
    """``grpc-message``: printable ASCII but for ``%``, the rest of UTF-8 as ``%XX``."""
    raw = text[:GRPC_MESSAGE_CHARS_MAX].encode("utf-8", "replace")
    if _PLAIN.issuperset(raw):
        return raw
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in raw)
