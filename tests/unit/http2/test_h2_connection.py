"""Every rule of the receiving half: each case whole, byte by byte, and with a tail."""

from __future__ import annotations

import pytest

from configsvc.http2.connection import DATA, DATA_END, HEAD, RESET, Connection
from configsvc.http2.protocol import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
)
from configsvc.limits import HTTP2_RESETS_REMEMBERED_MAX
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame

NOW = 100.0


def connected(**options: int) -> Connection:
    connection = Connection(NOW, **options)
    connection.receive(Client.hello(), NOW)
    connection.outbox.take()
    return connection


def feed(connection: Connection, data: bytes, step: int) -> list[tuple[int, int, bytes]]:
    """Feed ``data`` in pieces of ``step`` bytes (0: whole); events with stream ids."""
    events = []
    for start in range(0, len(data), step or len(data)):
        piece = data[start : start + step] if step else data
        events += connection.receive(piece, NOW)
    return [(kind, stream.id, chunk) for kind, stream, chunk in events]


def head(stream: int = 1, *, end: bool = False) -> bytes:
    return Client().headers(stream, end=end)


def raw_block(*fields: tuple[bytes, bytes]) -> bytes:
    """Literals without indexing, no Huffman: says anything, right or wrong."""
    return b"".join(
        b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields
    )


PSEUDO = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"))


def literal(*extra: tuple[bytes, bytes]) -> bytes:
    return frame(h2.HEADERS, h2.END_HEADERS, 1, raw_block(*PSEUDO, *extra))


def block_of(*fields: tuple[bytes, bytes]) -> bytes:
    return frame(h2.HEADERS, h2.END_HEADERS, 1, raw_block(*fields))


