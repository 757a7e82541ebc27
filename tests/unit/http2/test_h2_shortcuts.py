"""The short way of most requests does what the long one does, whatever the frames are."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from configsvc.http2 import protocol as p
from configsvc.http2.connection import Connection
from configsvc.http2.grpc import answer, open_response, send_message
from configsvc.http2.stream import CLOSED, Stream
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame


class LongWay(Connection):
    """The same without short ways."""

    def _plain_head(self, stream_id: int, block: bytes) -> bool:
        return False

    def _whole_body(self, stream_id: int, payload: bytes) -> bool:
        return False


# What a peer may send: (kind, flags, stream, how long its body is).
IDS = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 11])
PIECES = st.one_of(
    st.tuples(st.just("request"), IDS, st.integers(0, 40)),
    st.tuples(st.just("head"), IDS, st.sampled_from([0, p.END_STREAM])),
    st.tuples(st.just("data"), IDS, st.sampled_from([0, p.END_STREAM])),
    st.tuples(st.just("large"), IDS, st.integers(1, 6)),
    st.tuples(st.just("announced"), IDS, st.integers(0, 8)),
    st.tuples(st.just("reset"), IDS, st.just(0)),
    st.tuples(st.just("answer"), IDS, st.just(0)),
    st.tuples(st.sampled_from(["drain", "final", "split"]), st.just(0), st.just(0)),
)


def sent(client: Client, what: str, stream: int, number: int) -> bytes:
    if what == "request":
        data = frame(p.DATA, p.END_STREAM, stream, b"x" * number)
        return frame(p.HEADERS, p.END_HEADERS, stream, client.block()) + data
    if what == "head":
        return frame(p.HEADERS, p.END_HEADERS | number, stream, client.block())
    if what == "data":
        return frame(p.DATA, number, stream, b"abc")
    if what == "large":
        end = p.END_STREAM if number % 2 else 0
        return frame(p.DATA, 0, stream, b"x" * 16_384) * number + frame(p.DATA, end, stream, b"y")
    if what == "announced":
        block = client.block(extra=(("content-length", "3"),))
        head = frame(p.HEADERS, p.END_HEADERS, stream, block)
        return head + frame(p.DATA, p.END_STREAM, stream, b"x" * number)
    return h2.reset(stream)


def state(connection: Connection) -> tuple[object, ...]:
    """Everything that the two ways write."""
    outbox = connection.outbox
    streams = {
        number: (s.state, s.receive_window, s.send_window, s.body_bytes, s.head.path)
        for number, s in connection.streams.items()
    }
    fault = connection.fault and (connection.fault.code, connection.fault.reason)
    return (
        streams,
        fault,
        connection.last_id,
        connection._window,
        outbox.budget.credit,
        outbox.budget._tokens,
        bytes(outbox.take()),
    )


class Twin:
    """One way, its client, and the streams that it told of."""

    def __init__(self, kind: type[Connection]) -> None:
        self.connection = kind(0.0, max_streams=4)
        self.client = Client()
        self.told: list[tuple[int, int, bytes]] = []
        self.streams: dict[int, Stream] = {}
        self.connection.receive(Client.hello(), 0.0)

    def read(self, data: bytes) -> None:
        for kind, stream, chunk in self.connection.receive(data, 0.0):
            self.told.append((kind, stream.id, chunk))
            self.streams[stream.id] = stream

    def do(self, what: str, stream: int, number: int) -> None:
        if what == "drain":
            self.connection.drain()
        elif what == "final":
            self.connection.finish_drain()
        elif what == "answer":
            found = self.streams.get(stream)
            if found is not None and found.state != CLOSED:
                answer(self.connection.outbox, found, b"done")
        elif what == "split":
            data = sent(self.client, "request", 13, 20)
            for at in range(0, len(data), 7):
                self.read(data[at : at + 7])
        else:
            self.read(sent(self.client, what, stream, number))


@given(st.lists(PIECES, max_size=12))
@example([("request", 1, 5), ("request", 3, 5), ("request", 5, 0)])
@example([("head", n, 0) for n in (1, 3, 5, 7, 9)])  # one more than is allowed
@example([("request", 1, 5), ("drain", 0, 0), ("final", 0, 0), ("request", 3, 5), ("data", 3, 1)])
@example([("head", 1, 0), ("head", 3, 0), ("data", 3, 1), ("data", 3, 1)])  # data after the end
@example([("head", 1, 0), ("head", 3, 0), ("large", 3, 5)])  # beyond the stream's window
@example([("announced", 1, 3), ("announced", 3, 3), ("announced", 5, 4)])
@example([("request", 1, 5), ("request", 2, 5)])
@example([("request", 3, 5), ("request", 1, 5)])
def test_both_ways_are_one(pieces: list[tuple[str, int, int]]) -> None:
    short, long = Twin(Connection), Twin(LongWay)
    for piece in pieces:
        short.do(*piece)
        long.do(*piece)
        assert short.told == long.told
        assert state(short.connection) == state(long.connection)


def test_the_short_way_is_taken() -> None:
    """The second request of a kind goes no other way; else the twin would prove nothing."""
    twin = Twin(Connection)
    twin.do("request", 1, 5)
    twin.do("request", 3, 5)  # its block changed the table; from here on blocks are equal

    def never(*_: object) -> None:
        raise AssertionError

    twin.connection._on_headers = twin.connection._on_data = never  # type: ignore[method-assign, assignment]
    twin.do("request", 5, 5)
    assert [each[:2] for each in twin.told[-2:]] == [(0, 5), (2, 5)]


@given(st.lists(st.integers(0, 20_000), max_size=8), st.integers(0, 70_000), st.booleans())
def test_a_message_of_a_stream_goes_out_as_data_does(
    sizes: list[int], window: int, paused: bool
) -> None:
    """With any window: what is framed, what waits, and what is left of the windows."""

    def sent(*, short: bool) -> tuple[object, ...]:
        twin = Twin(Connection)
        twin.do("request", 1, 5)
        stream, outbox = twin.streams[1], twin.connection.outbox
        stream.send_window = window
        if paused:
            outbox.pause()
        for size in sizes:
            message = b"m" * size
            if short:
                send_message(outbox, stream, message)
            else:
                open_response(outbox, stream)
                outbox.data(stream, message, bytes(1) + size.to_bytes(4, "big"))
        left = (stream.send_window, stream.queued, outbox.held, outbox.window, outbox.room)
        credit, cleared = outbox.budget.credit, outbox.pings.cleared
        return (left, credit, cleared, bytes(outbox.take()))

    assert sent(short=True) == sent(short=False)
