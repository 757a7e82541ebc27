"""Requests that are begun and do not get on, and what one identity may hold of them (LIM-18)."""

from __future__ import annotations

import pytest

from configsvc.frontend import admission as admission_module
from configsvc.frontend.http1_session import Http1Session
from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.refusals import SLOW
from configsvc.frontend.shared import Shared, judge
from configsvc.limits import (
    HTTP2_STREAM_WINDOW_BYTES,
    SLOW_WRITER_BYTES_MIN,
    SLOW_WRITER_SECONDS_MAX,
)
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Client, frame, grpc_message
from tests.support.session_rig import Rig, http

START = 50.0
PATHS = ["/test.Echo/Unary", "/test.Echo/Stream", "/v3/kv/put"]


def begun(rig: Rig, stream: int, path: str, size: int = 1_000) -> bytes:
    """A request of two megabytes whose first ``size`` bytes are there."""
    is_grpc = path.startswith("/test")
    head = rig.client.headers(stream, path) if is_grpc else http(rig, stream, path, "POST")
    return head + frame(h2.DATA, 0, stream, grpc_message(b"x" * 2_000_000)[:size])


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_stands_still_ends_its_connection(path: str) -> None:
    rig = Rig()
    rig.session.receive(begun(rig, 1, path) + rig.client.call(3, b"x", "/test.Echo/Wait"))
    assert rig.session.has_deadlines
    assert rig.dirty  # so that the socket's owner asks for sweeps
    rig.session.expire(START)
    rig.session.expire(START + SLOW_WRITER_SECONDS_MAX - 0.1)
    assert not rig.session.finished
    rig.session.expire(START + SLOW_WRITER_SECONDS_MAX)
    assert (rig.session.fault, rig.session.fault_kind) == ("writes too slowly", SLOW)
    assert h2.split(rig.session.take())[-1].payload[4:] == b"\0\0\0\x0bwrites too slowly"
    assert rig.api.waiting[0].cancelled
    assert rig.shared.admission.in_bytes == rig.tally.in_bytes == 0


def test_a_slow_line_may_take_as_long_as_it_needs() -> None:
    """Sixteen kilobytes in half a minute, for two megabytes: an hour."""
    rig = Rig()
    body = grpc_message(b"x" * 2_000_000)
    rig.session.receive(rig.client.headers(1))
    window, now, done = HTTP2_STREAM_WINDOW_BYTES, START, False
    for start in range(0, len(body), SLOW_WRITER_BYTES_MIN):
        piece = body[start : start + SLOW_WRITER_BYTES_MIN]
        window -= len(piece)
        assert window >= 0
        rig.session.receive(frame(h2.DATA, int(start + len(piece) == len(body)), 1, piece))
        for each in h2.split(rig.session.take()):
            if each.kind == h2.WINDOW_UPDATE and each.stream == 1:
                window += int.from_bytes(each.payload, "big")
            done |= each.kind == h2.HEADERS
        for _ in range(10):
            now += (SLOW_WRITER_SECONDS_MAX - 1) / 10
            rig.session.expire(now)
        assert rig.session.fault == ""
    assert done
    assert not rig.session.has_deadlines


def test_whole_requests_and_open_streams_owe_nothing() -> None:
    rig = Rig()
    rig.session.receive(
        rig.client.call(1, b"x", "/test.Echo/Wait")
        + rig.client.headers(3, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 3, grpc_message(b"a"))
    )
    for minutes in range(10):
        rig.session.expire(START + 60 * minutes)
    assert rig.session.fault == ""
    assert not rig.session.has_deadlines


def test_who_could_not_be_read_from_was_not_slow() -> None:
    rig = Rig()
    rig.session.receive(begun(rig, 1, PATHS[0]))
    rig.session.expire(START)
    rig.session.pause()
    rig.session.resume()
    rig.session.expire(START + SLOW_WRITER_SECONDS_MAX)
    assert rig.session.fault == ""
    rig.session.expire(START + 2 * SLOW_WRITER_SECONDS_MAX)
    assert rig.session.fault == "writes too slowly"


def http1() -> Http1Session:
    shared = Shared(FakeApi(), FakeHttp(), lambda: 0.0)
    tally = shared.admission.join("")
    assert tally is not None
    return Http1Session(shared, judge(shared, None, "", ""), tally, lambda: None)


HEAD = b"POST /v3/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("data", [HEAD, HEAD + b"x" * 10], ids=["no-body", "some-body"])
def test_a_body_of_http1_that_stands_still_is_refused(data: bytes) -> None:
    session = http1()
    session.receive(data)
    assert session.has_deadlines
    session.expire(START)
    session.expire(START + SLOW_WRITER_SECONDS_MAX - 0.1)
    assert not session.take()
    session.expire(START + SLOW_WRITER_SECONDS_MAX)
    assert session.take().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert (session.fault, session.fault_kind, session.finished) == (
        "writes too slowly",
        SLOW,
        True,
    )


