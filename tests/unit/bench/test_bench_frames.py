"""The generator's half of HTTP/2 against our own server half, whole and byte by byte."""

from __future__ import annotations

import struct

import pytest
from hpack import Encoder

from bench import frames
from bench.frames import BenchFault, Blocks, Reader, Template
from configsvc.http2 import grpc
from configsvc.http2.connection import DATA_END, HEAD, Connection

PATH = "/etcdserverpb.KV/Put"


class Heard:
    def __init__(self) -> None:
        self.ends: list[tuple[int, bytes, str]] = []
        self.messages: list[tuple[int, bytes]] = []
        self.reader = Reader(
            lambda *end: self.ends.append(end), lambda *one: self.messages.append(one)
        )


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return struct.pack(">IBI", length << 8 | kind, flags, stream)


def requests(count: int, body: bytes = b"body") -> bytes:
    blocks = Blocks()
    fields = frames.request_fields(PATH, "localhost:1")
    first = Template(blocks.encode(fields), [body])
    rest = Template(blocks.encode(fields), [body])
    out = frames.opening() + first.build(1)
    return out + b"".join(rest.build(2 * n + 3) for n in range(count - 1))


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_our_server_understands_every_request(step: int) -> None:
    server = Connection(0.0)
    data = requests(5)
    events = []
    for at in range(0, len(data), step):
        events += server.receive(data[at : at + step], 0.0)
    assert server.fault is None
    heads = [stream for kind, stream, _ in events if kind == HEAD]
    assert [stream.id for stream in heads] == [1, 3, 5, 7, 9]
    assert {stream.head.path for stream in heads} == {PATH.encode()}
    bodies: dict[int, bytes] = {}
    for kind, stream, chunk in events:
        if kind != HEAD:
            bodies[stream.id] = bodies.get(stream.id, b"") + chunk
    assert set(bodies.values()) == {frames.grpc_message(b"body")}
    assert sum(kind == DATA_END for kind, _, _ in events) == 5


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_answers_of_our_server_are_read(step: int) -> None:
    server, heard = Connection(0.0), Heard()
    for kind, stream, _ in server.receive(requests(3), 0.0):
        if kind == DATA_END:
            if stream.id == 3:
                grpc.finish(server.outbox, stream, 7, "permission denied")
            else:
                grpc.answer(server.outbox, stream, b"answer %d" % stream.id)
    data = server.outbox.take()
    for at in range(0, len(data), step):
        heard.reader.receive(data[at : at + step])
    assert sorted(heard.ends) == [
        (1, b"answer 1", ""),
        (3, b"", "status 7: permission denied"),
        (5, b"answer 5", ""),
    ]
    assert heard.reader.settled
    assert head(0, frames.SETTINGS, frames.ACK, 0) in heard.reader.control


def test_a_status_is_read_anew_when_the_header_table_changed() -> None:
    """The same bytes mean another status after the table has moved: a stale cache would lie."""
    heard, encoder = Heard(), Encoder()
    heard.reader.open_streams.clear()

    def trailers(stream: int, status: bytes) -> bytes:
        block = encoder.encode([(b"grpc-status", status)])
        return head(len(block), frames.HEADERS, 5, stream) + block

    first = [trailers(n, b"0") for n in (1, 3, 5)]
    assert first[1][9:] == first[2][9:]  # indexed by now
    second = [trailers(n, b"9") for n in (7, 9)]
    assert second[1][9:] == first[1][9:]  # the newest entry of the table has that index
    for each in first + second:
        heard.reader.receive(each)
    assert [trouble for _, _, trouble in heard.ends] == ["", "", "", "status 9: ", "status 9: "]


def test_messages_of_an_open_stream_come_one_by_one_over_any_split() -> None:
    heard = Heard()
    heard.reader.open_streams.add(1)
    body = frames.grpc_message(b"one") + frames.grpc_message(b"") + frames.grpc_message(b"three")
    for at in range(0, len(body), 4):
        chunk = body[at : at + 4]
        heard.reader.receive(head(len(chunk), frames.DATA, 0, 1) + chunk)
    assert heard.messages == [(1, b"one"), (1, b""), (1, b"three")]


def test_windows_grow_by_what_the_peer_gives() -> None:
    heard = Heard()
    heard.reader.receive(head(4, frames.WINDOW_UPDATE, 0, 0) + struct.pack(">I", 1_000))
    assert heard.reader.send_window == frames.WINDOW_DEFAULT + 1_000


def test_ping_is_answered_once() -> None:
    heard = Heard()
    heard.reader.receive(head(8, frames.PING, 0, 0) + b"12345678")
    heard.reader.receive(head(8, frames.PING, frames.ACK, 0) + b"12345678")
    assert heard.reader.control == [head(8, frames.PING, frames.ACK, 0) + b"12345678"]


@pytest.mark.parametrize("data", [
    pytest.param(head(8, frames.GOAWAY, 0, 0) + bytes(7) + b"\x0b", id="goaway"),
    pytest.param(head(0, frames.DATA, frames.END_STREAM, 1), id="no-trailers"),
    pytest.param(head(0, frames.CONTINUATION, frames.END_HEADERS, 1), id="continuation"),
])  # fmt: skip
def test_a_broken_server_is_a_fault(data: bytes) -> None:
    with pytest.raises(BenchFault):
        Heard().reader.receive(data)


def test_a_reset_ends_a_stream_with_trouble() -> None:
    heard = Heard()
    heard.reader.receive(head(4, frames.RST_STREAM, 0, 3) + struct.pack(">I", 7))
    assert heard.ends == [(3, b"", "reset 7")]


def test_bodies_of_one_template_have_one_length_and_come_in_turn() -> None:
    with pytest.raises(ValueError, match="one length"):
        Template(b"", [b"a", b"bb"])
    template = Template(b"", [b"a", b"b"])
    assert [template.build(1)[-1:] for _ in range(3)] == [b"a", b"b", b"a"]
