"""A client's side of HTTP/2 for tests: builds frames, reads frames, knows nothing of the server."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


SETTINGS_ACK = frame(SETTINGS, ACK)


def settings(**values: int) -> bytes:
    names = {
        "header_table_size": 1,
        "enable_push": 2,
        "max_concurrent_streams": 3,
        "initial_window_size": 4,
        "max_frame_size": 5,
        "max_header_list_size": 6,
    }
    body = b"".join(struct.pack(">HI", names[name], value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, body)


def window_update(stream: int, by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, by.to_bytes(4, "big"))


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def split(data: bytes) -> list[Frame]:
    """All frames of ``data``, which must end on a frame's end."""
    frames = []
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        kind, flags = data[position + 3], data[position + 4]
        stream = int.from_bytes(data[position + 5 : position + 9], "big")
        stop = position + 9 + length
        assert stop <= len(data), "cut frame"
        frames.append(Frame(kind, flags, stream, data[position + 9 : stop]))
        position = stop
    return frames


def grpc_message(payload: bytes, *, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


class Client:
    """Builds requests with a stateful encoder and decodes the answers."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.decoder = Decoder()

    @staticmethod
    def hello(**values: int) -> bytes:
        return PREFACE + settings(**values)

    def block(
        self,
        path: str = "/test.Echo/Unary",
        extra: tuple[tuple[str, str], ...] = (),
        *,
        method: str = "POST",
        content_type: str | None = "application/grpc",
    ) -> bytes:
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
        ]
        if content_type is not None:
            fields.append(("content-type", content_type))
        return bytes(self.encoder.encode([*fields, *extra]))

    def headers(
        self,
        stream: int,
        path: str = "/test.Echo/Unary",
        extra: tuple[tuple[str, str], ...] = (),
        *,
        end: bool = False,
        method: str = "POST",
        content_type: str | None = "application/grpc",
    ) -> bytes:
        block = self.block(path, extra, method=method, content_type=content_type)
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)

    def call(
        self, stream: int, payload: bytes = b"", path: str = "/test.Echo/Unary", **options: object
    ) -> bytes:
        """A whole unary call."""
        head = self.headers(stream, path, **options)  # type: ignore[arg-type]
        return head + frame(DATA, END_STREAM, stream, grpc_message(payload))

    def fields(self, block: bytes) -> dict[str, str]:
        return dict(self.decoder.decode(block))  # type: ignore[arg-type]

    def answers(self, data: bytes) -> dict[int, Answer]:
        """What the frames of ``data`` say per stream."""
        found: dict[int, Answer] = {}
        for each in split(data):
            if each.stream == 0:
                continue
            answer = found.setdefault(each.stream, Answer())
            if each.kind == HEADERS:
                answer.fields.update(self.fields(each.payload))
                answer.ended |= bool(each.flags & END_STREAM)
            elif each.kind == DATA:
                answer.body += each.payload
                answer.ended |= bool(each.flags & END_STREAM)
            elif each.kind == RST_STREAM:
                answer.reset = int.from_bytes(each.payload, "big")
        return found


class Answer:
    """The answer on one stream."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        found = []
        rest = self.body
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            assert len(rest) >= 5 + size, "cut message"
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found

    @property
    def status(self) -> int:
        return int(self.fields["grpc-status"])