def test_a_body_of_http1_that_was_asked_for_is_due_like_any_other() -> None:
    session = http1()
    session.receive(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert session.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert session.has_deadlines
    assert not session.at_ease  # or nobody would look at it


def test_each_body_of_http1_is_due_from_its_own_beginning() -> None:
    session = http1()
    session.receive(HEAD.replace(b"100000", b"2") + b"x")
    session.expire(START)
    session.receive(b"x" + HEAD)
    session.expire(START + SLOW_WRITER_SECONDS_MAX)
    assert session.fault == ""


def test_a_slow_body_of_http1_is_waited_for_and_forgotten() -> None:
    session = http1()
    session.receive(HEAD)
    now, left = START, 100_000
    while left:
        session.expire(now)
        now += SLOW_WRITER_SECONDS_MAX - 1
        count = min(left, SLOW_WRITER_BYTES_MIN)
        left -= count
        session.receive(b"x" * count)
    assert session.take().startswith(b"HTTP/1.1 200 OK\r\n")
    session.expire(now + 1_000)
    assert not session.has_deadlines
    assert session.fault == ""


# --- what one identity may hold ------------------------------------------------------------------


def neighbours(count: int, shared: Shared, key: str) -> list[Http2Session]:
    """Connections of one identity."""
    made = []
    for _ in range(count):
        tally = shared.admission.join(key)
        assert tally is not None
        session = Http2Session(shared, judge(shared, None, "", ""), tally, lambda: None)
        session.receive(Client.hello())
        session.take()
        made.append(session)
    return made


def test_one_identity_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections together may hold a quarter; then it is refused, and nobody else."""
    monkeypatch.setattr(admission_module, "IDENTITY_IN_BYTES_MAX", 100_000)
    monkeypatch.setattr(admission_module, "MEMBER_IN_BYTES_MAX", 400_000)
    shared = Shared(FakeApi(), FakeHttp(), lambda: 0.0)
    part = grpc_message(b"x" * 65_000)[:30_000]
    resets = []
    for session in neighbours(20, shared, "mallory"):
        session.receive(Client().headers(1) + frame(h2.DATA, 0, 1, part[:16_000]))
        session.receive(frame(h2.DATA, 0, 1, part[16_000:]))
        frames = h2.split(session.take())
        resets.append(sum(each.kind == h2.RST_STREAM for each in frames))
        assert shared.admission.in_bytes <= 100_000
    assert resets == [0] * 3 + [1] * 17
    (other,) = neighbours(1, shared, "alice")
    rest = grpc_message(b"x" * 65_000)[30_000:]
    other.receive(Client().headers(1) + frame(h2.DATA, 0, 1, part[:16_000]))
    other.receive(frame(h2.DATA, 0, 1, part[16_000:]))
    for start in range(0, len(rest), 16_000):
        end = start + 16_000 >= len(rest)
        other.receive(frame(h2.DATA, int(end), 1, rest[start : start + 16_000]))
    assert Client().answers(other.take())[1].messages == [b"x" * 65_000]
    assert shared.admission.in_bytes == 3 * 30_000


def test_nobody_in_particular_has_no_bound_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "IDENTITY_IN_BYTES_MAX", 1_000)
    shared = Shared(FakeApi(), FakeHttp(), lambda: 0.0)
    (session,) = neighbours(1, shared, "")
    session.receive(Client().headers(1) + frame(h2.DATA, 0, 1, grpc_message(b"x" * 9_000)[:5_000]))
    assert not [each for each in h2.split(session.take()) if each.kind == h2.RST_STREAM]


def test_large_messages_wait_for_their_identitys_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let in when the neighbour's message is through, not refused."""
    monkeypatch.setattr(admission_module, "IDENTITY_IN_BYTES_MAX", 600_000)
    shared = Shared(FakeApi(), FakeHttp(), lambda: 0.0)
    (session,) = neighbours(1, shared, "alice")
    client, size = Client(), 400_000
    left = {1: grpc_message(b"x" * size), 3: grpc_message(b"y" * size)}
    window = dict.fromkeys(left, HTTP2_STREAM_WINDOW_BYTES)
    session.receive(client.headers(1) + client.headers(3))
    answered: list[int] = []
    for _ in range(100):
        for stream, body in left.items():
            if count := min(window[stream], 16_000, len(body)):
                left[stream] = body[count:]
                window[stream] -= count
                session.receive(frame(h2.DATA, int(not left[stream]), stream, body[:count]))
        for each in h2.split(session.take()):
            assert each.kind != h2.RST_STREAM
            if each.kind == h2.WINDOW_UPDATE and each.stream:
                window[each.stream] += int.from_bytes(each.payload, "big")
            elif each.kind == h2.HEADERS and each.stream not in answered:
                answered.append(each.stream)
        assert shared.admission.in_bytes <= 600_000
    assert answered == [1, 3]
