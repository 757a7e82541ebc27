"""HTTP/1.1: what has one reading is served, everything else closes the connection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.errors import StoppedError
from configsvc.frontend.http1_session import Http1Session
from configsvc.frontend.shared import Shared, judge
from configsvc.limits import OUTPUT_PASS_BYTES_MAX
from tests.support.frontend_fakes import FakeApi, FakeHttp

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v3/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /v3/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
)


class Rig:
    def __init__(self, *, refuse: bool = False) -> None:
        self.api = FakeApi()
        self.api.refuse = refuse
        self.http = FakeHttp()
        self.shared = Shared(self.api, self.http, lambda: 0.0)
        identity = judge(self.shared, None, "127.0.0.1", "")
        tally = self.shared.admission.join(identity.key)
        assert tally is not None
        self.session = Http1Session(self.shared, identity, tally, lambda: None)

    def send(self, data: bytes, step: int = 0) -> bytes:
        out = b""
        for start in range(0, len(data), step or len(data)):
            self.session.receive(data[start : start + (step or len(data))])
            out += self.session.take()
        return out


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [(GET, b'{"health":"true"}'), (POST, b"hello"), (CHUNKED, b"hello")],
)
def test_a_request_in_any_pieces(request_bytes: bytes, body: bytes, step: int) -> None:
    rig = Rig()
    out = rig.send(request_bytes, step)
    assert out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert out.endswith(b"\r\n\r\n" + body)
    assert rig.shared.admission.in_bytes == 0
    assert rig.session.finished == (request_bytes is CHUNKED)


def test_a_connection_is_kept_and_rests_between_requests() -> None:
    rig = Rig()
    assert not rig.session.opened
    for _ in range(3):
        assert b"200 OK" in rig.send(GET)
        assert b"connection" not in rig.send(POST).lower()
        assert rig.session.opened
        assert not rig.session.finished
    rig.send(GET[:10])
    assert not rig.session.opened  # a header is due
    rig.send(GET[10:])
    assert rig.session.opened


@pytest.mark.parametrize(
    "ending", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
)
def test_who_asks_for_the_end_gets_it(ending: bytes) -> None:
    rig = Rig()
    assert b" 404 " in rig.send(ending)
    assert rig.session.finished


REFUSED = [
    pytest.param(b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n", id="bare-lf"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\nx: 1\r\n\r\n", id="one-bare-lf"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", id="bare-cr"),
    pytest.param(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", id="empty-line-first"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\n 2\r\n\r\n", id="folded"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nx : 1\r\n\r\n", id="blank-before-colon"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n", id="nul"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nx: a\x01b\r\n\r\n", id="control"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no-host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="two-hosts"),
    pytest.param(b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", id="absolute-form"),
    pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", id="connect"),
    pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", id="asterisk"),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        id="two-framings",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        id="two-lengths",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        id="same-length-twice",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", id="length-with-sign"
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", id="other-encoding"
    ),
    pytest.param(
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="chunked-in-1.0",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
        id="bad-chunk-end",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        id="bare-lf-after-size",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
        id="negative-chunk",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: 1\r\n\r\n",
        id="trailers",
    ),
    pytest.param(b"not http at all\r\n\r\n", id="nonsense"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: 1\r\n" * 64 + b"\r\n", id="many-fields"),
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("data", REFUSED)
def test_what_is_ambiguous_is_refused_and_closed(data: bytes, step: int) -> None:
    rig = Rig()
    out = rig.send(data + GET, step)
    assert out.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    assert out.count(b"HTTP/1.1") == 1
    assert b"content-length: 0" in out
    assert rig.session.finished
    assert rig.session.fault
    assert not rig.http.requests


@pytest.mark.parametrize("step", [0, 1000])
def test_headers_are_bounded(step: int) -> None:
    rig = Rig()
    out = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 20_000, step)
    assert b" 431 " in out
    assert rig.session.finished


@pytest.mark.parametrize(
    "head", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
def test_bodies_are_bounded(head: bytes) -> None:
    rig = Rig()
    out = rig.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")
    for _ in range(140):
        out += rig.send(b"3E80\r\n" + b"x" * 16_000 + b"\r\n")
    assert b" 413 " in out
    assert rig.session.finished
    assert rig.shared.admission.in_bytes == 0


def test_pipelined_requests_get_one_answer() -> None:
    rig = Rig()
    out = rig.send(GET + GET)
    assert out.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in out
    assert rig.session.finished


def test_bytes_while_an_answer_is_due_end_the_connection_after_it() -> None:
    rig = Rig()
    rig.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    assert rig.send(GET) == b""
    assert not rig.session.finished
    rig.http.running[0].sink.respond(200, (), b"late")
    assert rig.session.take().endswith(b"late")
    assert rig.session.finished
    assert len(rig.http.requests) == 1


def test_an_answer_in_parts_is_one_answer() -> None:
    said = []
    for answer in ([b"abc" * 9], [b"abc"] * 9):
        rig = Rig()
        rig.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        rig.http.running[0].sink.respond_parts(200, (), answer)
        said.append(rig.session.take())
        assert not rig.session.finished
    assert said[0] == said[1]
    assert b"content-length: 27\r\n" in said[0].lower()


def test_no_upgrade() -> None:
    rig = Rig()
    out = rig.send(
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    assert out.startswith(b"HTTP/1.1 200 OK")


def test_expectations_are_met() -> None:
    rig = Rig()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert rig.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rig.send(b"ok").endswith(b"ok")


def test_streams_go_out_in_chunks() -> None:
    rig = Rig()
    out = rig.send(b"GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"8\r\nchunk 0\n\r\n8\r\nchunk 1\n\r\n" in out
    assert out.endswith(b"0\r\n\r\n")
    assert b"200 OK" in rig.send(GET)


def test_head_has_no_body() -> None:
    out = Rig().send(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"content-length: 17" in out
    assert out.endswith(b"\r\n\r\n")


def test_a_failing_gateway_is_a_500_without_details() -> None:
    out = Rig().send(b"GET /bug HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 500 " in out
    assert b"secret" not in out


def test_an_unacceptable_certificate_is_told_and_then_cut_off() -> None:
    rig = Rig(refuse=True)
    for number in range(3):
        assert not rig.session.finished, number
        assert b" 401 " in rig.send(GET)
    assert rig.session.finished
    assert not rig.http.requests


def test_slow_readers_are_waited_for_and_cut_off_in_the_end() -> None:
    rig = Rig()
    rig.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    running = rig.http.running[0]
    rig.session.pause()
    running.sink.start(200, ())
    sent = 0
    while running.sink.chunk(b"x" * 65_536):
        sent += 65_536
    assert 2**20 - 65_536 <= sent <= 2**20
    assert rig.session.take() == b""
    rig.session.resume()
    assert len(rig.session.take()) == OUTPUT_PASS_BYTES_MAX  # no write is larger
    assert not running.heard  # more than half is left
    taken = OUTPUT_PASS_BYTES_MAX
    while part := rig.session.take():
        assert len(part) <= OUTPUT_PASS_BYTES_MAX
        taken += len(part)
    assert taken > sent
    assert running.heard == ["writable"]
    rig.session.pause()
    for _ in range(100):
        running.sink.chunk(b"x" * 65_536)
    assert running.heard[-1] == "cancel"
    rig.session.resume()
    while rig.session.take():
        assert rig.session.finished is not rig.session.has_output
    assert rig.session.finished


def test_a_lost_connection_cancels() -> None:
    rig = Rig()
    rig.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    rig.session.lost()
    rig.session.lost()
    assert rig.http.running[0].heard == ["cancel"]
    rig.http.running[0].sink.respond(200, (), b"")


def test_drain() -> None:
    idle = Rig()
    idle.send(GET)
    idle.session.drain()
    assert idle.session.finished
    busy = Rig()
    busy.send(POST[:-2])
    busy.session.drain()
    assert not busy.session.finished
    out = busy.send(POST[-2:])
    assert b"connection: close" in out
    assert out.endswith(b"hello")
    assert busy.session.finished
    streaming = Rig()
    streaming.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    streaming.http.running[0].sink.start(200, ())
    streaming.session.end_streams(StoppedError())
    assert streaming.http.running[0].heard == ["cancel"]


def test_only_what_may_run_for_ever_is_broken_off() -> None:
    """A stream that has said nothing yet is one all the same; one answer is waited for."""
    for streams in (True, False):
        rig = Rig()
        rig.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        (running,) = rig.http.running
        running.streams = streams
        rig.session.end_streams(StoppedError())
        assert running.heard == ["cancel"] * streams
        assert rig.session.finished is streams


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([GET, POST, CHUNKED, b"\r\n", b"Host: a\r\n"]), st.binary(max_size=30)
        ),
        max_size=6,
    ),
    st.integers(1, 64),
)
def test_nothing_makes_it_raise(pieces: list[bytes], step: int) -> None:
    rig = Rig()
    data = b"".join(pieces)
    if data:
        rig.send(data, step)
    rig.session.lost()
    assert rig.shared.admission.in_bytes == 0
