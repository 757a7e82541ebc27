"""The same handlers behind grpcio's own server and behind our front end.

Handlers are written once, as our API's table has them (``api.contract``). ``OurServer`` serves
them as the product does; ``GrpcioServer`` translates between them and grpcio's asyncio server.
What differs between the two is then the servers' doing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from configsvc.api.contract import Caller, ConnectionIdentity, Method, StreamSink, Waiting
from configsvc.errors import ConfigServiceError
from configsvc.frontend.server import Frontend
from configsvc.limits import MESSAGE_BYTES_MAX
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL

Metadata = tuple[tuple[bytes, bytes], ...]


class StatusError(ConfigServiceError):
    """Ends a call with a status of the client's choice."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def asked_for(raw: bytes) -> StatusError:
    """``b"9 some text"`` as an error."""
    code, _, text = raw.decode().partition(" ")
    return StatusError(int(code), text)


class SeenCaller(Caller):
    """Knows the metadata that it came with."""

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(SYSTEM_PRINCIPAL, NO_SOURCE, b"")
        self.metadata = metadata


class Anybody:
    """An identity that may do everything."""

    key = ""

    def caller(self, metadata: Metadata) -> Caller:
        return SeenCaller(metadata)


class Handlers:
    """The table; ``cancelled`` says which calls were told that nobody waits any more.

    ``begun``: those that wait, or did.
    """

    def __init__(self) -> None:
        self.begun: set[bytes] = set()
        self.cancelled: set[bytes] = set()
        rows = [
            Method("/test.Twin/Echo", self._echo, None, False, False, None, None),
            Method("/test.Twin/Status", self._status, None, False, False, None, None),
            Method("/test.Twin/Metadata", self._metadata, None, False, False, None, None),
            Method("/test.Twin/Wait", self._wait, None, False, False, None, None),
            Method("/test.Twin/Begun", self._has_begun, None, False, False, None, None),
            Method("/test.Twin/Cancelled", self._cancelled, None, False, False, None, None),
            Method("/test.Twin/Big", self._big, None, False, False, None, None),
            Method("/test.Twin/Both", None, self._both, True, True, None, None),
            Method("/test.Twin/Down", None, self._down, False, True, None, None),
            Method("/test.Twin/Up", None, self._up, True, False, None, None),
        ]
        self.methods = {row.path.encode(): row for row in rows}

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> ConnectionIdentity:
        return Anybody()

    def status_of(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, StatusError):
            return error.code, str(error)
        # The table has no row for it: framing of ours, or a bug.
        return (12, str(error)) if isinstance(error, ConfigServiceError) else (13, "internal")

    def _echo(self, caller: Caller, raw: bytes) -> bytes:
        return raw

    def _status(self, caller: Caller, raw: bytes) -> bytes:
        raise asked_for(raw)

    def _metadata(self, caller: Caller, raw: bytes) -> bytes:
        assert isinstance(caller, SeenCaller)
        return b"\n".join(b"%s=%r" % (name, value) for name, value in caller.metadata
                          if name.startswith(b"x-"))  # fmt: skip

    def _wait(self, caller: Caller, raw: bytes) -> Waiting:
        self.begun.add(raw)
        return Endless(lambda: self.cancelled.add(raw))

    def _has_begun(self, caller: Caller, raw: bytes) -> bytes:
        return b"yes" if raw in self.begun else b"no"

    def _cancelled(self, caller: Caller, raw: bytes) -> bytes:
        return b"yes" if raw in self.cancelled else b"no"

    def _big(self, caller: Caller, raw: bytes) -> bytes:
        return b"B" * int(raw)

    def _both(self, caller: Caller, sink: StreamSink) -> Echoing:
        return Echoing(self, sink)

    def _down(self, caller: Caller, sink: StreamSink) -> Counting:
        return Counting(self, sink)

    def _up(self, caller: Caller, sink: StreamSink) -> Summing:
        return Summing(self, sink)


