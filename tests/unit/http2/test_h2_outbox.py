"""Sending: windows, room, turns, endings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.http2 import grpc
from configsvc.http2.connection import Connection
from configsvc.http2.headers import response_block
from configsvc.http2.stream import Stream
from configsvc.limits import HTTP2_STREAM_WINDOW_BYTES, OUTPUT_PASS_BYTES_MAX, STREAM_OUT_BYTES_SOFT
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame

NOW = 0.0


class Peer:
    """A connection with one client that keeps count of what it was sent."""

    def __init__(self, **settings: int) -> None:
        self.client = Client()
        self.connection = Connection(NOW)
        self.connection.receive(Client.hello(**settings) + h2.SETTINGS_ACK, NOW)
        self.outbox = self.connection.outbox
        self.outbox.take()
        self.next_id = 1

    def open(self, *, end: bool = True) -> Stream:
        stream_id, self.next_id = self.next_id, self.next_id + 2
        self.connection.receive(self.client.headers(stream_id, end=end), NOW)
        return self.connection.streams[stream_id]

    def receive(self, data: bytes) -> None:
        self.connection.receive(data, NOW)
        assert self.connection.fault is None

    def take(self) -> bytes:
        out = b""
        while part := self.outbox.take():
            out += part
        return out

    def answers(self) -> dict[int, h2.Answer]:
        return self.client.answers(self.take())


def test_an_answer_in_one_go() -> None:
    peer = Peer()
    grpc.answer(peer.outbox, peer.open(), b"hello")
    answer = peer.answers()[1]
    assert answer.messages == [b"hello"]
    assert answer.status == 0
    assert answer.fields[":status"] == "200"
    assert answer.fields["content-type"] == "application/grpc"
    assert answer.ended
    assert answer.reset is None
    assert not peer.connection.streams


def test_fast_and_slow_way_of_an_answer_say_the_same() -> None:
    fast, slow = Peer(), Peer()
    grpc.answer(fast.outbox, fast.open(), b"hello")
    stream = slow.open()
    grpc.send_message(slow.outbox, stream, b"hello")
    grpc.finish(slow.outbox, stream, grpc.OK)
    assert fast.take() == slow.take()
    assert fast.outbox.window == slow.outbox.window
    assert fast.outbox.room == slow.outbox.room


def test_an_answer_before_the_end_of_the_request_asks_for_no_more() -> None:
    peer = Peer()
    grpc.answer(peer.outbox, peer.open(end=False), b"early")
    answer = peer.answers()[1]
    assert (answer.status, answer.ended, answer.reset) == (0, True, 0)
    peer.receive(frame(h2.DATA, 1, 1, b"late"))


def test_a_body_larger_than_the_window_waits_for_updates() -> None:
    peer = Peer(initial_window_size=10)
    grpc.answer(peer.outbox, peer.open(), b"x" * 45)
    assert len(peer.answers()[1].body) == 10
    peer.receive(h2.window_update(1, 15))
    assert len(peer.answers()[1].body) == 15
    peer.receive(h2.window_update(1, 1000))
    last = peer.answers()[1]
    assert len(last.body) == 25
    assert last.ended
    assert last.status == 0
    assert peer.outbox.held == 0


def test_the_connection_window_is_shared_in_turns() -> None:
    peer = Peer(initial_window_size=200_000)
    for stream in (peer.open(), peer.open()):
        grpc.answer(peer.outbox, stream, b"x" * 100_000)
    first = peer.answers()
    assert len(first[1].body) + len(first[3].body) == 65_535
    peer.receive(h2.window_update(0, 64_000))
    second = peer.answers()
    # Both went on, one frame each in turn.
    assert abs(len(second[1].body) - len(second[3].body)) <= 16_384
    peer.receive(h2.window_update(0, 1_000_000))
    last = peer.answers()
    assert last[1].ended
    assert last[3].ended


def test_a_change_of_the_initial_window_reaches_open_streams() -> None:
    peer = Peer(initial_window_size=100)
    stream = peer.open()
    grpc.answer(peer.outbox, stream, b"x" * 195)
    assert len(peer.answers()[1].body) == 100
    peer.receive(h2.settings(initial_window_size=50))
    assert stream.send_window == -50
    peer.receive(h2.window_update(1, 50))
    assert stream.send_window == 0
    assert 1 not in peer.answers()
    peer.receive(h2.settings(initial_window_size=60))
    assert len(peer.answers()[1].body) == 10
    peer.receive(h2.settings(initial_window_size=1000))
    assert peer.answers()[1].ended


def test_the_acknowledgement_precedes_what_wider_windows_let_through() -> None:
    """Peers count with the new window from the acknowledgement on (seen with grpcio)."""
    peer = Peer(initial_window_size=10)
    grpc.answer(peer.outbox, peer.open(), b"x" * 45)
    peer.take()
    peer.receive(h2.settings(initial_window_size=100))
    kinds = [(each.kind, each.flags) for each in h2.split(peer.take())]
    assert kinds.index((h2.SETTINGS, h2.ACK)) < kinds.index((h2.DATA, 0))


def test_a_window_that_overflows_by_settings_is_a_fault() -> None:
    peer = Peer(initial_window_size=100)
    peer.open()
    peer.receive(h2.window_update(1, 2**31 - 1 - 100))
    peer.connection.receive(h2.settings(initial_window_size=101), NOW)
    assert peer.connection.fault is not None


def test_one_write_is_bounded_whatever_the_windows_say() -> None:
    peer = Peer(initial_window_size=2**31 - 1)
    peer.receive(h2.window_update(0, 2**31 - 1 - 65_535))
    size = 3 * OUTPUT_PASS_BYTES_MAX
    grpc.answer(peer.outbox, peer.open(), b"x" * size)
    takes = []
    while part := peer.outbox.take():
        takes.append(part)
    assert max(map(len, takes)) < OUTPUT_PASS_BYTES_MAX + 2_000
    answer = peer.client.answers(b"".join(takes))[1]
    assert len(answer.body) == size + 5
    assert answer.ended


@given(
    sizes=st.lists(st.integers(0, 40_000), max_size=12),
    window=st.sampled_from([10, 65_535, 2**20]),
)
def test_parts_say_what_the_whole_says(sizes: list[int], window: int) -> None:
    parts = [bytes([n]) * size for n, size in enumerate(sizes)]
    said = []
    for pieces in (False, True):
        peer = Peer(initial_window_size=window)
        stream = peer.open()
        if pieces:
            grpc.answer_pieces(peer.outbox, stream, parts, sum(sizes))
        else:
            grpc.send_message(peer.outbox, stream, b"".join(parts))
            grpc.finish(peer.outbox, stream, grpc.OK)
        out = peer.take()
        held = peer.outbox.held
        while peer.connection.streams:
            peer.receive(h2.window_update(1, 100_000) + h2.window_update(0, 100_000))
            out += peer.take()
        answer = peer.client.answers(out)[1]
        said.append((answer.messages, answer.status, answer.ended, held))
    assert said[0] == said[1]
    assert said[0][0] == [b"".join(parts)]


def test_a_full_socket_stops_data_but_not_control() -> None:
    peer = Peer()
    stream = peer.open()
    peer.outbox.pause()
    grpc.answer(peer.outbox, stream, b"hello")
    assert peer.outbox.held == 5 + 5
    peer.receive(frame(h2.PING, 0, 0, b"12345678"))
    kinds = [each.kind for each in h2.split(peer.take())]
    assert h2.PING in kinds
    assert h2.DATA not in kinds
    peer.outbox.resume()
    assert peer.answers()[1].messages == [b"hello"]


def test_small_messages_that_waited_share_frames() -> None:
    peer = Peer(initial_window_size=0)
    stream = peer.open()
    for _ in range(100):
        grpc.send_message(peer.outbox, stream, b"tick")
    peer.take()
    peer.receive(h2.window_update(1, 10_000))
    frames = h2.split(peer.take())
    assert [each.kind for each in frames] == [h2.DATA]
    assert len(frames[0].payload) == 900


def test_who_wanted_room_is_told_at_half_of_the_bound() -> None:
    peer = Peer(initial_window_size=0)
    peer.receive(h2.window_update(0, 2**30))
    stream = peer.open()
    grpc.send_message(peer.outbox, stream, b"x" * STREAM_OUT_BYTES_SOFT)
    stream.wants_room = True
    peer.receive(h2.window_update(1, STREAM_OUT_BYTES_SOFT // 2 - 1))
    peer.take()
    assert peer.outbox.drained == []
    peer.receive(h2.window_update(1, 16))
    peer.take()
    assert peer.outbox.drained == [stream]


def test_a_reset_drops_what_waits() -> None:
    peer = Peer(initial_window_size=0)
    grpc.answer(peer.outbox, peer.open(), b"hello")
    assert peer.outbox.held == 10
    peer.receive(h2.reset(1))
    assert peer.outbox.held == 0
    assert not peer.outbox.ready
    peer.receive(h2.settings(initial_window_size=100))
    assert all(each.kind != h2.DATA for each in h2.split(peer.take()))


@pytest.mark.parametrize("size", [0, 1024])
def test_a_smaller_table_of_the_peer_is_acknowledged_once(size: int) -> None:
    """Decoders insist on it (RFC 7541, 4.2), and so does hpack's."""
    peer = Peer(header_table_size=size)
    peer.client.decoder.header_table_size = 4096
    peer.client.decoder.max_allowed_table_size = size
    grpc.answer(peer.outbox, peer.open(), b"a")
    grpc.answer(peer.outbox, peer.open(), b"b")
    answers = peer.answers()
    assert answers[1].messages == [b"a"]
    assert answers[3].messages == [b"b"]
    assert peer.client.decoder.header_table_size == 0


