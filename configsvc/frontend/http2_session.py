"""One HTTP/2 connection: what arrives goes to handlers, what they answer goes out.

Knows no socket: bytes come in through ``receive``, bytes leave through ``take``, and ``on_dirty``
tells whoever owns the socket that there is something to take.

A unary call whose request is in one read and whose handler answers at once costs no object but
its stream. Everything else keeps its state in ``stream.context`` (``grpc_calls``, ``exchanges``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from configsvc.api.call_counts import CANCELLED, OK, UNCOUNTED, CallCounts
from configsvc.api.contract import (
    ConnectionIdentity,
    HttpRequest,
    Method,
    StreamFactory,
    StreamHandler,
    UnaryHandler,
)
from configsvc.errors import (
    CertificateNotAcceptableError,
    ConfigServiceError,
    InvariantViolationError,
    OverloadedError,
    RequestError,
    UnimplementedError,
)
from configsvc.frontend.admission import Tally
from configsvc.frontend.exchanges import Http2Exchange
from configsvc.frontend.grpc_calls import ENDING, StreamCall, UnaryCall, UnaryRead
from configsvc.frontend.intake import Intake
from configsvc.frontend.progress import Progress
from configsvc.frontend.refusals import FLOOD, MALFORMED, SLOW
from configsvc.frontend.shared import Refuse, Shared
from configsvc.http2 import grpc
from configsvc.http2.connection import DATA, DATA_END, HEAD, Connection
from configsvc.http2.grpc import GrpcFault
from configsvc.http2.protocol import ENHANCE_YOUR_CALM, INTERNAL_ERROR, ConnectionFault
from configsvc.http2.request import Field, RequestHead
from configsvc.http2.stream import CLOSED, Stream
from configsvc.limits import (
    CONNECTION_OUT_BYTES_MAX,
    REFUSALS_PER_CONNECTION_MAX,
    SLOW_WRITER_BYTES_MIN,
    SLOW_WRITER_SECONDS_MAX,
)

_SLOW_WRITER: Final = "writes too slowly"


class Route:
    """What a request head means here; kept in ``head.context``, so found once per head."""

    __slots__ = ("counts", "error", "is_grpc", "metadata", "method", "timeout", "unary")

    def __init__(self, head: RequestHead, methods: dict[bytes, Method]) -> None:
        self.is_grpc = head.is_grpc and head.method == b"POST"
        self.method: Method | None = None
        self.unary: UnaryHandler | None = None
        self.counts: CallCounts = UNCOUNTED
        self.timeout: float | None = None
        self.metadata: tuple[Field, ...] = ()
        self.error: GrpcFault | None = None
        if not self.is_grpc:
            return
        # Exactly these paths are served; there is nothing to normalize (N34).
        self.method = methods.get(head.path)
        if self.method is not None:
            self.unary = self.method.unary
            self.counts = self.method.counts
        try:
            self.timeout, self.metadata = grpc.grpc_head(head)
        except GrpcFault as fault:
            self.error = fault


class Http2Session:
    """An HTTP/2 connection and the calls on it."""

    def __init__(
        self,
        shared: Shared,
        identity: ConnectionIdentity,
        tally: Tally,
        on_dirty: Callable[[], None],
    ) -> None:
        self.shared = shared
        self.identity = identity
        self.tally = tally
        self.http2 = Connection(shared.clock(), max_streams=shared.max_streams)
        self.outbox = self.http2.outbox
        self.wake = on_dirty
        self.has_deadlines = False  # a sweep is worth while
        self._refusals = 0
        self._intake = Intake(self.http2, shared.admission, tally)
        self._pieces_bytes = 0  # of requests that came in pieces
        self._progress = Progress()
        self._touched: dict[int, Stream] = {}  # brought a piece of a request in this read
        self._postponed: dict[int, tuple[Stream, bytes]] = {}  # whole requests, output is full

    # --- for the owner of the socket -------------------------------------------------------------

    @property
    def opened(self) -> bool:
        """Whether the peer's preface and SETTINGS have arrived."""
        return self.http2.settled

    @property
    def activity(self) -> int | None:
        """A number that changes with every request; None while a stream is open."""
        return None if self.http2.streams else self.http2.last_id

    @property
    def at_ease(self) -> bool:
        """Whether there is nothing to write, to wait for or to end; what holds most of the time."""
        http2 = self.http2
        outbox = self.outbox
        return not (
            outbox.frames
            or outbox.held
            or self.has_deadlines
            or http2.fault is not None
            or http2.draining
            or http2.peer_leaves
            or not http2.settled
        )

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once the output is written."""
        return self.http2.fault is not None or self.http2.drained

    @property
    def fault(self) -> str:
        """Why the peer is being cut off, or ""; a constant of ours."""
        return self.http2.fault.reason if self.http2.fault is not None else ""

    @property
    def fault_kind(self) -> str:
        """Which kind of refusal that is."""
        fault = self.http2.fault
        if fault is None or fault.code != ENHANCE_YOUR_CALM:
            return MALFORMED
        return SLOW if fault.reason == _SLOW_WRITER else FLOOD

    @property
    def has_output(self) -> bool:
        """Whether ``take`` would find something."""
        return bool(self.outbox.frames)

    @property
    def has_backlog(self) -> bool:
        """Whether there is more than one write takes."""
        return self.outbox.held > 0 and bool(self.outbox.frames)

    @property
    def waiting_bytes(self) -> int:
        """Output that waits for the peer's windows."""
        return self.outbox.held

    def receive(self, data: bytes) -> None:
        """Digest one read; afterwards there may be something to ``take``."""
        now = self.shared.clock()
        events = self.http2.receive(data, now)
        if self.http2.fault is None:
            for kind, stream, chunk in events:
                if stream.state == CLOSED:
                    # Reset later in the same read, or answered early: nothing of it is started.
                    self._drop(stream)
                elif kind == DATA_END:
                    context = stream.context
                    if context is None:
                        self._whole(stream, chunk, now)
                    else:
                        self._last_piece(stream, context, chunk)
                elif kind == HEAD:
                    route = stream.head.context
                    if route is None or route.unary is None:
                        self._open(stream, now)  # others are judged when their message is there
                elif kind == DATA:
                    self._piece(stream, chunk)
            if self._touched:
                self._settle(now)
        else:
            for _, stream, _ in events:  # what a read ended before its fault is in no table
                self._drop(stream)
        if self.http2.fault is not None:
            self.lost()
        elif self.outbox.drained or self._postponed:
            self.tell_writable()

    def take(self) -> bytes:
        """Bytes to write now."""
        data = self.outbox.take()
        if data and (self.outbox.drained or self._postponed):
            self.tell_writable()
        return data

    def tell_writable(self) -> None:
        """Wake what waited for room."""
        drained = self.outbox.drained
        while drained:
            context = drained.pop().context
            if context is not None:
                context.writable()
        while self._postponed and self.outbox.held <= CONNECTION_OUT_BYTES_MAX // 2:
            stream, body = self._postponed.pop(next(iter(self._postponed)))
            self._intake.release(stream)
            self._whole(stream, body, self.shared.clock())

    def pause(self) -> None:
        """The socket is full."""
        self.outbox.pause()

    def resume(self) -> None:
        """The socket takes bytes again."""
        self._progress.restart()  # it was not read from either
        self.outbox.resume()

    def expire(self, now: float) -> None:
        """End the calls whose deadline has passed, or a peer that leaves requests half sent."""
        left = self._awaits_pieces(now)
        for stream in list(self.http2.streams.values()):
            context = stream.context
            deadline = None if context is None else context.deadline
            if deadline is not None:
                if deadline <= now:
                    self._intake.release(stream)
                    context.expire()
                else:
                    left = True
        self.has_deadlines = left

    def drain(self) -> None:
        """Serve what is there, accept nothing that the peer opens after hearing of it."""
        self.http2.drain()

    def finish_drain(self) -> None:
        """The peer had time enough to hear of it."""
        self.http2.finish_drain()

    def end_streams(self, error: ConfigServiceError) -> None:
        """End the streams that would otherwise run for ever."""
        for stream in list(self.http2.streams.values()):
            if isinstance(stream.context, StreamCall):
                self._intake.release(stream)
                stream.context.stop(error)
            elif isinstance(stream.context, Http2Exchange):
                stream.context.stop_streaming()

    def lost(self) -> None:
        """The connection is gone or condemned: free everything that waits (N6)."""
        for stream in list(self.http2.streams.values()):
            self._drop(stream)

    # --- for calls and exchanges -----------------------------------------------------------------

    def call_unary(self, stream: Stream, message: bytes) -> None:
        """Run the handler of a unary call whose message is whole."""
        self._call(stream, stream.head.context, message, self.shared.clock())

    def end_call(self, stream: Stream, code: int, text: str) -> None:
        """End a gRPC call with a status."""
        if stream.state != CLOSED:
            stream.head.context.counts.handled[code] += 1
            self.turn_away(stream, code, text)

    def turn_away(self, stream: Stream, code: int, text: str) -> None:
        """End what is no call yet, or counted already, with a status."""
        if stream.state != CLOSED:
            stream.context = None
            self._intake.release(stream)
            grpc.finish(self.outbox, stream, code, text)

    def fail_call(self, stream: Stream, error: Exception) -> None:
        """End a gRPC call with the status of an error, once its record is on disk (FC-2)."""
        if self.shared.refuse is None:
            self.end_call(stream, *self.shared.status_of(error))
        else:
            self._refuse(self.shared.refuse, stream, error)
        if isinstance(error, CertificateNotAcceptableError):
            self.count_refusal()

    def _refuse(self, refuse: Refuse, stream: Stream, error: Exception) -> None:
        if isinstance(error, InvariantViolationError):
            raise error
        if stream.state != CLOSED and not isinstance(stream.context, StreamCall):
            stream.context = ENDING
        self._intake.release(stream)

        route: Route = stream.head.context

        def tell(code: int, text: str) -> None:
            route.counts.handled[code] += 1
            self.turn_away(stream, code, text)
            self.wake()

        path = route.method.path if route.method is not None else ""
        refuse(error, self.identity, route.metadata, path, tell)

    def abandon(self, stream: Stream, error: ConfigServiceError) -> None:
        """Give up what is queued on a stream, and end it with a status."""
        self.outbox.drop_queue(stream)
        self.fail_call(stream, error)

    def reset(self, stream: Stream) -> None:
        """Break a stream off, for a failure of ours."""
        if stream.state != CLOSED:
            stream.context = None
            self.http2.refuse(stream, INTERNAL_ERROR, self.shared.clock())

    def count_refusal(self) -> None:
        """A request with an unacceptable certificate; the third one ends the connection."""
        self._refusals += 1
        if self._refusals >= REFUSALS_PER_CONNECTION_MAX:
            self.http2.drain()
            self.http2.finish_drain()

    def run_http(self, stream: Stream, exchange: Http2Exchange, body: bytes) -> None:
        """Hand a whole HTTP request to the gateway."""
        self._intake.release(stream)
        head = stream.head
        path, _, query = head.path.decode("latin-1").partition("?")
        fields = head.fields
        if head.host is None:
            fields = ((b"host", head.authority), *fields)
        request = HttpRequest(head.method.decode("latin-1"), path, query, fields, body)
        exchange.run(self.shared.http, self.identity, request)

    # --- inside ----------------------------------------------------------------------------------

    def _open(self, stream: Stream, now: float) -> None:
        head = stream.head
        route: Route | None = head.context
        if route is None:
            route = head.context = Route(head, self.shared.methods)
        if route.unary is not None:
            return  # judged when its message is there
        if not route.is_grpc:
            stream.context = Http2Exchange(self, stream)
            stream.context.check_head()
            return
        if route.error is not None:
            self.turn_away(stream, route.error.code, route.error.text)
            return
        method = route.method
        if method is None or method.stream is None:
            if self.shared.on_unknown_method is not None:
                self.shared.on_unknown_method(self.identity)
            self.fail_call(stream, UnimplementedError())
            return
        route.counts.started += 1
        call = StreamCall(self, stream, method)
        stream.context = call
        try:
            if route.timeout is not None:
                call.deadline = now + route.timeout
                self.has_deadlines = True
            if self.shared.admission.overrun(self.tally):
                raise OverloadedError
            call.start(self._handler(route.metadata, method, method.stream, call))
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
            call.fail(error)

    def _handler(
        self, metadata: tuple[Field, ...], method: Method, start: StreamFactory, call: StreamCall
    ) -> StreamHandler:
        try:
            caller = self.identity.caller(metadata)
        except RequestError as error:
            if method.refused is None:
                raise
            return method.refused(error, self.identity, metadata, call)
        return start(caller, call)

    def _whole(self, stream: Stream, body: bytes, now: float) -> None:
        """A request whose body arrived in one piece."""
        route: Route = stream.head.context
        message = grpc.only_message(body)
        if message is None or route.unary is None:
            self._odd_whole(stream, body)
        elif self.outbox.held > CONNECTION_OUT_BYTES_MAX:
            self._intake.keep(stream, len(body))
            self._postponed[stream.id] = (stream, body)
        else:
            self._call(stream, route, message, now)

    def _call(self, stream: Stream, route: Route, message: bytes, now: float) -> None:
        route.counts.started += 1
        try:
            if route.error is not None:
                self.end_call(stream, route.error.code, route.error.text)
                return
            if route.unary is None:
                raise UnimplementedError
            if self.shared.admission.full(self.tally):
                raise OverloadedError
            caller = self.identity.caller(route.metadata)
            result = route.unary(caller, message)
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
            self.fail_call(stream, error)
            return
        if isinstance(result, bytes):
            stream.context = None
            route.counts.handled[OK] += 1
            grpc.answer(self.outbox, stream, result)
            return
        # The caller is shared by all calls of its connection: the deadline is the call's alone.
        deadline = None if route.timeout is None else now + route.timeout
        call = UnaryCall(self, stream, result, deadline)
        stream.context = call
        if call.deadline is not None:
            self.has_deadlines = True
        result.bind_pieces(call)

    def _odd_whole(self, stream: Stream, body: bytes) -> None:
        """Not exactly one message, or no unary method: the way of pieces knows what to say."""
        context = stream.context = UnaryRead(self, stream)
        if body:
            context.feed(body)
        if stream.context is context:
            context.half_close()

    def _piece(self, stream: Stream, chunk: bytes) -> None:
        context = stream.context
        if context is None:
            context = stream.context = UnaryRead(self, stream)
        context.feed(chunk)
        self._pieces_bytes += len(chunk)
        self._touched[stream.id] = stream

    def _last_piece(self, stream: Stream, context: Any, chunk: bytes) -> None:
        if chunk:
            self._piece(stream, chunk)
        if stream.context is context:
            self._intake.release(stream)
            context.half_close()

    def _settle(self, now: float) -> None:
        """Account for what the pieces of this read left behind."""
        for stream in self._touched.values():
            context = stream.context
            if context is not None and context.held and stream.state != CLOSED:
                self._intake.hold(stream, context.held, context.need)
            else:
                self._intake.release(stream)
        self._touched.clear()
        while (refused := self._intake.refuse_youngest(now)) is not None:
            self._drop(refused)
        if self._intake.total and not self.has_deadlines:
            self.has_deadlines = True
            self.wake()

    def _awaits_pieces(self, now: float) -> bool:
        """Whether parts of requests are here whose rest the peer could send; it must get on."""
        if not self._intake.total or self._postponed:
            self._progress.restart()
            return False
        if self._progress.stuck(
            self._pieces_bytes, now, least=SLOW_WRITER_BYTES_MIN, within_s=SLOW_WRITER_SECONDS_MAX
        ):
            self.http2.fail(ConnectionFault(ENHANCE_YOUR_CALM, _SLOW_WRITER))
            self.lost()
        return True

    def _drop(self, stream: Stream) -> None:
        """A stream is gone without an answer."""
        context, stream.context = stream.context, None
        self._intake.release(stream)
        self._postponed.pop(stream.id, None)
        if context is not None:
            if context.begun:
                stream.head.context.counts.handled[CANCELLED] += 1
            context.cancel()
