"""Bytes that mean nothing: ``receive`` never raises, keeps its bounds, and answers with frames.

The second test must find the planted defect: a search that cannot fail proves nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from configsvc.http2 import connection as module
from configsvc.http2 import grpc
from configsvc.http2.connection import DATA_END, Connection
from configsvc.http2.stream import CLOSED
from configsvc.limits import HTTP2_RESETS_REMEMBERED_MAX, HTTP2_STREAMS_MAX
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame

IDS = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1, 2**31 + 1])
KINDS = st.sampled_from([0, 0, 1, 1, 1, 2, 3, 4, 6, 7, 8, 8, 9, 5, 0x21])
BLOCKS = st.sampled_from([Client().block(), b"", b"\x82\x86\x84", b"\x3f\xe1\x1f", b"\xff\xff"])
PAYLOADS = st.one_of(
    st.binary(max_size=24),
    BLOCKS,
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.binary(max_size=20).map(h2.grpc_message),
)
FRAMES = st.builds(
    frame, KINDS, st.sampled_from([0, 1, 4, 5, 8, 12, 13, 32, 37, 255]), IDS, PAYLOADS
)
CALLS = st.sampled_from([1, 3, 5]).map(lambda stream: Client().call(stream, b"hello"))

PIECES = st.lists(st.one_of(FRAMES, CALLS, st.binary(max_size=12)), max_size=12)


def drive(pieces: list[bytes], cut: int) -> Connection:
    connection = Connection(0.0)
    data = Client.hello() + b"".join(pieces)
    now = 0.0
    for start in range(0, len(data), cut):
        now += 0.001
        for kind, stream, _ in connection.receive(data[start : start + cut], now):
            if kind == DATA_END and stream.state != CLOSED:
                grpc.answer(connection.outbox, stream, b"answer")
        for each in h2.split(connection.outbox.take()):
            assert len(each.payload) <= 16_384
        assert len(connection.streams) <= HTTP2_STREAMS_MAX
        assert len(connection.outbox.reset_by_us) <= HTTP2_RESETS_REMEMBERED_MAX
        assert connection.outbox.held == sum(s.queued for s in connection.streams.values())
        for stream_id, stream in connection.outbox.ready.items():
            assert connection.streams[stream_id] is stream
            assert stream.queue
            assert stream.send_window > 0
    return connection


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(PIECES, st.integers(1, 80))
def test_nothing_makes_it_raise_or_break_its_bounds(pieces: list[bytes], cut: int) -> None:
    drive(pieces, cut)


def listen(pieces: list[bytes], cut: int) -> tuple[list[tuple[int, int, bytes]], object]:
    """What is heard when nobody answers, in order."""
    connection = Connection(0.0)
    data = Client.hello() + b"".join(pieces)
    heard: list[tuple[int, int, bytes]] = []
    for start in range(0, len(data), cut):
        for kind, stream, chunk in connection.receive(data[start : start + cut], 0.0):
            heard.append((kind, stream.id, chunk))
    fault = connection.fault
    return heard, fault and (fault.code, fault.reason)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(FRAMES, CALLS), max_size=8), st.integers(1, 50))
def test_how_it_is_cut_does_not_matter(pieces: list[bytes], cut: int) -> None:
    assert listen(pieces, cut) == listen(pieces, 10**9)


def test_the_search_finds_a_planted_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_check_priority", lambda _stream, payload: payload[4])

    def breaks(pieces: list[bytes]) -> bool:
        try:
            drive(pieces, 10**9)
        except IndexError:
            return True
        return False

    assert find(PIECES, breaks, settings=settings(max_examples=3_000, derandomize=True))
