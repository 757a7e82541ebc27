"""JSON calls that run: a unary one that waits, a stream in chunks.

Both are the ``HttpExchange`` of their request, so a client that leaves cancels them.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from typing import Final

from configsvc.api.call_counts import CANCELLED, DEADLINE_EXCEEDED, OK
from configsvc.api.contract import (
    Answer,
    Caller,
    HttpSink,
    Method,
    Pieces,
    StreamFactory,
    StreamHandler,
    StreamSink,
    Waiting,
)
from configsvc.errors import (
    ConfigServiceError,
    DeadlineExceededError,
    InvariantViolationError,
    OverloadedError,
    ensure,
)
from configsvc.gateway.answers import JSON_FIELDS, send_error, send_stream_error, stream_error
from configsvc.gateway.json_out import JsonPieces, to_json
from configsvc.limits import (
    JSON_PIECE_VALUES,
    RANGE_PIECE_BYTES,
    STREAMS_MAX,
    STREAMS_PER_IDENTITY_MAX,
    UNARY_IN_FLIGHT_MAX,
    UNARY_PER_IDENTITY_MAX,
)
from configsvc.runtime.slices import Slices

StatusOf = Callable[[BaseException], tuple[int, str]]
TOO_LATE: Final = "context deadline exceeded"


class Calls:
    """Runs the methods that JSON requests name; knows how many wait or run, and of whom (LIM-5).

    One connection of HTTP/2 carries many of them, so connections alone bound nothing.
    """

    def __init__(self, loop: AbstractEventLoop, status_of: StatusOf, slices: Slices) -> None:
        self.loop = loop
        self.status_of = status_of
        self.slices = slices  # of long answers
        self.waiting = 0
        self._waiting_of: dict[str, int] = {}
        self.streaming = 0
        self._streaming_of: dict[str, int] = {}

    def run(
        self,
        method: Method,
        caller: Caller,
        key: str,
        requests: list[bytes],
        timeout: float | None,
        sink: HttpSink,
    ) -> UnaryExchange | StreamExchange | None:
        """Call a method; the exchange if it goes on, else None.

        Raises what a unary handler raises, and ``OverloadedError`` when too many calls wait or
        streams run, in all or of the identity ``key``; the errors of a stream that began are its
        last line.
        """
        if method.stream is not None:
            return self._stream(method, method.stream, caller, key, requests, timeout, sink)
        unary = method.unary
        ensure(unary is not None and len(requests) == 1, "a unary method takes one message")
        if self._full(key):
            raise OverloadedError
        answer = unary(caller, requests[0])  # type: ignore[misc]
        method.counts.started += 1  # what is raised is counted by whoever tells it
        if isinstance(answer, bytes):
            method.counts.handled[OK] += 1
            send_message(sink, method, answer)
            return None
        exchange = UnaryExchange(self, method, key, sink)
        exchange.start(answer, timeout)
        return exchange

    def run_refused(
        self,
        method: Method,
        open_: Callable[[StreamSink], StreamHandler],
        key: str,
        requests: list[bytes],
        timeout: float | None,
        sink: HttpSink,
    ) -> StreamExchange | None:
        """Run a stream whose caller was refused and which refuses what it is asked for by itself.

        Raises what ``open_`` raises, and as ``run`` does: then nothing was sent.
        """
        stream = StreamExchange(self, method, key, sink)
        try:
            handler = open_(stream)
        except BaseException:
            stream.give_up()
            raise
        stream.start(lambda: handler, requests, timeout)
        return None if stream.ended else stream

    def _stream(
        self,
        method: Method,
        factory: StreamFactory,
        caller: Caller,
        key: str,
        requests: list[bytes],
        timeout: float | None,
        sink: HttpSink,
    ) -> StreamExchange | None:
        stream = StreamExchange(self, method, key, sink)
        stream.start(lambda: factory(caller, stream), requests, timeout)
        return None if stream.ended else stream

    def enter(self, key: str) -> None:
        """A unary call begins to wait."""
        self.waiting += 1
        self._waiting_of[key] = self._waiting_of.get(key, 0) + 1

    def leave(self, key: str) -> None:
        """It waits no more."""
        self.waiting -= 1
        left = self._waiting_of[key] - 1
        if left:
            self._waiting_of[key] = left
        else:
            del self._waiting_of[key]

    def enter_stream(self, key: str) -> None:
        """A stream begins.

        Raises:
            OverloadedError: too many run.
        """
        of = self._streaming_of.get(key, 0)
        if self.streaming >= STREAMS_MAX or (key != "" and of >= STREAMS_PER_IDENTITY_MAX):
            raise OverloadedError
        self.streaming += 1
        self._streaming_of[key] = of + 1

    def leave_stream(self, key: str) -> None:
        """It has ended."""
        self.streaming -= 1
        left = self._streaming_of[key] - 1
        if left:
            self._streaming_of[key] = left
        else:
            del self._streaming_of[key]

    def _full(self, key: str) -> bool:
        if self.waiting >= UNARY_IN_FLIGHT_MAX:
            return True
        return key != "" and self._waiting_of.get(key, 0) >= UNARY_PER_IDENTITY_MAX


class UnaryExchange:
    """A unary call that waits for the runtime; the object itself is its ``Finish``."""

    streams = False

    def __init__(self, calls: Calls, method: Method, key: str, sink: HttpSink) -> None:
        self._calls = calls
        self._method = method
        self._key = key
        self._sink = sink
        self._waiting: Waiting | None = None
        self._timer: TimerHandle | None = None
        self._long: Pieces | None = None  # what is being written
        self._steps: Iterator[bool] = iter(())

    def start(self, waiting: Waiting, timeout: float | None) -> None:
        """Wait for the answer, ``timeout`` seconds at most; None: as long as it takes."""
        self._waiting = waiting
        self._calls.enter(self._key)
        if timeout is not None:
            self._timer = self._calls.loop.call_later(timeout, self._expire)
        waiting.bind_pieces(self)

    def __call__(self, result: Answer | ConfigServiceError) -> None:
        """The answer is there."""
        if isinstance(result, Pieces):
            result.keep()
            self._long = result
            self._steps = self._write(result)
            self._calls.slices.add(self._slice)
            return
        self._release()
        handled = self._method.counts.handled
        if isinstance(result, bytes):
            handled[OK] += 1
            send_message(self._sink, self._method, result)
        else:
            code, text = self._calls.status_of(result)
            handled[code] += 1
            send_error(self._sink, code, text)

    def _slice(self) -> bool:
        """The next slice of a long answer, unless nobody waits for it any more."""
        return self._waiting is not None and next(self._steps, None) is not None

    def _write(self, answer: Pieces) -> Iterator[bool]:
        """As JSON, piece by piece; then it goes out."""
        document, parse = JsonPieces(), self._method.response.FromString
        body: list[bytes] = []
        texts: list[str] = []
        size = 0
        for part in answer.parts:
            for text in document.add(parse(part), JSON_PIECE_VALUES):
                texts.append(text)
                size += len(text)
                if size >= RANGE_PIECE_BYTES:
                    body.append("".join(texts).encode())
                    texts.clear()
                    size = 0
                yield True
        body.append(("".join(texts) + document.end()).encode())
        self._release()
        self._method.counts.handled[OK] += 1
        self._sink.respond_parts(200, JSON_FIELDS, body)

    def on_cancel(self) -> None:
        """The client is gone."""
        self._leave(CANCELLED)

    def on_writable(self) -> None:
        """A unary answer is sent whole."""

    def _expire(self) -> None:
        self._leave(DEADLINE_EXCEEDED)
        send_error(self._sink, *self._calls.status_of(DeadlineExceededError(TOO_LATE)))

    def _leave(self, code: int) -> None:
        """End without an answer of the runtime."""
        waiting = self._waiting
        self._release()
        if waiting is not None:
            self._method.counts.handled[code] += 1
            waiting.cancel()

    def _release(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._calls.leave(self._key)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._long is not None:
            self._long.release()
            self._long = None


class StreamExchange:
    """A stream: one chunk per message. The sink of its handler, and the handler's only caller."""

    streams = True

    def __init__(self, calls: Calls, method: Method, key: str, sink: HttpSink) -> None:
        """Raises ``OverloadedError`` as ``Calls.enter_stream`` does."""
        calls.enter_stream(key)
        self._calls = calls
        self._key = key
        self._response = method.response
        self._counts = method.counts
        self._sink = sink
        self._handler: StreamHandler | None = None
        self._timer: TimerHandle | None = None
        self._started = False
        self.ended = False

    def start(
        self,
        open_: Callable[[], StreamHandler],
        requests: list[bytes],
        timeout: float | None,
    ) -> None:
        """Hand the requests on; the body is whole, so its end is a half-close (G6)."""
        if timeout is not None:
            self._timer = self._calls.loop.call_later(timeout, self._expire)
        self._counts.started += 1
        try:
            handler = self._handler = open_()
            for request in requests:
                if not self.ended:
                    self._counts.received += 1
                    handler.on_message(request)
            if not self.ended:
                handler.on_half_close()
        except InvariantViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
            self._stop(error)

    # --- StreamSink ------------------------------------------------------------------------------

    def send(self, payload: bytes) -> bool:
        """One message: one line, one chunk of its own (compat.md 5.3)."""
        if self.ended:
            return False
        self._open()
        self._counts.sent += 1
        line = '{"result":' + to_json(self._response.FromString(payload)) + "}\n"
        return self._sink.chunk(line.encode())

    def finish(self, error: ConfigServiceError | None) -> None:
        """The handler ended the stream."""
        if self.ended:
            return
        self._release()
        if error is None:
            self._counts.handled[OK] += 1
            self._open()
            self._sink.end()
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        code, text = self._calls.status_of(error)
        self._counts.handled[code] += 1
        if not self._started:
            send_stream_error(self._sink, code, text)
            return
        self._sink.chunk(stream_error(code, text))
        self._sink.end()

    # --- HttpExchange ----------------------------------------------------------------------------

    def on_cancel(self) -> None:
        """The client is gone, or was cut off for not reading."""
        if not self.ended:
            self._counts.handled[CANCELLED] += 1
            self._free()

    def on_writable(self) -> None:
        """There is room again."""
        if self.ended or self._handler is None:
            return
        try:
            self._handler.on_writable()
        except InvariantViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
            self._stop(error)

    # --- inside ----------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self._started:
            self._started = True
            self._sink.start(200, JSON_FIELDS)

    def _expire(self) -> None:
        self._stop(DeadlineExceededError(TOO_LATE))

    def _stop(self, error: Exception) -> None:
        """End the stream from our side, though its handler would go on."""
        if not self.ended:
            self._free()
            self._fail(error)

    def _free(self) -> None:
        self._release()
        if self._handler is not None:
            self._handler.on_cancel()

    def give_up(self) -> None:
        """It never began."""
        self._release()

    def _release(self) -> None:
        """Once, for every way to end begins by asking whether it has."""
        self.ended = True
        self._calls.leave_stream(self._key)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def send_message(sink: HttpSink, method: Method, payload: bytes) -> None:
    """A whole unary answer."""
    body = to_json(method.response.FromString(payload)).encode()
    sink.respond(200, JSON_FIELDS, body)
