"""Unary answers and streams as HTTP, with a handler and a sink that remember."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from configsvc.api.call_counts import CallCounts
from configsvc.api.contract import Caller, Method, StreamSink
from configsvc.api.status import HTTP_OF, status_of
from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    InvariantViolationError,
    OverloadedError,
    PermissionDeniedError,
    RequestError,
)
from configsvc.gateway import calls
from configsvc.gateway.answers import reason_of, send_error, stream_error
from configsvc.gateway.calls import Calls
from configsvc.gateway.json_out import to_json
from configsvc.limits import JSON_PIECE_VALUES, UNARY_IN_FLIGHT_MAX, UNARY_PER_IDENTITY_MAX
from configsvc.proto import kv_pb2, rpc_pb2
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Pieces, Waiting
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL
from tests.support.gateway_fakes import FakeLoop, FakeSink

CALLER = Caller(SYSTEM_PRINCIPAL, NO_SOURCE, b"")
ANSWER = rpc_pb2.DeleteRangeResponse(deleted=2).SerializeToString()


def told(error: BaseException) -> tuple[int, str]:
    return status_of(error) if isinstance(error, RequestError) else (13, "internal error, id=1")


class Handler:
    """A stream handler that is told what to do by its first byte."""

    def __init__(self, sink: StreamSink) -> None:
        self.sink = sink
        self.heard: list[str] = []

    def on_message(self, raw: bytes) -> None:
        self.heard.append("message")
        if raw == b"deny":
            raise PermissionDeniedError
        if raw == b"bug":
            raise ZeroDivisionError("secret")
        if raw == b"fail":
            self.sink.finish(CompactedError())
        else:
            self.sink.send(raw)

    def on_half_close(self) -> None:
        self.heard.append("half_close")

    def on_cancel(self) -> None:
        self.heard.append("cancel")

    def on_writable(self) -> None:
        self.heard.append("writable")


class World:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.calls = Calls(cast(Any, self.loop), told, Slices(cast(Any, self.loop)))
        self.sink = FakeSink()
        self.waiting = Waiting()
        self.handler: Handler | None = None
        self.counts = CallCounts()

    def unary(
        self, timeout: float | None = None, response: Any = rpc_pb2.DeleteRangeResponse
    ) -> Any:
        method = Method("/x.X/Y", lambda c, raw: self.waiting, None, False, False, None, response)
        return self.run(method, [b""], timeout)

    def stream(self, *requests: bytes, timeout: float | None = None) -> Any:
        def make(caller: Caller, sink: StreamSink) -> Handler:
            self.handler = Handler(sink)
            return self.handler

        method = Method("/x.X/Y", None, make, True, True, None, rpc_pb2.DeleteRangeResponse)
        return self.run(method, list(requests), timeout)

    def run(self, method: Method, requests: list[bytes], timeout: float | None) -> Any:
        method = method._replace(counts=self.counts)
        return self.calls.run(method, CALLER, "alice", requests, timeout, self.sink)

    @property
    def ends(self) -> dict[int, int]:
        """Code -> calls, of what ended; each call that began is among them."""
        assert self.counts.started == sum(self.counts.handled)
        return {code: n for code, n in enumerate(self.counts.handled) if n}

    @property
    def heard(self) -> list[str]:
        assert self.handler is not None
        return self.handler.heard


@pytest.fixture
def world() -> World:
    return World()


def test_a_unary_answer_that_waits(world: World) -> None:
    exchange = world.unary(timeout=1.0)
    assert not world.sink.status
    world.waiting.complete(ANSWER)
    assert (world.sink.status, world.sink.body) == (200, b'{"deleted":"2"}')
    world.loop.advance(2.0)  # the timer is off: a second answer would fail in the sink
    exchange.on_cancel()


def long_answer(keys: int) -> tuple[Pieces, str]:
    """An answer in pieces, and the whole of it as JSON."""
    header = rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(revision=7))
    kvs = [kv_pb2.KeyValue(key=b"%d" % n, value=b"v" * 200) for n in range(keys)]
    halves = [rpc_pb2.RangeResponse(kvs=half) for half in (kvs[: keys // 2], kvs[keys // 2 :])]
    parts = [p.SerializeToString() for p in (header, *halves, rpc_pb2.RangeResponse(count=keys))]
    whole = rpc_pb2.RangeResponse.FromString(b"".join(parts))
    return Pieces(tuple(parts)), to_json(whole)


def test_a_long_answer_is_written_in_slices(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "RANGE_PIECE_BYTES", 9_000)
    answer, text = long_answer(200)
    world.unary(response=rpc_pb2.RangeResponse)
    world.waiting.complete(answer)
    over: list[bool] = []
    answer.when_released(lambda: over.append(bool(world.sink.status)))
    turns = 0
    while not world.sink.status:
        assert len(world.loop.due) == 1
        ((_, turn, _),) = world.loop.due
        world.loop.due.clear()
        turn()
        turns += 1
    assert turns > 200 // JSON_PIECE_VALUES
    assert (world.sink.status, world.sink.body.decode()) == (200, text)
    assert len(world.sink.chunks) > 2
    assert len(over) == 1
    assert (world.ends, world.calls.waiting) == ({0: 1}, 0)


@pytest.mark.parametrize("how", ["gone", "late"])
def test_a_long_answer_that_nobody_waits_for_is_not_written(world: World, how: str) -> None:
    answer, _ = long_answer(200)
    exchange = world.unary(timeout=5.0, response=rpc_pb2.RangeResponse)
    world.waiting.complete(answer)
    over: list[int] = []
    answer.when_released(lambda: over.append(1))
    assert not over
    (_, turn, _) = world.loop.due.pop()
    turn()
    if how == "gone":
        exchange.on_cancel()
    world.loop.now = 6.0
    world.loop.advance(0.0)
    assert not world.loop.due
    assert world.sink.status == (0 if how == "gone" else 504)
    assert over == [1]
    assert (world.ends, world.calls.waiting) == ({1 if how == "gone" else 4: 1}, 0)


def test_a_unary_error(world: World) -> None:
    world.unary()
    world.waiting.complete(PermissionDeniedError())
    assert world.sink.status == 403
    text = "etcdserver: permission denied"
    assert world.sink.body == (
        f'{{"error":"{text}","code":7,"message":"{text}","details":[]}}'.encode()
    )


def test_a_deadline_gives_up_waiting(world: World) -> None:
    world.unary(timeout=0.5)
    world.loop.advance(0.6)
    assert world.sink.status == 504
    assert json.loads(world.sink.body)["message"] == "context deadline exceeded"
    assert world.waiting.cancelled
    world.waiting.complete(ANSWER)


def test_a_client_that_leaves_cancels(world: World) -> None:
    world.unary(timeout=0.5).on_cancel()
    assert world.waiting.cancelled
    world.loop.advance(1.0)
    assert not world.sink.status


def test_calls_that_wait_are_counted_and_bounded(world: World) -> None:
    world.unary()
    assert world.calls.waiting == 1
    world.waiting.complete(ANSWER)
    assert world.calls.waiting == 0
    for _ in range(UNARY_PER_IDENTITY_MAX):
        world.calls.enter("alice")
    with pytest.raises(OverloadedError):
        world.unary()
    world.calls.leave("alice")
    world.sink = FakeSink()
    world.waiting = Waiting()
    exchange = world.unary()
    exchange.on_cancel()
    exchange.on_cancel()
    assert world.calls.waiting == UNARY_PER_IDENTITY_MAX - 1
    for _ in range(UNARY_IN_FLIGHT_MAX - world.calls.waiting):
        world.calls.enter("bob")
    with pytest.raises(OverloadedError):
        world.unary()


@pytest.mark.parametrize(
    ("bound", "others"), [("STREAMS_PER_IDENTITY_MAX", True), ("STREAMS_MAX", False)]
)
def test_streams_that_run_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str, others: bool
) -> None:
    """Thousands fit on one connection of HTTP/2; each way to end makes room."""
    monkeypatch.setattr(calls, bound, 2)
    first = world.stream(ANSWER, timeout=1.0)
    world.sink = FakeSink()
    second = world.stream(ANSWER)
    world.sink = FakeSink()
    with pytest.raises(OverloadedError):
        world.stream(ANSWER)
    if others:
        world.calls.enter_stream("bob")
        world.calls.leave_stream("bob")
    else:
        with pytest.raises(OverloadedError):
            world.calls.enter_stream("bob")
    second.on_cancel()
    second.on_cancel()
    assert world.stream(b"fail") is None
    world.loop.advance(2.0)  # the first one's time is up
    first.on_cancel()
    assert world.calls.streaming == 0


def test_a_refused_stream_that_does_not_begin_counts_no_longer(world: World) -> None:
    method = Method("/x.X/Y", None, None, True, True, None, None)

    def refuse(_: StreamSink) -> Handler:
        raise PermissionDeniedError

    with pytest.raises(PermissionDeniedError):
        world.calls.run_refused(method, refuse, "alice", [], None, world.sink)
    assert world.calls.streaming == 0


def test_each_message_is_one_line_in_one_chunk(world: World) -> None:
    assert world.stream(ANSWER, ANSWER) is not None
    assert world.sink.status == 200
    assert world.sink.chunks == [b'{"result":{"deleted":"2"}}\n'] * 2
    assert world.heard == ["message", "message", "half_close"]
    assert not world.sink.ended


def test_an_error_before_the_first_message_sets_the_status(world: World) -> None:
    assert world.stream(b"fail") is None
    assert world.sink.status == 400
    error = json.loads(world.sink.body)["error"]
    assert error == {
        "code": 11,
        "grpc_code": 11,
        "http_code": 400,
        "http_status": "Bad Request",
        "message": CompactedError.text,
        "details": [],
    }
    assert world.heard == ["message"]


def test_an_error_later_is_the_last_line(world: World) -> None:
    world.stream(ANSWER, b"fail", ANSWER)
    assert world.sink.status == 200
    assert len(world.sink.chunks) == 2
    assert world.sink.chunks[1].endswith(b"\n")
    assert json.loads(world.sink.chunks[1])["error"]["code"] == 11
    assert world.sink.ended
    assert world.heard == ["message", "message"]


@pytest.mark.parametrize(("request_", "status"), [(b"deny", 403), (b"bug", 500)])
def test_a_handler_that_raises_is_told_of_the_end(
    world: World, request_: bytes, status: int
) -> None:
    assert world.stream(request_) is None
    assert world.sink.status == status
    assert b"secret" not in world.sink.body
    assert world.heard == ["message", "cancel"]


def test_a_stream_that_is_refused_at_once(world: World) -> None:
    def denied(caller: Caller, sink: StreamSink) -> Handler:
        raise PermissionDeniedError

    method = Method("/x.X/Y", None, denied, True, True, None, None)
    assert world.run(method, [b""], 5.0) is None
    assert world.sink.status == 403
    assert json.loads(world.sink.body)["error"]["grpc_code"] == 7
    world.loop.advance(6.0)


def test_a_broken_invariant_goes_on_upwards(world: World) -> None:
    def broken(caller: Caller, raw: bytes) -> bytes:
        raise InvariantViolationError("x")

    with pytest.raises(InvariantViolationError):
        world.run(Method("/x.X/Y", broken, None, False, False, None, None), [b""], None)


def test_a_stream_that_says_nothing_is_an_empty_answer(world: World) -> None:
    exchange = world.stream()
    exchange.finish(None)
    assert (world.sink.status, world.sink.chunks, world.sink.ended) == (200, [], True)


def test_leaving_and_lateness_end_a_stream(world: World) -> None:
    world.stream(ANSWER).on_cancel()
    assert world.heard[-1] == "cancel"
    assert not world.sink.ended
    late = World()
    late.stream(ANSWER, timeout=1.0)
    late.loop.advance(1.5)
    assert json.loads(late.sink.chunks[-1])["error"]["code"] == 4
    assert late.sink.ended
    assert late.heard == ["message", "half_close", "cancel"]


def test_a_slow_reader_is_passed_on(world: World) -> None:
    world.sink.room = False
    exchange = world.stream()
    assert world.handler is not None
    assert world.handler.sink.send(ANSWER) is False
    exchange.on_writable()
    assert world.heard[-1] == "writable"
    exchange.on_cancel()
    assert world.handler.sink.send(ANSWER) is False
    assert len(world.sink.chunks) == 1


@pytest.mark.parametrize("code", range(1, 17))
def test_every_code_has_a_status_and_both_bodies(code: int) -> None:
    sink = FakeSink()
    send_error(sink, code, "x")
    assert sink.status == HTTP_OF[code]
    assert reason_of(sink.status)
    assert (b"www-authenticate" in sink.headers) == (code == 16)
    error = json.loads(stream_error(code, "x"))["error"]
    assert (error["code"], error["http_code"]) == (code, sink.status)


def test_only_refusals_are_counted_as_such() -> None:
    assert told(PermissionDeniedError())[0] == 7
    assert told(cast(ConfigServiceError, ZeroDivisionError()))[0] == 13


def test_each_unary_call_counts_once() -> None:
    done = World()
    done.unary(timeout=1.0)
    assert (done.counts.started, sum(done.counts.handled)) == (1, 0)
    done.waiting.complete(ANSWER)
    assert done.ends == {0: 1}
    failed = World()
    failed.unary()
    failed.waiting.complete(PermissionDeniedError())
    assert failed.ends == {7: 1}
    late = World()
    late.unary(timeout=1.0)
    late.loop.advance(1.5)
    assert late.ends == {4: 1}
    left = World()
    exchange = left.unary(timeout=1.0)
    exchange.on_cancel()
    exchange.on_cancel()
    left.loop.advance(1.5)
    assert left.ends == {1: 1}
    at_once = World()
    echo = Method("/x.X/Y", lambda c, raw: raw, None, False, False, None,
                  rpc_pb2.DeleteRangeResponse)  # fmt: skip
    at_once.run(echo, [ANSWER], None)
    assert at_once.ends == {0: 1}


@pytest.mark.parametrize(
    ("requests", "code"), [([b"deny"], 7), ([b"bug"], 13), ([b"fail"], 11), ([ANSWER, b"fail"], 11)]
)
def test_a_stream_that_ends_counts_once(world: World, requests: list[bytes], code: int) -> None:
    world.stream(*requests)
    assert world.ends == {code: 1}
    assert (world.counts.received, world.counts.sent) == (len(requests), len(requests) - 1)


def test_a_stream_that_is_ended_counts_once() -> None:
    finished, left, late = World(), World(), World()
    finished.stream(ANSWER).finish(None)
    left.stream(ANSWER).on_cancel()
    late.stream(ANSWER, timeout=1.0)
    late.loop.advance(1.5)
    assert (finished.ends, left.ends, late.ends) == ({0: 1}, {1: 1}, {4: 1})
