"""Sessions without sockets: streams, readers that are slow, handlers that go too far."""

from __future__ import annotations

import pytest

from configsvc.errors import PermissionDeniedError, StoppedError
from configsvc.limits import STREAM_OUT_BYTES_HARD
from tests.support import http2_frames as h2
from tests.support.http2_frames import frame, grpc_message
from tests.support.session_rig import Rig


def test_a_stream_echoes_until_it_is_finished() -> None:
    rig = Rig()
    answers = rig.send(
        rig.client.headers(1, "/test.Echo/Stream") + frame(h2.DATA, 0, 1, grpc_message(b"a"))
    )
    assert answers[1].messages == [b"a"]
    assert not answers[1].ended
    last = rig.send(frame(h2.DATA, 0, 1, grpc_message(b"b") + grpc_message(b"finish")))[1]
    assert last.messages == [b"b"]
    assert (last.status, last.reset) == (0, 0)
    assert rig.api.streams[0].heard == ["message"] * 3


def test_a_half_closed_stream_goes_on() -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, "/test.Echo/Stream", end=True))
    stream = rig.api.streams[0]
    assert stream.heard == ["half_close"]
    stream.sink.send(b"news")
    assert rig.answers()[1].messages == [b"news"]
    stream.sink.finish(StoppedError())
    last = rig.answers()[1]
    assert (last.status, last.reset) == (14, None)


@pytest.mark.parametrize(("message", "code"), [(b"fail", 7), (b"bug", 13)])
def test_what_a_stream_raises_ends_it(message: bytes, code: int) -> None:
    rig = Rig()
    answer = rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(message) + grpc_message(b"never"))
    )[1]
    assert answer.status == code
    assert rig.api.streams[0].heard == ["message", "cancel"]


@pytest.mark.parametrize("where", ["on_half_close", "on_writable"])
def test_what_a_stream_raises_elsewhere_ends_it_too(where: str) -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"burst:2000"))
    )

    def broken() -> None:
        raise PermissionDeniedError

    setattr(rig.api.streams[0], where, broken)
    rig.session.receive(frame(h2.DATA, 1, 1, b"") if where == "on_half_close" else b"")
    answer = rig.send(h2.window_update(1, 2**24))[1]
    assert answer.status == 7
    assert rig.api.streams[0].heard[-1] == "cancel"


def test_a_stream_that_may_not_start() -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, "/test.Echo/Denied"))[1]
    assert answer.status == 7
    assert not rig.session.http2.streams


def test_a_reset_stream_is_told_once() -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, "/test.Echo/Stream"))
    rig.send(h2.reset(1))
    rig.session.lost()
    stream = rig.api.streams[0]
    assert stream.heard == ["cancel"]
    assert not stream.sink.send(b"late")
    stream.sink.finish(None)
    assert rig.answers() == {}


def test_a_slow_reader_is_waited_for() -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"burst:5000"))
    )
    stream = rig.api.streams[0]
    assert stream.left > 3000
    assert 2**20 < rig.session.waiting_bytes < 2**20 + 4_096
    got = 0
    while stream.left or rig.session.waiting_bytes:
        for answer in rig.send(h2.window_update(1, 300_000)).values():
            got += len(answer.body)
    assert got == 5000 * (1024 + 5)
    assert "writable" in stream.heard


def test_a_handler_that_ignores_the_bound_is_cut_off() -> None:
    rig = Rig(initial_window_size=0)
    answer = rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"flood:6000"))
    )[1]
    assert answer.status == 8
    assert rig.session.waiting_bytes == 0
    assert rig.api.streams[0].heard == ["message", "cancel"]
    assert STREAM_OUT_BYTES_HARD < 6000 * 1024


def test_server_streams_take_one_message() -> None:
    rig = Rig()
    two = grpc_message(b"a") + grpc_message(b"b")
    answer = rig.send(rig.client.headers(1, "/test.Echo/Down") + frame(h2.DATA, 0, 1, two))[1]
    assert answer.status == 12
    assert rig.api.streams[0].heard[0] == "message"
