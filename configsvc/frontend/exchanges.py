"""HTTP requests that are not gRPC: their bodies on the way in, their answers on the way out.

An exchange is the ``HttpSink`` of one request. ``Exchange`` holds what HTTP/1.1 and HTTP/2 share:
one answer per request, the gateway's exceptions, the refusal of unacceptable certificates.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from configsvc.api.contract import ConnectionIdentity, HttpApp, HttpExchange, HttpRequest
from configsvc.errors import ensure
from configsvc.frontend.shared import RefusedIdentity, Shared
from configsvc.http2.headers import response_block
from configsvc.http2.protocol import PROTOCOL_ERROR, ConnectionFault
from configsvc.http2.request import Field
from configsvc.http2.stream import CLOSED, Stream
from configsvc.limits import (
    CONNECTION_OUT_BYTES_MAX,
    HTTP2_STREAM_WINDOW_BYTES,
    HTTP_BODY_BYTES_MAX,
    STREAM_OUT_BYTES_HARD,
    STREAM_OUT_BYTES_SOFT,
)

if TYPE_CHECKING:
    from configsvc.frontend.http2_session import Http2Session

Fields = tuple[Field, ...]

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_FRAMING: Final = frozenset(
    (b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade")
)
REFUSED_BODY: Final = b'{"code":16,"message":"certificate not acceptable"}'


def clean(fields: Fields) -> Fields:
    """The gateway's fields without what frames a message and without control characters."""
    return tuple(
        (name, _CONTROL.sub(b" ", value).strip()) for name, value in fields if name not in _FRAMING
    )


class Exchange:
    """One request that the gateway answers."""

    begun = False  # calls of the gateway are counted there
    deadline: float | None = None

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._running: HttpExchange | None = None
        self.started = False
        self.ended = False

    def run(self, app: HttpApp | None, identity: ConnectionIdentity, request: HttpRequest) -> None:
        """Hand the request on; whatever the gateway raises becomes an empty 500."""
        if isinstance(identity, RefusedIdentity):
            self.on_refused()
            self.respond(401, ((b"content-type", b"application/json"),), REFUSED_BODY)
            return
        if app is None:
            self.respond(404, (), b"")
            return
        try:
            running = app.handle(identity, request, self)
        except Exception as error:  # noqa: BLE001 - status_of logs bugs and stops on broken invariants
            self._shared.status_of(error)
            self._running = None
            if self.started:
                self.abort()
            else:
                self.respond(500, (), b"")
            return
        if not self.ended:
            self._running = running

    def respond(self, status: int, headers: Fields, body: bytes) -> None:
        """The whole answer at once."""
        self.respond_parts(status, headers, (body,) if body else ())

    def respond_parts(self, status: int, headers: Fields, parts: Sequence[bytes]) -> None:
        """The whole answer; the parts of its body are never joined."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off an answer that cannot be completed."""
        raise NotImplementedError

    def on_refused(self) -> None:
        """The certificate was not acceptable."""
        raise NotImplementedError

    def start(self, status: int, headers: Fields) -> None:
        """The answer's header; ``chunk``s and ``end`` follow."""
        raise NotImplementedError

    def chunk(self, data: bytes) -> bool:
        """One piece of the answer; False: above the bound, wait for ``on_writable``."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is complete."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The client is gone."""
        if not self.ended:
            self.ended = True
            running, self._running = self._running, None
            if running is not None:
                self._shared.guard(running.on_cancel)

    def stop_streaming(self) -> None:
        """Break off what would run for ever, without a word; a single answer is waited for."""
        running = self._running
        if self.started or (running is not None and running.streams):
            self.abort()

    def writable(self) -> None:
        """There is room again."""
        if not self.ended and self._running is not None:
            self._shared.guard(self._running.on_writable)


class Http2Exchange(Exchange):
    """A request on an HTTP/2 stream; also the stream's context while its body arrives."""

    def __init__(self, session: Http2Session, stream: Stream) -> None:
        super().__init__(session.shared)
        self._session = session
        self._stream = stream
        self._is_head = stream.head.method == b"HEAD"
        self._body: deque[bytes] = deque()
        self.held = 0

    # --- called by the session -------------------------------------------------------------------

    @property
    def need(self) -> int:
        """Bytes of the whole body, as far as that is known."""
        announced = self._stream.head.content_length
        return announced if announced >= 0 else self.held + HTTP2_STREAM_WINDOW_BYTES // 2

    def check_head(self) -> None:
        """Refuse what has more than one reading, or no meaning here."""
        head = self._stream.head
        if head.host is not None and head.authority and head.host != head.authority:
            self._session.http2.fail(ConnectionFault(PROTOCOL_ERROR, "host is not authority"))
        elif head.is_grpc or head.method == b"CONNECT":
            self.respond(405, (), b"")
        elif head.path[:1] != b"/":
            self.respond(400, (), b"")
        elif head.content_length > HTTP_BODY_BYTES_MAX:
            self.respond(413, (), b"")

    def feed(self, chunk: bytes) -> None:
        """Keep a piece of the body, up to the bound."""
        self.held += len(chunk)
        if self.held > HTTP_BODY_BYTES_MAX:
            self._body.clear()
            self.held = 0
            self.respond(413, (), b"")
        else:
            self._body.append(chunk)

    def half_close(self) -> None:
        """The request is whole."""
        body = b"".join(self._body)
        self._body.clear()
        self.held = 0
        self._session.run_http(self._stream, self, body)

    def expire(self) -> None:
        """Deadlines of HTTP requests are the gateway's."""
        ensure(False, "an HTTP exchange has no deadline")

    # --- HttpSink --------------------------------------------------------------------------------

    def respond_parts(self, status: int, headers: Fields, parts: Sequence[bytes]) -> None:
        """The whole answer; the parts of its body are never joined."""
        if self.ended:
            return
        size = sum(map(len, parts))
        self.start(status, (*clean(headers), (b"content-length", b"%d" % size)))
        if self._stream.headers_sent and size and not self._is_head:
            outbox = self._session.outbox
            if len(parts) == 1:
                outbox.data(self._stream, parts[0])
            else:
                outbox.data_parts(self._stream, parts, size)
        self.end()

    def start(self, status: int, headers: Fields) -> None:
        """The answer's header."""
        if self.ended:
            return
        ensure(not self.started, "an answer starts once")
        self.started = True
        length = tuple(field for field in headers if field[0] == b"content-length")
        block = response_block(status, (*clean(headers), *length))
        self._session.outbox.headers(self._stream, block)
        self._session.wake()

    def chunk(self, data: bytes) -> bool:
        """One piece of the answer."""
        if self.ended:
            return False
        stream, outbox = self._stream, self._session.outbox
        if stream.queued > STREAM_OUT_BYTES_HARD:
            self.abort()
            return False
        if data and not self._is_head:
            outbox.data(stream, data)
            self._session.wake()
        if stream.queued <= STREAM_OUT_BYTES_SOFT and (
            outbox.held <= CONNECTION_OUT_BYTES_MAX or not stream.queued
        ):
            return True
        stream.wants_room = True
        return False

    def end(self) -> None:
        """The answer is complete."""
        if self.ended:
            return
        self.ended = True
        self._running = None
        if self._stream.state != CLOSED:
            self._stream.context = None
            self._session.outbox.end(self._stream)
        self._session.wake()

    def abort(self) -> None:
        """Reset the stream: an answer without its end must not look complete."""
        if not self.ended:
            self.cancel()
            self._session.reset(self._stream)

    def on_refused(self) -> None:
        """Three of these end the connection."""
        self._session.count_refusal()
