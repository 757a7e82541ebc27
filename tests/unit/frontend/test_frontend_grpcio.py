"""A foreign client, grpcio's, against handlers of ours over real sockets.

One server in a thread of its own serves all tests; each test has its own channel.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
import uvloop

from configsvc.frontend.server import Frontend
from tests.support.frontend_fakes import FakeApi, FakeHttp

IDENTITY_METADATA = (("token", "abc"), ("x-change-reason", "why"), ("x-data-bin", b"\0\xff"))


class ServerThread:
    """The front end on a loop of its own."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.address = ""
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._frontend.stop(1.0))
        self._loop.close()

    async def _start(self) -> None:
        self._frontend = Frontend(self.api, FakeHttp())
        host, port = self._frontend.listen("127.0.0.1", 0, tls=None).address
        self.address = f"{host}:{port}"
        self._ready.set()

    def soon(self, what: object, *args: object) -> None:
        self._loop.call_soon_threadsafe(what, *args)  # type: ignore[arg-type]

    def later(self, what: Callable[[], None]) -> None:
        self._loop.call_later(0.005, what)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    made = ServerThread()
    yield made
    made.stop()


@pytest.fixture
def channel(server: ServerThread) -> Iterator[grpc.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_535, 70_000, 1_500_000, 2_097_152])
def test_messages_of_all_sizes(channel: grpc.Channel, size: int) -> None:
    call = channel.unary_unary("/test.Echo/Unary")
    payload = b"p" * size
    assert call(payload, timeout=10) == payload


def test_answers_far_larger_than_windows(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Big")
    assert call(b"20000000", timeout=20) == b"B" * 20_000_000


def test_a_message_that_is_too_large(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Unary")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"p" * 2_097_153, timeout=10)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(b"next", timeout=10) == b"next"


def test_statuses_and_texts(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Fail")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "etcdserver: permission denied\n100% ü"
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/no.Such/Method")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Unary")(b"", timeout=10, metadata=(("token", "bad"),))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_compression_is_refused(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/test.Echo/Unary")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"p" * 10_000, timeout=10, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_arrives_as_it_was_sent(server: ServerThread, channel: grpc.Channel) -> None:
    channel.unary_unary("/test.Echo/Unary")(b"", timeout=10, metadata=IDENTITY_METADATA)
    arrived = dict(server.api.identities[-1].metadata)
    assert arrived[b"token"] == b"abc"
    assert arrived[b"x-change-reason"] == b"why"
    assert arrived[b"x-data-bin"] == b"\0\xff"


def test_deadlines_end_on_both_sides(server: ServerThread, channel: grpc.Channel) -> None:
    before = len(server.api.waiting)
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Echo/Wait")(b"", timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert channel.unary_unary("/test.Echo/Unary")(b"after", timeout=10) == b"after"
    assert server.api.waiting[before].cancelled


def test_waiting_calls_are_completed(server: ServerThread, channel: grpc.Channel) -> None:
    before = len(server.api.waiting)
    call = channel.unary_unary("/test.Echo/Wait")
    futures = [call.future(b"%d" % number, timeout=10) for number in range(50)]

    def finish() -> None:
        arrived = server.api.waiting[before:]
        if len(arrived) < 50:
            server.later(finish)
            return
        for waiting, (_, raw) in zip(arrived, server.api.calls[-50:], strict=True):
            waiting.complete(raw)

    server.soon(finish)
    assert [future.result() for future in futures] == [b"%d" % n for n in range(50)]


def test_streams_in_both_directions(channel: grpc.Channel) -> None:
    call = channel.stream_stream("/test.Echo/Stream")
    sent = [b"a", b"", b"c" * 100_000, b"finish"]
    assert list(call(iter(sent), timeout=10)) == sent[:3]


def test_a_stream_outlives_the_clients_half_close(
    server: ServerThread, channel: grpc.Channel
) -> None:
    call = channel.unary_stream("/test.Echo/Down")(b"first", timeout=10)
    assert next(call) == b"first"
    stream = server.api.streams[-1]
    assert "half_close" in stream.heard
    server.soon(stream.sink.send, b"second")
    assert next(call) == b"second"
    server.soon(stream.sink.finish, None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_many_messages_under_flow_control(channel: grpc.Channel) -> None:
    call = channel.unary_stream("/test.Echo/Down")(b"burst:8000", timeout=20)
    for number, message in enumerate(call):
        assert len(message) == 1024
        if number == 7_999:
            call.cancel()
            break
    assert number == 7_999


def test_a_cancelled_stream_is_told(server: ServerThread, channel: grpc.Channel) -> None:
    call = channel.unary_stream("/test.Echo/Down")(b"x", timeout=10)
    next(call)
    stream = server.api.streams[-1]
    call.cancel()
    # The reset precedes this call on the same connection.
    channel.unary_unary("/test.Echo/Unary")(b"", timeout=10)
    assert stream.heard[-1] == "cancel"


def test_a_closed_channel_frees_its_streams(server: ServerThread) -> None:
    gone = threading.Event()
    with grpc.insecure_channel(server.address) as channel:
        next(channel.unary_stream("/test.Echo/Down")(b"x", timeout=10))
        stream = server.api.streams[-1]
        original = stream.on_cancel
        stream.on_cancel = lambda: (original(), gone.set())[0]  # type: ignore[method-assign, func-returns-value]
    assert gone.wait(10)


def test_grpc_aio_too(server: ServerThread) -> None:
    async def scenario() -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/test.Echo/Unary")
            answers = await asyncio.gather(*(call(b"%d" % n, timeout=10) for n in range(300)))
            assert answers == [b"%d" % n for n in range(300)]

    asyncio.run(scenario())