class Endless(Waiting):
    """Never complete; tells when it is given up."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        super().cancel()
        self._on_cancel()


class Streaming:
    """What all streams of the table have in common."""

    def __init__(self, handlers: Handlers, sink: StreamSink) -> None:
        self._handlers = handlers
        self._sink = sink
        self._heard: list[bytes] = []

    def on_message(self, raw: bytes) -> None:
        self._heard.append(raw)

    def on_half_close(self) -> None:
        """Nothing is said."""

    def on_cancel(self) -> None:
        if self._heard:
            self._handlers.cancelled.add(self._heard[0])

    def on_writable(self) -> None:
        """These streams stay below every bound."""


class Echoing(Streaming):
    """Echoes; ``fail 9 text`` ends it, the end of the request does so with a count."""

    def on_message(self, raw: bytes) -> None:
        super().on_message(raw)
        if raw.startswith(b"fail "):
            raise asked_for(raw[5:])
        self._sink.send(raw)

    def on_half_close(self) -> None:
        self._sink.send(b"%d" % len(self._heard))
        self._sink.finish(None)


class Counting(Streaming):
    """``3`` gives three messages, ``3 9 text`` a status after them, ``hang`` one and no end."""

    def on_message(self, raw: bytes) -> None:
        super().on_message(raw)
        if raw.startswith(b"hang"):
            self._sink.send(b"0")
            return
        count, _, status = raw.partition(b" ")
        for number in range(int(count)):
            self._sink.send(b"%d" % number)
        self._sink.finish(asked_for(status) if status else None)


class Summing(Streaming):
    """One message at the end, all of them joined."""

    def on_half_close(self) -> None:
        self._sink.send(b"+".join(self._heard))
        self._sink.finish(None)


# --- servers -------------------------------------------------------------------------------------


class Server:
    """A server on a loop and in a thread of its own."""

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)

    async def _start(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()


class OurServer(Server):
    """The product's front end."""

    async def _start(self) -> None:
        self._frontend = Frontend(self.handlers, None)
        self.port = self._frontend.listen("127.0.0.1", 0, tls=None).address[1]

    async def _end(self) -> None:
        await self._frontend.stop(0.5)


class GrpcioServer(Server):
    """grpcio's, bounded as ours is where it has the bound."""

    async def _start(self) -> None:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", -1),
        ]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((Translated(self.handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def _end(self) -> None:
        await self._server.stop(0.5)


class Twins(NamedTuple):
    """Both of them."""

    ours: OurServer
    grpcio: GrpcioServer


class Translated(grpc.GenericRpcHandler):
    """Our table as grpcio wants it."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = self._handlers.methods.get(details.method.encode())
        if method is None:
            return None
        if method.unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method))
        if not method.client_stream:
            return grpc.unary_stream_rpc_method_handler(self._one_in(method))
        if not method.server_stream:
            return grpc.stream_unary_rpc_method_handler(self._one_out(method))
        return grpc.stream_stream_rpc_method_handler(self._streamed(method))

    def _caller(self, context: Any) -> Caller:
        pairs = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata()
        ]
        return Anybody().caller(tuple(pairs))

    async def _abort(self, context: Any, error: Exception) -> None:
        code, text = self._handlers.status_of(error)
        await context.abort(_CODES[code], text)

    def _unary(self, method: Method) -> Callable[[bytes, Any], Awaitable[bytes | None]]:
        async def run(raw: bytes, context: Any) -> bytes | None:
            assert method.unary is not None
            try:
                result = method.unary(self._caller(context), raw)
                if isinstance(result, Waiting):
                    result = await _completed(result)
            except ConfigServiceError as error:
                await self._abort(context, error)
                return None
            return result

        return run

    def _streamed(self, method: Method) -> Callable[[AsyncIterator[bytes], Any], Any]:
        async def run(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            assert method.stream is not None
            sink = QueueSink()
            handler = method.stream(self._caller(context), sink)
            reading = asyncio.ensure_future(_read(requests, handler, sink))
            try:
                while isinstance(item := await sink.items.get(), bytes):
                    yield item
            except asyncio.CancelledError:
                handler.on_cancel()
                raise
            finally:
                reading.cancel()
            if item is not None:
                await self._abort(context, item)

        return run

    def _one_in(self, method: Method) -> Callable[[bytes, Any], Any]:
        streamed = self._streamed(method)

        async def requests(raw: bytes) -> AsyncIterator[bytes]:
            yield raw

        async def run(raw: bytes, context: Any) -> AsyncIterator[bytes]:
            async for each in streamed(requests(raw), context):
                yield each

        return run

    def _one_out(self, method: Method) -> Callable[[AsyncIterator[bytes], Any], Any]:
        streamed = self._streamed(method)

        async def run(requests: AsyncIterator[bytes], context: Any) -> bytes:
            return b"".join([each async for each in streamed(requests, context)])

        return run


class QueueSink:
    """A sink whose messages, and then None or an error, are taken from a queue."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, payload: bytes) -> bool:
        self.items.put_nowait(payload)
        return True

    def finish(self, error: ConfigServiceError | None) -> None:
        self.items.put_nowait(error)


async def _read(requests: AsyncIterator[bytes], handler: Any, sink: QueueSink) -> None:
    try:
        async for raw in requests:
            handler.on_message(raw)
        handler.on_half_close()
    except ConfigServiceError as error:
        sink.finish(error)


async def _completed(waiting: Waiting) -> bytes:
    future: asyncio.Future[bytes | ConfigServiceError] = asyncio.get_running_loop().create_future()
    waiting.bind(lambda result: future.done() or future.set_result(result))
    try:
        result = await future
    except asyncio.CancelledError:
        waiting.cancel()
        raise
    if isinstance(result, bytes):
        return result
    raise result


_CODES = {code.value[0]: code for code in grpc.StatusCode}