def updates(peer: Peer) -> list[tuple[int, int]]:
    frames = h2.split(peer.take())
    return [
        (each.stream, int.from_bytes(each.payload, "big"))
        for each in frames
        if each.kind == h2.WINDOW_UPDATE
    ]


def test_the_stream_window_is_filled_up_as_the_consumer_lets_go() -> None:
    peer = Peer()
    stream = peer.open(end=False)
    peer.receive(frame(h2.DATA, 0, 1, b"x" * 100))
    peer.connection.consumed(stream)
    assert updates(peer) == []
    peer.receive(frame(h2.DATA, 0, 1, b"x" * 16_384))
    peer.connection.consumed(stream)
    assert updates(peer) == [(1, 16_384 + 100)]
    assert stream.receive_window == HTTP2_STREAM_WINDOW_BYTES


def test_the_connection_window_is_given_back_on_receipt() -> None:
    """Whatever streams hold: kept back, it would deadlock requests that are interleaved."""
    peer = Peer()
    given = 0
    for _ in range(200):
        stream = peer.open(end=False)
        peer.receive(frame(h2.DATA, 0, stream.id, b"x" * 16_384) * 2)
        for where, count in updates(peer):
            assert where == 0
            given += count
    assert given >= 4 * 2**20


def test_bytes_beyond_the_stream_window_reset_the_stream() -> None:
    peer = Peer()
    peer.open(end=False)
    peer.receive(frame(h2.DATA, 0, 1, b"x" * 13_107) * 5)
    assert peer.connection.streams
    peer.receive(frame(h2.DATA, 0, 1, b"x"))
    assert peer.answers()[1].reset == 3


