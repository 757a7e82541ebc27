"""One client socket: TLS, the choice of protocol, and one write per loop pass.

The life of a connection: TLS handshake (unless plaintext) → the peer is judged → HTTP/2 or
HTTP/1.1, by ALPN, in plaintext by the first bytes → requests → closed. Everything before the first
complete preface or header is *young* and has a deadline.

Not here: who accepts (``listener``), the timer (``sweeper``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from configsvc.api.contract import ConnectionIdentity
from configsvc.api.traffic import ClientTraffic
from configsvc.errors import ConfigServiceError
from configsvc.frontend.admission import Tally
from configsvc.frontend.http1_session import Http1Session
from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.progress import Progress
from configsvc.frontend.refusals import CERTIFICATE, CROWDED, SLOW, TLS
from configsvc.frontend.shared import RefusedIdentity, Shared, judge, log
from configsvc.http2.protocol import PREFACE
from configsvc.limits import (
    HANDSHAKE_SECONDS_MAX,
    OPENING_SECONDS_MAX,
    SLOW_READER_BYTES_MIN,
    SLOW_READER_SECONDS_MAX,
    TLS_SHUTDOWN_SECONDS_MAX,
    WRITE_BUFFER_BYTES_HIGH,
)
from configsvc.net.shell import TlsConnection, TlsFailed

if TYPE_CHECKING:
    from configsvc.frontend.listener import Listener

Session = Http1Session | Http2Session
Which = Callable[[ConnectionIdentity], bool]


class ClientConnection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    def __init__(self, listener: Listener, tls: TlsConnection | None, peer_ip: str) -> None:
        self._listener = listener
        self._shared: Shared = listener.shared
        self._tls = tls
        self.peer_ip = peer_ip
        self._transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self._tally: Tally | None = None
        self._paused = False
        self._closing = False
        self._sniffed = b""  # plaintext: first bytes that may become a preface
        self.dirty = False  # a flush is scheduled
        self._in_line = False  # a turn in ``listener.bulk`` is due
        self.deadline: float | None = None  # while young
        self.unsent = 0  # bytes of answers that wait, as the sweeper knows them
        self._progress = Progress()  # of reading them
        self._traffic = ClientTraffic()  # nobody's, until it is known to be HTTP/2
        self._doubts: list[Which] = []  # whose connections were ended during the handshake
        self._taken = 0  # bytes written, on top of which the transport's buffer counts

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock; a plaintext peer is judged at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
        self._listener.opened(self)
        seconds = OPENING_SECONDS_MAX if self._tls is None else HANDSHAKE_SECONDS_MAX
        self._listener.sweeper.young(self, self._shared.clock() + seconds)
        if self._closing:  # given up before it had a transport
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Digest what was read and write what it brought about, once."""
        if self._closing:
            return
        tls = self._tls
        if tls is not None:
            try:
                data, answer = tls.receive(data)
            except TlsFailed as failure:
                self._tls_failed(failure)
                return
            if answer:
                self._write(answer)
            if self.session is None and tls.established:
                self._choose_by_alpn(tls)
        if data and not self._closing:
            if self.session is None:
                data = self._choose_by_preface(data)
            session = self.session
            if session is not None:
                self._traffic.received += len(data)
                session.receive(data)
                if self.deadline is not None or not session.at_ease:
                    self._after_read(session)
        if tls is not None and tls.peer_closed:
            self.close()

    def eof_received(self) -> bool:
        """A half-closed TCP connection is a closed one: TLS and HTTP/2 need both halves."""
        return False

    def pause_writing(self) -> None:
        """The peer does not read: stop framing for it, and stop reading from it."""
        self._paused = True
        if self.session is not None:
            self.session.pause()
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()
        self._listener.sweeper.watch(self)

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
        if self.session is not None:
            self.session.resume()
            self.mark_dirty()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything at once (N6)."""
        self._closing = True
        self._transport = None
        session, self.session = self.session, None
        if session is not None:
            session.lost()
        if self._tally is not None:
            self._shared.admission.leave(self._tally)
            self._tally = None
        self._listener.closed(self)

    # --- writing ---------------------------------------------------------------------------------

    def mark_dirty(self) -> None:
        """There is output: flush once, after everybody had a say in this pass."""
        if not self.dirty and not self._closing:
            self.dirty = True
            self._listener.gathering.add(self)

    def flush(self) -> None:
        """Write what the session has; close when it is finished.

        One bounded write. Who has more than that waits for its turn among those like it, so that
        however many large answers go out, a pass of the loop seals and writes one piece of one.
        """
        self.dirty = False
        session, transport = self.session, self._transport
        if session is None or transport is None or self._closing:
            return
        if self._in_line or (session.has_backlog and not self._paused):
            self._wait_in_line(session, transport)
            return
        self._write_some(session, transport)

    def _wait_in_line(self, session: Session, transport: asyncio.Transport) -> None:
        if not self._in_line:
            self._in_line = True
            self._listener.bulk.add(self._turn)
        self._listener.sweeper.watch(self)
        self._count_unsent(session, transport)

    def _turn(self) -> bool:
        """It is our turn; with more to write we go to the end of the line."""
        self._in_line = False
        session, transport = self.session, self._transport
        if session is not None and transport is not None and not self._closing:
            self._write_some(session, transport)
        return False

    def _write_some(self, session: Session, transport: asyncio.Transport) -> None:
        data = b"" if self._paused else session.take()
        if data:
            self._traffic.sent += len(data)
            if self._tls is not None:
                try:
                    data = self._tls.send(data)
                except TlsFailed:
                    self._listener.refused(self, TLS, "TLS would not write")
                    self.abort()
                    return
            self._taken += len(data)
            transport.write(data)
            if session.at_ease:
                return
            if session.has_output and not self._paused:
                self._wait_in_line(session, transport)
                return
        if session.waiting_bytes or session.has_deadlines:
            self._listener.sweeper.watch(self)
            self._count_unsent(session, transport)
        if session.finished:
            if session.fault:
                self._listener.refused(self, session.fault_kind, session.fault)
            self.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._taken += len(data)
            self._transport.write(data)

    # --- ending ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Write out what is written, say goodbye, and end; half a second later without asking.

        A peer that did nothing wrong may still be sending: we end our half and drop what comes, for
        a socket that is closed before its bytes are read is reset, and what we wrote may be lost.
        """
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._tls is not None and not self._tls.peer_closed:
            self._write(self._tls.close())
        self._closing = True
        self._listener.sweeper.forget(self)
        peer_left = self._tls is not None and self._tls.peer_closed
        welcome = self.session is not None and not self.session.fault
        lingers = welcome and not peer_left and not self._paused
        if lingers:
            transport.write_eof()
        else:
            transport.close()
        if self.session is not None:
            self.session.lost()
        if lingers or transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            loop.call_later(TLS_SHUTDOWN_SECONDS_MAX, self.abort)

    def abort(self) -> None:
        """End now; unwritten bytes are lost."""
        self._closing = True
        self._listener.sweeper.forget(self)
        if self._transport is not None:
            self._transport.abort()

    @property
    def key(self) -> str:
        """Whose it is, as far as that is known."""
        return "" if self._tally is None else self._tally.key

    @property
    def activity(self) -> int | None:
        """A number that changes with every request; None while something is open."""
        return None if self.session is None else self.session.activity

    @property
    def handshaking(self) -> bool:
        """Whether TLS has not said yet who it is."""
        return self._tls is not None and self.session is None

    def doubt(self, which: Which) -> None:
        """End it when it turns out that ``which`` picks it: its handshake goes by older trust."""
        self._doubts.append(which)

    def is_of(self, which: Which) -> bool:
        """Whether the peer is known and ``which`` picks it."""
        return self.session is not None and which(self.session.identity)

    def drain(self) -> None:
        """Begin a graceful end."""
        if self.session is None:
            self.abort()
        else:
            self.session.drain()
            self.mark_dirty()

    def finish_drain(self, error: ConfigServiceError | None = None) -> None:
        """Stop accepting streams; with ``error``, end those that would run for ever."""
        if self.session is not None:
            if error is not None:
                self.session.end_streams(error)
            self.session.finish_drain()
            self.mark_dirty()

    # --- called by the sweeper -------------------------------------------------------------------

    def overdue(self) -> None:
        """The deadline of youth has passed."""
        what = "handshake" if self._tls is not None and self.session is None else "first request"
        self._listener.refused(self, SLOW, f"{what} took too long")
        self.abort()

    def sweep(self, now: float) -> bool:
        """End overdue calls, and the connection if its peer has stopped reading.

        Returns False when there is nothing left to watch.
        """
        session, transport = self.session, self._transport
        if session is None or transport is None or self._closing:
            return False
        if session.has_deadlines:
            session.expire(now)
            self.mark_dirty()
        self._count_unsent(session, transport)
        if not self.unsent:
            self._progress.restart()
            return session.has_deadlines
        taken = self._taken - transport.get_write_buffer_size()
        if self._progress.stuck(
            taken, now, least=SLOW_READER_BYTES_MIN, within_s=SLOW_READER_SECONDS_MAX
        ):
            self._listener.refused(self, SLOW, "reads too slowly")
            self.abort()
            return False
        return True

    def _count_unsent(self, session: Session, transport: asyncio.Transport) -> None:
        unsent = session.waiting_bytes + transport.get_write_buffer_size()
        self._listener.sweeper.count_unsent(self, unsent)

    def sacrifice(self) -> None:
        """The member cannot keep so many answers that nobody reads: let go of them now."""
        self._listener.refused(self, CROWDED, "too many unread answers")
        self.abort()
        session, self.session = self.session, None
        if session is not None:
            session.lost()

    # --- choosing a protocol ---------------------------------------------------------------------

    def _choose_by_alpn(self, tls: TlsConnection) -> None:
        if tls.alpn == "h2":
            self._begin(Http2Session, tls)
        else:
            self._begin(Http1Session, tls)

    def _choose_by_preface(self, data: bytes) -> bytes:
        """Plaintext: HTTP/2 by prior knowledge starts with bytes that HTTP/1.1 never has."""
        data = self._sniffed + data
        self._sniffed = b""
        if data.startswith(PREFACE[:3]):
            self._begin(Http2Session, None)
        elif PREFACE.startswith(data):
            self._sniffed = data
        else:
            self._begin(Http1Session, None)
        return data

    def _begin(
        self, kind: type[Http1Session] | type[Http2Session], tls: TlsConnection | None
    ) -> None:
        der = tls.peer_der if tls is not None else None
        identity = judge(self._shared, der, self.peer_ip, tls.version if tls is not None else "")
        if isinstance(identity, RefusedIdentity):
            self._listener.refused(self, CERTIFICATE, "certificate not acceptable")
        if any(which(identity) for which in self._doubts):
            self._listener.refused(self, CERTIFICATE, "certificate denied meanwhile")
            self.abort()
            return
        self._doubts.clear()
        tally = self._shared.admission.join(identity.key)
        if tally is None:
            self._listener.refused(self, CROWDED, "too many connections of one identity")
            self.abort()
            return
        self._tally = tally
        self.session = kind(self._shared, identity, tally, self.mark_dirty)
        if kind is Http2Session:
            self._traffic = self._shared.traffic
        if self._paused:
            self.session.pause()
        if tls is not None:
            now = self._shared.clock()
            self._listener.sweeper.young(self, now + OPENING_SECONDS_MAX)
        self.flush()

    def _after_read(self, session: Session) -> None:
        if session.opened:
            if self.deadline is not None:
                self._listener.sweeper.grown(self)
        elif self.deadline is None:
            now = self._shared.clock()
            self._listener.sweeper.young(self, now + OPENING_SECONDS_MAX)
        self.flush()

    def _tls_failed(self, failure: TlsFailed) -> None:
        self._listener.refused(self, TLS, failure.reason)
        if failure.answer:
            self._write(failure.answer)
        self._closing = True
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()
        log.debug("TLS ended: %s", failure.reason)
