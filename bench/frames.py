"""The client's half of HTTP/2 and gRPC, as little of it as a load generator needs.

A request is packed by one call from bytes that were made before the run; an answer is recognised
by its frames. No sockets, no clock. What the generator does not skimp on:
  * every answer's ``grpc-status`` is read (header blocks are cached while the table stands still);
  * windows are kept both ways, SETTINGS and PING are acknowledged, GOAWAY and resets are errors.

Not here: sockets and TLS (``link``), when to send what (``load``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final

from hpack import Decoder, Encoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8, 0x9,
)  # fmt: skip
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
WINDOW: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65_535
_TOP_UP: Final = 2**30
_HEAD: Final = struct.Struct(">IBI")  # length and type, flags, stream: nine bytes
_SETTING: Final = struct.Struct(">HI")

Fields = list[tuple[bytes, bytes]]
# (stream, message or b"" if none came, "" or what went wrong)
Answered = Callable[[int, bytes, str], None]
Message = Callable[[int, bytes], None]


class BenchFault(Exception):
    """The server did what no server under measurement may do."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def grpc_message(body: bytes) -> bytes:
    """Length-prefixed, uncompressed."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def request_fields(path: str, authority: str, extra: Fields | None = None) -> Fields:
    """The header fields that gRPC clients send."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"grpc-go/1.44.0"),
        (b"te", b"trailers"),
        *(extra or []),
    ]


class Template:
    """Requests of one method and one size: header block and frame heads are made once."""

    def __init__(self, block: bytes, bodies: Iterable[bytes]) -> None:
        """``bodies`` are protobuf messages; they are used in turn, all of one length."""
        self._messages = [grpc_message(body) for body in bodies]
        size = len(self._messages[0])
        if any(len(each) != size for each in self._messages):
            raise ValueError("bodies of one template must have one length")
        self.window_bytes = size
        self._pack = struct.Struct(f">IBI{len(block)}sIBI{size}s").pack
        self._block = block
        self._block_word = len(block) << 8 | HEADERS
        self._data_word = size << 8 | DATA
        self._next = 0

    def build(self, stream: int) -> bytes:
        """The bytes of one whole request."""
        at = self._next
        self._next = at + 1 if at + 1 < len(self._messages) else 0
        return self._pack(
            self._block_word, END_HEADERS, stream, self._block,
            self._data_word, END_STREAM, stream, self._messages[at],
        )  # fmt: skip


class Blocks:
    """Header blocks as a real client makes them: indexed from the second time on."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    def encode(self, fields: Fields) -> bytes:
        """The block of ``fields``; the first one of its kind must be sent before the next."""
        return bytes(self._encoder.encode(fields))


class Reader:
    """Digests what a server sends on one connection."""

    def __init__(self, answered: Answered, message: Message | None = None) -> None:
        """``answered`` hears of ends, ``message`` of each message of ``open_streams``."""
        self._answered = answered
        self._message = message
        self.open_streams: set[int] = set()  # streams whose messages are wanted one by one
        self.send_window = WINDOW_DEFAULT
        self.settled = False
        self.max_streams = WINDOW
        self.control: list[bytes] = []  # frames to send before anything else
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self._known: dict[bytes, str] = {}
        self._tail = b""
        self._bodies: dict[int, bytes] = {}
        self._received = 0
        self._block: tuple[int, int, bytes] | None = None

    def receive(self, data: bytes) -> None:
        """Walk all frames of one read.

        Raises:
            BenchFault: the connection is over.
        """
        if self._tail:
            data = self._tail + data
        at, end = 0, len(data)
        unpack = _HEAD.unpack_from
        bodies = self._bodies
        while end - at >= 9:
            word, flags, stream = unpack(data, at)
            stop = at + 9 + (word >> 8)
            if stop > end:
                break
            kind = word & 0xFF
            payload = data[at + 9 : stop]
            at = stop
            if kind == DATA:
                self._received += len(payload)
                if stream in self.open_streams:
                    self._stream_data(stream, payload)
                else:
                    held = bodies.get(stream)
                    bodies[stream] = payload if held is None else held + payload
                if flags & END_STREAM:
                    raise BenchFault("an answer without trailers")
            elif kind in (HEADERS, CONTINUATION):
                self._on_block(kind, flags, stream, payload)
            else:
                self._on_other(kind, flags, stream, payload)
        self._tail = data[at:]
        if self._received > _TOP_UP:
            self.control.append(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0

    def _stream_data(self, stream: int, payload: bytes) -> None:
        held = self._bodies.pop(stream, b"") + payload
        while len(held) >= 5:
            stop = 5 + int.from_bytes(held[1:5], "big")
            if len(held) < stop:
                break
            if self._message is not None:
                self._message(stream, held[5:stop])
            held = held[stop:]
        if held:
            self._bodies[stream] = held

    def _on_block(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == CONTINUATION:
            if self._block is None:
                raise BenchFault("continuation of nothing")
            stream, first_flags, head = self._block
            payload = head + payload
            flags |= first_flags & END_STREAM
        if not flags & END_HEADERS:
            self._block = (stream, flags, payload)
            return
        self._block = None
        trouble = self._known.get(payload)
        if trouble is None:
            trouble = self._decode(payload)
        if flags & END_STREAM:
            body = self._bodies.pop(stream, b"")
            self.open_streams.discard(stream)
            self._answered(stream, body[5:], trouble)

    def _decode(self, block: bytes) -> str:
        table = self._decoder.header_table
        before = (len(table.dynamic_entries), table.dynamic_entries and table.dynamic_entries[0])
        fields = dict(self._decoder.decode(block, raw=True))
        after = (len(table.dynamic_entries), table.dynamic_entries and table.dynamic_entries[0])
        trouble = ""
        status = fields.get(b"grpc-status", b"0")
        if status != b"0":
            text = fields.get(b"grpc-message", b"").decode("ascii", "replace")
            trouble = f"status {status.decode()}: {text}"
        elif fields.get(b":status", b"200") != b"200":
            trouble = f"HTTP {fields[b':status'].decode()}"
        if before == after:
            self._known[block] = trouble
        else:
            self._known.clear()
        return trouble

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            if stream == 0:
                self.send_window += int.from_bytes(payload, "big")
        elif kind == SETTINGS:
            if not flags & ACK:
                self._on_settings(payload)
        elif kind == PING:
            if not flags & ACK:
                self.control.append(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            raise BenchFault(
                f"GOAWAY {payload[4:8].hex()} {payload[8:].decode('ascii', 'replace')}"
            )
        elif kind == RST_STREAM:
            self._bodies.pop(stream, None)
            self.open_streams.discard(stream)
            self._answered(stream, b"", f"reset {int.from_bytes(payload, 'big')}")

    def _on_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            name, value = _SETTING.unpack_from(payload, at)
            if name == 3:
                self.max_streams = value
        self.settled = True
        self.control.append(frame(SETTINGS, ACK, 0))


def opening() -> bytes:
    """Preface, our settings (no push, widest stream windows), widest connection window."""
    settings = _SETTING.pack(2, 0) + _SETTING.pack(4, WINDOW)
    grow = (WINDOW - WINDOW_DEFAULT).to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grow)