def test_a_client_may_send_before_it_has_seen_our_settings() -> None:
    """By prior knowledge it does, and counts with the RFC's default window (seen with curl)."""
    client = Client()
    connection = Connection(NOW)
    connection.receive(Client.hello() + client.headers(1), NOW)
    connection.receive(frame(h2.DATA, 0, 1, b"x" * 16_383) * 4, NOW)
    connection.receive(frame(h2.DATA, 0, 1, b"x" * 3), NOW)
    assert list(connection.streams) == [1]


def test_bytes_beyond_the_connection_window_end_the_connection() -> None:
    peer = Peer()
    peer.connection._window = 10
    peer.connection.receive(peer.client.headers(1) + frame(h2.DATA, 0, 1, b"x" * 11), NOW)
    assert peer.connection.fault is not None
    assert peer.connection.fault.code == 3


@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
    window=st.integers(0, 50_000),
    grants=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 30_000)), max_size=30),
)
def test_windows_are_never_exceeded_and_nothing_is_lost(
    sizes: list[int], window: int, grants: list[tuple[int, int]]
) -> None:
    """Against a peer that counts: its windows hold, and in the end everything arrived in order."""
    peer = Peer(initial_window_size=window)
    bodies: dict[int, bytes] = {}
    allowed = {0: 65_535}
    got: dict[int, bytes] = {}

    def collect() -> None:
        for each in h2.split(peer.take()):
            if each.kind == h2.DATA:
                got[each.stream] += each.payload
                allowed[each.stream] -= len(each.payload)
                allowed[0] -= len(each.payload)
                assert allowed[each.stream] >= 0
                assert allowed[0] >= 0

    for number, size in enumerate(sizes):
        stream = peer.open()
        body = bytes((number,)) * size
        bodies[stream.id], got[stream.id] = body, b""
        allowed[stream.id] = window
        peer.outbox.headers(stream, response_block(200, []))
        peer.outbox.data(stream, body)
        peer.outbox.end(stream)
    collect()
    for which, by in grants:
        stream_id = 0 if which == 0 else 2 * which - 1
        if stream_id in allowed and (stream_id == 0 or stream_id in peer.connection.streams):
            allowed[stream_id] += by
            peer.receive(h2.window_update(stream_id, by))
            collect()
    for stream_id in (0, *peer.connection.streams):
        allowed[stream_id] += 400_000
        peer.receive(h2.window_update(stream_id, 400_000))
        collect()
    assert got == bodies
    assert not peer.connection.streams
    assert peer.outbox.held == 0
