"""One HTTP/1.1 connection: parsed by ``h11``, behind the checks that ``h11`` does not make.

A header is handed to the parser only when it is whole, and only if it has one reading (N71): CRLF
line ends, no folding, not both lengths, origin-form target. Whatever is refused closes the
connection, so nothing can hide behind it; so do pipelined requests, after the first answer, and
chunked ones. There is no upgrade to HTTP/2.

The interface is that of ``Http2Session``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from http.client import responses
from typing import Final

import h11

from configsvc.api.contract import ConnectionIdentity, HttpRequest
from configsvc.errors import ConfigServiceError, ensure
from configsvc.frontend.admission import Tally
from configsvc.frontend.exchanges import Exchange, Fields, clean
from configsvc.frontend.progress import Progress
from configsvc.frontend.refusals import CROWDED, FLOOD, MALFORMED, SLOW
from configsvc.frontend.shared import Shared
from configsvc.http2.outbox import take
from configsvc.http2.request import BAD_IN_VALUE
from configsvc.limits import (
    HEADER_FIELDS_MAX,
    HTTP_BODY_BYTES_MAX,
    HTTP_HEADER_BYTES_MAX,
    OUTPUT_PASS_BYTES_MAX,
    REFUSALS_PER_CONNECTION_MAX,
    SLOW_WRITER_BYTES_MIN,
    SLOW_WRITER_SECONDS_MAX,
    STREAM_OUT_BYTES_HARD,
    STREAM_OUT_BYTES_SOFT,
)

_HEAD_END: Final = b"\r\n\r\n"
_AMBIGUOUS: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]|\A\r\n")
_LENGTH: Final = re.compile(rb"\ncontent-length:", re.IGNORECASE)  # h11 folds equal ones into one
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Http1Session:
    """An HTTP/1.1 connection; one request at a time."""

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
        self.wake = on_dirty
        self.fault_kind = MALFORMED
        self.fault = ""  # why the peer is being cut off; a constant of ours
        self.closing = False  # no request is read any more
        self.has_deadlines = False  # a body is due
        self._refusals = 0
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HTTP_HEADER_BYTES_MAX)
        self._head = b""  # of the next request, while it is incomplete
        self._request: h11.Request | None = None  # its body is being read
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._read_bytes = 0  # of all bodies
        self._progress = Progress()
        self._exchange: Http1Exchange | None = None
        self._out: deque[bytes | memoryview] = deque()
        self._paused = False
        self._served = 0  # requests
        self._last = False  # the next answer closes the connection
        self.waiting_bytes = 0  # in ``_out``

    # --- for the owner of the socket -------------------------------------------------------------

    @property
    def opened(self) -> bool:
        """Whether no header is overdue: between requests the connection may rest."""
        return not self._head and (self._served > 0 or self._request is not None)

    @property
    def at_ease(self) -> bool:
        """Whether there is nothing to write, to wait for or to end, and no header is overdue."""
        return not self._out and not self.has_deadlines and not self.closing and self.opened

    @property
    def activity(self) -> int | None:
        """A number that changes with every request; None while one is open."""
        resting = self._exchange is None and self._request is None and not self._head
        return self._served if resting else None

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once the output is written."""
        return self.closing and self._exchange is None and not self._out

    @property
    def has_output(self) -> bool:
        """Whether ``take`` would find something."""
        return bool(self._out)

    @property
    def has_backlog(self) -> bool:
        """Whether there is more than one write takes."""
        return self.waiting_bytes > OUTPUT_PASS_BYTES_MAX

    def receive(self, data: bytes) -> None:
        """Digest one read."""
        if self.closing:
            return
        if self._exchange is not None:
            self.closing = True  # pipelined: the answer that is due is the last one
            return
        if self._request is not None:
            self._read_body(data)
            return
        self._head += data
        found = self._head.find(_HEAD_END)
        if found > HTTP_HEADER_BYTES_MAX or (found < 0 and len(self._head) > HTTP_HEADER_BYTES_MAX):
            self._refuse(431, "header too large")
        elif found >= 0:
            stop = found + len(_HEAD_END)
            head, rest = self._head[:stop], self._head[stop:]
            self._head = b""
            if self._read_head(head):
                self._read_body(rest)

    def take(self) -> bytes:
        """Bytes to write now."""
        if self._paused or not self._out:
            return b""
        if self.waiting_bytes <= OUTPUT_PASS_BYTES_MAX:
            data = b"".join(self._out)
            self._out.clear()
        else:
            data = self._one_pass()
        self.waiting_bytes -= len(data)
        if (
            self._exchange is not None
            and self._exchange.wants_room
            and self.waiting_bytes <= STREAM_OUT_BYTES_SOFT // 2
        ):
            self._exchange.wants_room = False
            self._exchange.writable()
        return data

    def pause(self) -> None:
        """The socket is full."""
        self._paused = True

    def resume(self) -> None:
        """The socket takes bytes again."""
        self._paused = False
        self._progress.restart()  # it was not read from either

    def expire(self, now: float) -> None:
        """Refuse a body that comes too slowly; other deadlines are the gateway's."""
        self.has_deadlines = self._request is not None
        if not self.has_deadlines:
            self._progress.restart()
        elif self._progress.stuck(
            self._read_bytes, now, least=SLOW_WRITER_BYTES_MIN, within_s=SLOW_WRITER_SECONDS_MAX
        ):
            self._refuse(408, "writes too slowly")

    def drain(self) -> None:
        """The answer to the request that is here or on its way in is the last one."""
        self._last = True
        if self._exchange is None and self._request is None and not self._head:
            self.closing = True

    def finish_drain(self) -> None:
        """There is nothing that the peer has to hear of."""

    def end_streams(self, error: ConfigServiceError) -> None:
        """Break off an answer that streams: it has no way to carry ``error``."""
        if self._exchange is not None:
            self._exchange.stop_streaming()

    def lost(self) -> None:
        """The connection is gone."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
        self._hold(0)
        self.closing = True

    # --- for the exchange ------------------------------------------------------------------------

    def write(self, event: h11.Event) -> None:
        """Queue a part of an answer."""
        data = self._parser.send(event)
        if data:
            self._out.append(data)
            self.waiting_bytes += len(data)
            self.wake()

    def count_refusal(self) -> None:
        """A request with an unacceptable certificate; the third one ends the connection."""
        self._refusals += 1
        if self._refusals >= REFUSALS_PER_CONNECTION_MAX:
            self.closing = True

    def answered(self, *, complete: bool) -> None:
        """The exchange is over: rest, or close."""
        self._exchange = None
        parser = self._parser
        if complete and parser.our_state is h11.DONE and parser.their_state is h11.DONE:
            parser.start_next_cycle()
        else:
            self.closing = True
        self.wake()

    # --- inside ----------------------------------------------------------------------------------

    def _one_pass(self) -> bytes:
        """As much of the output as goes out in one write."""
        parts, _ = take(self._out, OUTPUT_PASS_BYTES_MAX)
        return b"".join(parts)

    def _read_head(self, head: bytes) -> bool:
        """Judge a whole header; False when it was refused."""
        if _AMBIGUOUS.search(head) is not None or len(_LENGTH.findall(head)) > 1:
            self._refuse(400, "ambiguous header")
            return False
        try:
            self._parser.receive_data(head)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "bad header")
            return False
        if not isinstance(event, h11.Request):
            self._refuse(400, "bad header")
            return False
        reason = _problem(event)
        if reason:
            self._refuse(400, reason)
            return False
        self._request = event
        if self._parser.they_are_waiting_for_100_continue:
            self._out.append(_CONTINUE)
            self.waiting_bytes += len(_CONTINUE)
            self.wake()
        return True

    def _read_body(self, data: bytes) -> None:
        parser = self._parser
        try:
            if data:
                parser.receive_data(data)
            while self._request is not None:
                event = parser.next_event()
                if isinstance(event, h11.Data):
                    self._hold(self._body_bytes + len(event.data))
                    self._read_bytes += len(event.data)
                    if self._body_bytes > HTTP_BODY_BYTES_MAX:
                        self._refuse(413, "body too large")
                        return
                    if self.shared.admission.crowded(self.tally):
                        self._refuse(503, "too many incomplete requests")
                        return
                    self._body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._dispatch(self._request, event)
                else:  # NEED_DATA
                    if not self.has_deadlines:
                        self.has_deadlines = True
                        self.wake()
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "bad body")

    def _dispatch(self, request: h11.Request, end: h11.EndOfMessage) -> None:
        body = b"".join(self._body)
        self._request = None
        self._hold(0)
        self._progress.restart()  # what was owed is here; the next body owes from its own beginning
        self._served += 1
        fields = tuple(request.headers)
        if end.headers:
            self._refuse(400, "trailers in a request")
            return
        # ``h11`` reads the end of chunks less strictly than their beginning.
        if self._last or self._parser.trailing_data[0] or b"transfer-encoding" in dict(fields):
            self.closing = True
        path, _, query = request.target.decode("latin-1").partition("?")
        exchange = self._exchange = Http1Exchange(self, request, last=self.closing)
        exchange.run(
            self.shared.http,
            self.identity,
            HttpRequest(request.method.decode("latin-1"), path, query, fields, body),
        )

    def _refuse(self, status: int, reason: str) -> None:
        """Answer without a body and close; ``reason`` is for the log."""
        self.fault = reason
        self.fault_kind = {408: SLOW, 431: FLOOD, 503: CROWDED}.get(status, MALFORMED)
        self.closing = True
        self._head = b""
        self._request = None
        self._hold(0)
        if self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.write(
                h11.Response(
                    status_code=status,
                    reason=responses.get(status, "").encode(),
                    headers=[(b"content-length", b"0"), (b"connection", b"close")],
                )
            )
        self.wake()

    def _hold(self, count: int) -> None:
        """Account for the body that is kept; 0 drops it."""
        self.shared.admission.hold(self.tally, count - self._body_bytes)
        self._body_bytes = count
        if not count:
            self._body = []


def _problem(request: h11.Request) -> str:
    """What makes a parsed header unacceptable, or ""."""
    names = [name for name, _ in request.headers]
    if len(names) > HEADER_FIELDS_MAX:
        return "too many header fields"
    if any(BAD_IN_VALUE.search(value) is not None for _, value in request.headers):
        return "bad field value"
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            return "two lengths"
        if request.http_version < b"1.1":
            return "transfer-encoding in HTTP/1.0"
    if request.target[:1] != b"/":
        return "target is not a path"
    return ""


class Http1Exchange(Exchange):
    """The request that the connection is busy with."""

    def __init__(self, session: Http1Session, request: h11.Request, *, last: bool) -> None:
        super().__init__(session.shared)
        self._session = session
        self._last = last
        self._is_head = request.method == b"HEAD"
        self.wants_room = False

    def respond_parts(self, status: int, headers: Fields, parts: Sequence[bytes]) -> None:
        """The whole answer; the parts of its body are never joined."""
        if self.ended:
            return
        self.started = True
        length = (b"content-length", b"%d" % sum(map(len, parts)))
        self._session.write(self._response(status, (*clean(headers), length)))
        if not self._is_head:
            for part in parts:
                self._session.write(h11.Data(data=part))
        self.end()

    def start(self, status: int, headers: Fields) -> None:
        """The answer's header; the body goes out in chunks."""
        if self.ended:
            return
        ensure(not self.started, "an answer starts once")
        self.started = True
        self._session.write(self._response(status, clean(headers)))

    def chunk(self, data: bytes) -> bool:
        """One chunk of the answer."""
        if self.ended:
            return False
        if self._session.waiting_bytes > STREAM_OUT_BYTES_HARD:
            self.abort()
            return False
        if data and not self._is_head:
            self._session.write(h11.Data(data=data))
        if self._session.waiting_bytes <= STREAM_OUT_BYTES_SOFT:
            return True
        self.wants_room = True
        return False

    def end(self) -> None:
        """The answer is complete."""
        if self.ended:
            return
        self.ended = True
        self._running = None
        self._session.write(h11.EndOfMessage())
        self._session.answered(complete=True)

    def abort(self) -> None:
        """Close in the middle: an answer without its end must not look complete."""
        if not self.ended:
            self.cancel()
            self._session.answered(complete=False)

    def on_refused(self) -> None:
        """Three of these end the connection."""
        self._session.count_refusal()

    def _response(self, status: int, headers: Fields) -> h11.Response:
        close = self._last or self._session.closing
        extra: Fields = ((b"connection", b"close"),) if close else ()
        return h11.Response(
            status_code=status,
            headers=[*headers, *extra],
            reason=responses.get(status, "").encode(),
        )
