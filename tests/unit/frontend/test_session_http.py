"""Sessions without sockets: HTTP requests on HTTP/2, for the gateway."""

from __future__ import annotations

import pytest

from configsvc.errors import StoppedError
from configsvc.limits import HTTP2_STREAM_WINDOW_BYTES
from tests.support import http2_frames as h2
from tests.support.http2_frames import frame
from tests.support.session_rig import Rig, http


def test_an_unacceptable_certificate_and_http() -> None:
    rig = Rig(refuse=True)
    for number in range(3):
        data = rig.client.headers(
            2 * number + 1, "/health", end=True, method="GET", content_type=None
        )
        assert rig.send(data)[2 * number + 1].fields[":status"] == "401"
    assert rig.session.finished
    assert not rig.http.requests


def test_http_requests_go_to_the_gateway() -> None:
    rig = Rig()
    answers = rig.send(
        http(rig, 1, "/health?a=b", end=True)
        + http(rig, 3, "/v3/kv/put", "POST")
        + frame(h2.DATA, 0, 3, b'{"a"')
        + frame(h2.DATA, 1, 3, b":1}")
    )
    assert answers[1].fields[":status"] == "200"
    assert answers[1].fields["content-length"] == "17"
    assert answers[1].body == b'{"health":"true"}'
    assert answers[3].body == b'{"a":1}'
    get, post = rig.http.requests
    assert (get.method, get.path, get.query) == ("GET", "/health", "a=b")
    assert (b"host", b"localhost") in get.headers
    assert post.body == b'{"a":1}'
    assert rig.shared.admission.in_bytes == 0


def test_http_answers_in_pieces_and_without_a_body() -> None:
    rig = Rig()
    answers = rig.send(
        http(rig, 1, "/chunks", end=True)
        + http(rig, 3, "/health", "HEAD", end=True)
        + http(rig, 5, "/bug", end=True)
        + http(rig, 7, "/inject", end=True)
    )
    assert answers[1].body == b"chunk 0\nchunk 1\nchunk 2\n"
    assert answers[1].ended
    assert answers[3].body == b""
    assert answers[3].fields["content-length"] == "17"
    assert answers[5].fields[":status"] == "500"
    assert answers[7].fields["x-echo"] == "a  set-cookie: b"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("health", "GET", "400"), ("*", "OPTIONS", "400")],
)
def test_http_targets_are_paths(path: str, method: str, status: str) -> None:
    rig = Rig()
    assert rig.send(http(rig, 1, path, method, end=True))[1].fields[":status"] == status


def test_a_grpc_content_type_needs_post() -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, method="GET", end=True))[1]
    assert answer.fields[":status"] == "405"


@pytest.mark.parametrize("announced", [True, False])
def test_http_bodies_are_bounded(*, announced: bool) -> None:
    rig = Rig()
    extra = (("content-length", "2097152"),) if announced else ()
    rig.session.receive(rig.client.headers(1, "/v3/x", extra, method="POST", content_type=None))
    status = ""
    window = HTTP2_STREAM_WINDOW_BYTES
    sent = 0
    while not status:
        count = min(window, 16_000, 2_097_152 - sent if announced else 16_000)
        assert count, "the window must follow the body"
        window -= count
        sent += count
        last = announced and sent == 2_097_152
        rig.session.receive(frame(h2.DATA, int(last), 1, b"x" * count))
        for each in h2.split(rig.session.take()):
            if each.kind == h2.WINDOW_UPDATE and each.stream == 1:
                window += int.from_bytes(each.payload, "big")
            elif each.kind == h2.HEADERS:
                status = rig.client.fields(each.payload)[":status"]
    assert rig.shared.admission.in_bytes == 0
    if announced:
        assert (status, sent) == ("200", 2_097_152)
        assert [len(each.body) for each in rig.http.requests] == [sent]
    else:
        assert status == "413"
        assert sent <= 2_097_152 + 16_000
        assert not rig.http.requests


def test_a_body_that_is_announced_too_large_is_refused_at_once() -> None:
    rig = Rig()
    extra = (("content-length", "2097153"),)
    data = rig.client.headers(1, "/v3/x", extra, method="POST", content_type=None)
    answer = rig.send(data)[1]
    assert (answer.fields[":status"], answer.reset) == ("413", 0)


def test_slow_readers_of_http_are_waited_for_and_cut_off_in_the_end() -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(http(rig, 1, "/wait", end=True))
    running = rig.http.running[0]
    running.sink.start(200, ())
    sent = 0
    while running.sink.chunk(b"x" * 65_536):
        sent += 65_536
    assert 2**20 - 65_536 <= sent <= 2**20
    rig.send(h2.window_update(1, 800_000))
    assert running.heard == ["writable"]
    for _ in range(100):
        running.sink.chunk(b"x" * 65_536)
    assert running.heard[-1] == "cancel"
    assert rig.answers()[1].reset == 2
    assert rig.session.waiting_bytes == 0
    running.sink.end()
    running.sink.start(200, ())
    assert not running.sink.chunk(b"x")


def test_host_and_authority_must_agree_outside_grpc() -> None:
    rig = Rig()
    extra = (("host", "elsewhere"),)
    assert rig.send(rig.client.call(1, b"x", extra=extra))[1].status == 0
    rig.send(rig.client.headers(3, "/health", extra, end=True, method="GET", content_type=None))
    assert rig.session.fault == "host is not authority"


def test_an_answer_in_parts_is_one_answer() -> None:
    rig = Rig()
    rig.send(http(rig, 1, "/wait", end=True) + http(rig, 3, "/wait", end=True))
    whole, parts = (running.sink for running in rig.http.running)
    whole.respond(200, (), b"abc" * 9)
    parts.respond_parts(200, (), [b"abc"] * 9)
    answers = rig.answers()
    assert answers[1].fields == answers[3].fields
    assert (answers[1].body, answers[1].ended) == (answers[3].body, answers[3].ended)
    assert answers[3].fields["content-length"] == "27"


def test_a_gone_http_client_is_told_to_the_gateway() -> None:
    rig = Rig()
    rig.send(http(rig, 1, "/wait", end=True))
    rig.send(h2.reset(1))
    (running,) = rig.http.running
    assert running.heard == ["cancel"]
    running.sink.respond(200, (), b"late")
    assert rig.answers() == {}


def test_streams_of_http_end_with_those_of_grpc() -> None:
    """N5: a certificate that was revoked watches no longer, in JSON either."""
    rig = Rig()
    rig.send(b"".join(http(rig, stream, "/wait", end=True) for stream in (1, 3, 5)))
    begun, silent, waiting = rig.http.running
    begun.sink.start(200, ())
    silent.streams = True
    rig.answers()
    rig.session.drain()
    rig.session.end_streams(StoppedError())
    rig.session.finish_drain()
    assert (begun.heard, silent.heard, waiting.heard) == (["cancel"], ["cancel"], [])
    answers = rig.answers()
    assert (answers[1].reset, answers[3].reset) == (2, 2)
    waiting.sink.respond(200, (), b"done")
    assert rig.answers()[5].body == b"done"
    assert rig.session.finished


def test_a_listener_for_http_alone_serves_no_grpc() -> None:
    rig = Rig(serves_grpc=False)
    answers = rig.send(rig.client.call(1, b"x") + http(rig, 3, "/health", end=True))
    assert answers[1].status == 12
    assert answers[3].fields[":status"] == "200"