CONNECTION_FAULTS = [
    pytest.param(frame(h2.DATA, 0, 0, b"x"), PROTOCOL_ERROR, id="data-without-stream"),
    pytest.param(frame(h2.DATA, 0, 5, b"x"), PROTOCOL_ERROR, id="data-on-idle"),
    pytest.param(frame(h2.HEADERS, 4, 0, b""), PROTOCOL_ERROR, id="headers-without-stream"),
    pytest.param(frame(h2.HEADERS, 4, 2, b""), PROTOCOL_ERROR, id="headers-on-even-stream"),
    pytest.param(frame(h2.PRIORITY, 0, 0, b"\0" * 5), PROTOCOL_ERROR, id="priority-stream-0"),
    pytest.param(frame(h2.PRIORITY, 0, 1, b"\0" * 4), FRAME_SIZE_ERROR, id="priority-size"),
    pytest.param(
        frame(h2.PRIORITY, 0, 1, b"\0\0\0\1\x10"), PROTOCOL_ERROR, id="priority-of-itself"
    ),
    pytest.param(frame(h2.RST_STREAM, 0, 0, b"\0" * 4), PROTOCOL_ERROR, id="reset-stream-0"),
    pytest.param(frame(h2.RST_STREAM, 0, 1, b"\0" * 4), PROTOCOL_ERROR, id="reset-idle"),
    pytest.param(head() + frame(h2.RST_STREAM, 0, 1, b"\0"), FRAME_SIZE_ERROR, id="reset-size"),
    pytest.param(frame(h2.SETTINGS, 0, 1, b""), PROTOCOL_ERROR, id="settings-on-stream"),
    pytest.param(frame(h2.SETTINGS, 0, 0, b"\0" * 5), FRAME_SIZE_ERROR, id="settings-size"),
    pytest.param(frame(h2.SETTINGS, 1, 0, b"\0" * 6), FRAME_SIZE_ERROR, id="settings-ack-body"),
    pytest.param(h2.settings(enable_push=2), PROTOCOL_ERROR, id="enable-push"),
    pytest.param(h2.settings(initial_window_size=2**31), FLOW_CONTROL_ERROR, id="initial-window"),
    pytest.param(h2.settings(max_frame_size=16_383), PROTOCOL_ERROR, id="max-frame-low"),
    pytest.param(h2.settings(max_frame_size=2**24), PROTOCOL_ERROR, id="max-frame-high"),
    pytest.param(frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), PROTOCOL_ERROR, id="push-from-client"),
    pytest.param(frame(h2.PING, 0, 1, b"\0" * 8), PROTOCOL_ERROR, id="ping-on-stream"),
    pytest.param(frame(h2.PING, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR, id="ping-size"),
    pytest.param(frame(h2.GOAWAY, 0, 1, b"\0" * 8), PROTOCOL_ERROR, id="goaway-on-stream"),
    pytest.param(frame(h2.GOAWAY, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR, id="goaway-size"),
    pytest.param(h2.window_update(0, 0), PROTOCOL_ERROR, id="window-zero"),
    pytest.param(h2.window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR, id="window-overflow"),
    pytest.param(h2.window_update(1, 5), PROTOCOL_ERROR, id="window-idle"),
    pytest.param(frame(h2.WINDOW_UPDATE, 0, 0, b"\0"), FRAME_SIZE_ERROR, id="window-size"),
    pytest.param(frame(h2.CONTINUATION, 4, 1, b""), PROTOCOL_ERROR, id="continuation-of-nothing"),
    pytest.param(
        frame(h2.HEADERS, 0, 1, b"") + frame(h2.PING, 0, 0, b"\0" * 8),
        PROTOCOL_ERROR,
        id="ping-inside-a-block",
    ),
    pytest.param(
        frame(h2.HEADERS, 0, 1, b"") + frame(h2.CONTINUATION, 4, 3, b""),
        PROTOCOL_ERROR,
        id="continuation-of-another",
    ),
    pytest.param(
        frame(h2.HEADERS, 0, 1, b"") + frame(0x42, 0, 1, b""),
        PROTOCOL_ERROR,
        id="unknown-inside-a-block",
    ),
    pytest.param(frame(h2.HEADERS, 4 | 8, 1, b""), FRAME_SIZE_ERROR, id="pad-length-missing"),
    pytest.param(frame(h2.HEADERS, 4 | 8, 1, b"\2\0"), PROTOCOL_ERROR, id="pad-too-long"),
    pytest.param(frame(h2.HEADERS, 4 | 32, 1, b"\0\0"), FRAME_SIZE_ERROR, id="priority-cut"),
    pytest.param(
        frame(h2.HEADERS, 4 | 32, 1, b"\0\0\0\1\x10" + Client().block()),
        PROTOCOL_ERROR,
        id="depends-on-itself",
    ),
    pytest.param(head() + frame(h2.DATA, 8, 1, b"\5abc"), PROTOCOL_ERROR, id="data-pad-too-long"),
    pytest.param(head(5) + head(3), STREAM_CLOSED, id="stream-id-goes-back"),
    pytest.param(frame(h2.HEADERS, 4, 1, b"\xff\xff\xff"), COMPRESSION_ERROR, id="bad-block"),
    pytest.param(frame(h2.HEADERS, 4, 1, b"\x80"), COMPRESSION_ERROR, id="index-0"),
    pytest.param(frame(h2.HEADERS, 4, 1, b"\xbf"), COMPRESSION_ERROR, id="index-unknown"),
    pytest.param(frame(h2.HEADERS, 4, 1, b"\x82\x20"), COMPRESSION_ERROR, id="size-update-inside"),
    pytest.param(
        frame(h2.HEADERS, 4, 1, b"\x3f\xff\xff\x7f"), COMPRESSION_ERROR, id="table-too-large"
    ),
    pytest.param(literal((b"X-Upper", b"1")), PROTOCOL_ERROR, id="upper-case"),
    pytest.param(literal((b"", b"1")), PROTOCOL_ERROR, id="empty-name"),
    pytest.param(literal((b"a b", b"1")), PROTOCOL_ERROR, id="space-in-name"),
    pytest.param(literal((b"a:b", b"1")), PROTOCOL_ERROR, id="colon-in-name"),
    pytest.param(literal((b"x", b"1\r\ny: 2")), PROTOCOL_ERROR, id="crlf-in-value"),
    pytest.param(literal((b"x", b"a\0b")), PROTOCOL_ERROR, id="nul-in-value"),
    pytest.param(literal((b"x", b" a")), PROTOCOL_ERROR, id="leading-blank"),
    pytest.param(literal((b"x", b"a\t")), PROTOCOL_ERROR, id="trailing-blank"),
    pytest.param(literal((b"connection", b"close")), PROTOCOL_ERROR, id="connection"),
    pytest.param(literal((b"upgrade", b"h2c")), PROTOCOL_ERROR, id="upgrade"),
    pytest.param(literal((b"transfer-encoding", b"chunked")), PROTOCOL_ERROR, id="te-chunked"),
    pytest.param(literal((b"te", b"gzip")), PROTOCOL_ERROR, id="te-gzip"),
    pytest.param(literal((b"content-length", b"+3")), PROTOCOL_ERROR, id="length-with-sign"),
    pytest.param(
        literal((b"content-length", b"3"), (b"content-length", b"3")),
        PROTOCOL_ERROR,
        id="two-lengths",
    ),
    pytest.param(literal((b"host", b"a"), (b"host", b"b")), PROTOCOL_ERROR, id="two-hosts"),
    pytest.param(literal((b":path", b"/late")), PROTOCOL_ERROR, id="doubled-path"),
    pytest.param(block_of(*PSEUDO[:3], (b"x", b"1"), PSEUDO[3]), PROTOCOL_ERROR, id="late-pseudo"),
    pytest.param(block_of(*PSEUDO, (b":status", b"200")), PROTOCOL_ERROR, id="status"),
    pytest.param(block_of(*PSEUDO[1:]), PROTOCOL_ERROR, id="no-method"),
    pytest.param(block_of(PSEUDO[0], *PSEUDO[2:]), PROTOCOL_ERROR, id="no-scheme"),
    pytest.param(block_of(*PSEUDO[:2]), PROTOCOL_ERROR, id="no-path"),
    pytest.param(block_of(*PSEUDO[:2], (b":path", b"")), PROTOCOL_ERROR, id="empty-path"),
    pytest.param(
        block_of((b":method", b"CONNECT"), *PSEUDO[1:]), PROTOCOL_ERROR, id="connect-with-path"
    ),
    pytest.param(
        block_of((b":method", b"CONNECT")), PROTOCOL_ERROR, id="connect-without-authority"
    ),
    pytest.param(
        head() + frame(h2.HEADERS, 4 | 1, 1, raw_block((b":path", b"/x"))),
        PROTOCOL_ERROR,
        id="pseudo-field-in-trailers",
    ),
    pytest.param(
        head() + frame(h2.HEADERS, 4 | 1, 1, raw_block((b"content-length", b"0"))),
        PROTOCOL_ERROR,
        id="content-length-in-trailers",
    ),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize(("data", "code"), CONNECTION_FAULTS)
def test_connection_faults_end_the_connection_once(data: bytes, code: int, step: int) -> None:
    connection = connected()
    tail = frame(h2.PING, 0, 0, b"\0" * 8)
    feed(connection, data + tail, step)
    assert connection.fault is not None
    assert connection.fault.code == code
    frames = h2.split(connection.outbox.take())
    goaways = [each for each in frames if each.kind == h2.GOAWAY]
    assert len(goaways) == 1
    assert int.from_bytes(goaways[0].payload[4:8], "big") == code
    assert not [each for each in frames if each.kind == h2.PING]
    assert connection.receive(tail, NOW) == []


STREAM_FAULTS = [
    pytest.param(head(end=True) + frame(h2.DATA, 0, 1, b"x"), STREAM_CLOSED, id="data-after-end"),
    pytest.param(head(end=True) + head(1), STREAM_CLOSED, id="headers-after-end"),
    pytest.param(
        head() + frame(h2.HEADERS, 4, 1, raw_block((b"x", b"1"))),
        PROTOCOL_ERROR,
        id="trailers-without-end",
    ),
    pytest.param(head() + h2.window_update(1, 0), PROTOCOL_ERROR, id="window-zero"),
    pytest.param(head() + h2.window_update(1, 2**31 - 1), FLOW_CONTROL_ERROR, id="window-overflow"),
    pytest.param(
        literal((b"content-length", b"3")) + frame(h2.DATA, 1, 1, b"ab"),
        PROTOCOL_ERROR,
        id="body-shorter-than-announced",
    ),
    pytest.param(
        literal((b"content-length", b"1"))
        + frame(h2.DATA, 0, 1, b"a")
        + frame(h2.DATA, 1, 1, b"b"),
        PROTOCOL_ERROR,
        id="body-longer-than-announced",
    ),
]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize(("data", "code"), STREAM_FAULTS)
def test_stream_faults_end_one_stream(data: bytes, code: int, step: int) -> None:
    connection = connected()
    events = feed(connection, data, step)
    assert connection.fault is None
    assert events[-1] == (RESET, 1, b"")
    resets = [x for x in h2.split(connection.outbox.take()) if x.kind == h2.RST_STREAM]
    assert resets == [h2.Frame(h2.RST_STREAM, 0, 1, code.to_bytes(4, "big"))]
    assert not connection.streams
    # Late frames for it are forgiven, and another stream works.
    assert feed(connection, frame(h2.DATA, 0, 1, b"late"), step) == []
    assert feed(connection, h2.window_update(1, 7), step) == []
    assert feed(connection, Client().headers(3), step) == [(HEAD, 3, b"")]


@pytest.mark.parametrize("step", [0, 1, 7, 4096], ids=["whole", "bytes", "sevens", "pages"])
def test_a_request_in_every_shape(step: int) -> None:
    """Padding, priority, continuations, trailers: the same request each time."""
    block = Client().block()
    third = len(block) // 3
    shapes = [
        frame(h2.HEADERS, 4, 1, block),
        frame(h2.HEADERS, 4 | 8, 1, b"\3" + block + b"\0\0\0"),
        frame(h2.HEADERS, 4 | 32, 1, b"\x80\0\0\0\xff" + block),
        frame(h2.HEADERS, 4 | 8 | 32, 1, b"\1" + b"\0\0\0\0\0" + block + b"\0"),
        frame(h2.HEADERS, 0, 1, block[:third])
        + frame(h2.CONTINUATION, 0, 1, block[third : 2 * third])
        + frame(h2.CONTINUATION, 4, 1, block[2 * third :]),
    ]
    for shape in shapes:
        connection = connected()
        data = (
            shape
            + frame(h2.DATA, 8, 1, b"\2abc\0\0")
            + frame(h2.DATA, 0, 1, b"def")
            + frame(h2.HEADERS, 4 | 1, 1, raw_block((b"x", b"1")))
        )
        assert feed(connection, data, step) == [
            (HEAD, 1, b""),
            (DATA, 1, b"abc"),
            (DATA, 1, b"def"),
            (DATA_END, 1, b""),
        ]
        assert connection.fault is None
        request = connection.streams[1].head
        assert request.path == b"/test.Echo/Unary"
        assert request.is_grpc


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        h2.PREFACE[:-1] + b"\0",
        h2.PREFACE + frame(h2.PING, 0, 0, b"\0" * 8),
        h2.PREFACE + frame(h2.SETTINGS, 1, 0, b""),
        h2.PREFACE + Client().headers(1),
        h2.PREFACE + frame(h2.DATA, 0, 1, b""),
        h2.PREFACE + h2.window_update(0, 1),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_a_connection_starts_with_preface_and_settings(data: bytes, step: int) -> None:
    connection = Connection(NOW)
    feed(connection, data, step)
    assert connection.fault is not None
    assert connection.fault.code == PROTOCOL_ERROR
    assert not connection.settled


def test_our_settings_and_acknowledgement() -> None:
    connection = Connection(NOW, max_streams=7)
    assert not connection.settled
    connection.receive(Client.hello(), NOW)
    assert connection.settled
    ours, window, ack = h2.split(connection.outbox.take())
    assert ours.kind == h2.SETTINGS
    assert (3).to_bytes(2, "big") + (7).to_bytes(4, "big") in ours.payload
    assert window.kind == h2.WINDOW_UPDATE
    assert ack == h2.Frame(h2.SETTINGS, h2.ACK, 0, b"")


@pytest.mark.parametrize(("excess", "code"), [(0, None), (1, FRAME_SIZE_ERROR)])
def test_frame_length_is_judged_before_the_body(excess: int, code: int | None) -> None:
    connection = connected()
    announced = (16_384 + excess).to_bytes(3, "big") + b"\0\0" + (1).to_bytes(4, "big")
    connection.receive(head() + announced, NOW)
    assert (connection.fault.code if connection.fault else None) == code


def test_streams_beyond_the_limit_are_refused_and_decoded() -> None:
    connection = connected(max_streams=2)
    client = Client()
    data = client.headers(1) + client.headers(3) + client.headers(5, extra=(("x-new", "v"),))
    events = feed(connection, data, 0)
    assert [event[:2] for event in events] == [(HEAD, 1), (HEAD, 3)]
    last = h2.split(connection.outbox.take())[-1]
    assert last == h2.Frame(h2.RST_STREAM, 0, 5, REFUSED_STREAM.to_bytes(4, "big"))
    # The refused block went through the decoder: the field it added is known now.
    connection.receive(h2.reset(1), NOW)
    feed(connection, client.headers(7, extra=(("x-new", "v"),)), 0)
    assert (b"x-new", b"v") in connection.streams[7].head.fields


def test_header_block_bounds() -> None:
    long = raw_block(*PSEUDO, *((b"x%d" % number, b"y" * 120) for number in range(60)))
    connection = connected()
    connection.receive(frame(h2.HEADERS, 4, 1, long), NOW)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM
    many = raw_block(*PSEUDO, *((b"x", b"") for _ in range(61)))
    connection = connected()
    connection.receive(frame(h2.HEADERS, 4, 1, many), NOW)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM
    connection = connected()
    connection.receive(frame(h2.HEADERS, 0, 1, b"\0" * 16_384), NOW)
    assert connection.fault is None
    connection.receive(frame(h2.CONTINUATION, 0, 1, b"\0"), NOW)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM


def test_reset_and_goaway_of_the_peer() -> None:
    connection = connected()
    events = feed(connection, head() + h2.reset(1), 0)
    assert events == [(HEAD, 1, b""), (RESET, 1, b"")]
    assert not connection.drained
    feed(connection, frame(h2.GOAWAY, 0, 0, b"\0" * 8), 0)
    assert connection.drained


def test_data_on_a_stream_that_the_peer_closed_is_a_connection_fault() -> None:
    connection = connected()
    feed(connection, head() + h2.reset(1) + frame(h2.DATA, 0, 1, b"x"), 0)
    assert connection.fault is not None
    assert connection.fault.code == STREAM_CLOSED


def test_streams_that_we_reset_are_remembered_up_to_a_bound() -> None:
    connection = connected()
    client = Client()
    for number in range(HTTP2_RESETS_REMEMBERED_MAX + 10):
        now = NOW + number
        stream_id = 2 * number + 1
        connection.receive(client.headers(stream_id) + h2.window_update(stream_id, 0), now)
        connection.outbox.take()
    assert connection.fault is None
    assert len(connection.outbox.reset_by_us) == HTTP2_RESETS_REMEMBERED_MAX
    connection.receive(frame(h2.DATA, 0, stream_id, b"late"), now)
    assert connection.fault is None
    connection.receive(frame(h2.DATA, 0, 1, b"very late"), now)
    assert connection.fault is not None


def test_late_headers_for_a_reset_stream_go_through_the_decoder() -> None:
    connection = connected()
    client = Client()
    feed(connection, client.headers(1) + h2.window_update(1, 0), 0)
    feed(connection, client.headers(1, extra=(("x-new", "v"),)), 0)
    feed(connection, client.headers(3, extra=(("x-new", "v"),)), 0)
    assert (b"x-new", b"v") in connection.streams[3].head.fields


def test_drain_in_two_steps() -> None:
    connection = connected()
    client = Client()
    feed(connection, client.headers(1), 0)
    connection.drain()
    connection.drain()
    first, ping = h2.split(connection.outbox.take())
    assert first.kind == h2.GOAWAY
    assert int.from_bytes(first.payload[:4], "big") == 2**31 - 1
    # A request that was on its way is still served.
    assert feed(connection, client.headers(3), 0) == [(HEAD, 3, b"")]
    feed(connection, frame(h2.PING, h2.ACK, 0, ping.payload), 0)
    (last,) = h2.split(connection.outbox.take())
    assert int.from_bytes(last.payload[:4], "big") == 3
    assert not connection.drained
    # Later ones are not looked at, and not counted against the peer.
    data = client.headers(5) + frame(h2.DATA, 1, 5, b"x") + h2.window_update(5, 1) + h2.reset(5)
    assert feed(connection, data, 0) == []
    assert connection.fault is None
    feed(connection, h2.reset(1) + h2.reset(3), 0)
    assert connection.drained


def test_faults_never_quote_input() -> None:
    connection = connected()
    connection.receive(literal((b"token", b"s3cret\n")), NOW)
    out = connection.outbox.take()
    assert b"s3cret" not in out
    assert b"token" not in out
