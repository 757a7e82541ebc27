"""Client connections of the generator: TLS 1.3 with a client certificate, HTTP/2, epoll.

One process drives many connections from one ``epoll`` and no event loop library: the generator
must cost less than what it measures. A ``Link`` is one connection; a ``Links`` polls many.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from bench import frames
from bench.frames import BenchFault, Blocks, Fields, Reader, Template
from configsvc.net.shell import TlsConnection, TlsFailed

READ_BYTES: Final = 64 * 1024  # larger ones are mapped and given back each time
OPEN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect and as whom. ``cafile`` empty: plaintext."""

    host: str
    port: int
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    def context(self) -> ssl.SSLContext | None:
        """TLS 1.3 only, the server is verified, ALPN is HTTP/2."""
        if not self.cafile:
            return None
        context = ssl.create_default_context(cafile=self.cafile)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # An issuing authority is trusted without its root, as gRPC clients do.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile)
        context.set_alpn_protocols(["h2"])
        return context


class Link:
    """One connection. Subclasses hear ``on_answer`` and ``on_message``."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self.target = target
        self.sock = socket.create_connection((target.host, target.port), OPEN_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.tls: TlsConnection | None = None
        self.reader = Reader(self.on_answer, self.on_message)
        self.blocks = Blocks()
        self.next_stream = 1
        self.writing = False  # waits for the socket to take more
        self._out = b""
        self._opened = False
        if context is not None:
            self.tls = TlsConnection(context, server_side=False, server_hostname=target.host)
            self._raw(self.tls.start())
        else:
            self._open()

    # --- for subclasses --------------------------------------------------------------------------

    def on_answer(self, stream: int, message: bytes, trouble: str) -> None:
        """A stream ended; ``trouble`` is "" for status OK."""

    def on_message(self, stream: int, message: bytes) -> None:
        """One message of a stream in ``reader.open_streams``."""

    def after_read(self) -> None:
        """Everything of one read was told."""

    # --- sending ---------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether requests may be sent."""
        return self._opened and self.reader.settled

    def template(self, path: str, bodies: list[bytes], extra: Fields | None = None) -> Template:
        """Requests of one method; its fields are put in the peer's table by a first request."""
        fields = frames.request_fields(path, self.target.authority, extra)
        first = Template(self.blocks.encode(fields), bodies[:1])
        self.send(first.build(self.take_stream()))
        return Template(self.blocks.encode(fields), bodies)

    def take_stream(self) -> int:
        """The next stream's id."""
        stream = self.next_stream
        self.next_stream += 2
        return stream

    def start_stream(self, path: str, body: bytes) -> int:
        """Open a stream with one message and leave it open; its messages are told one by one."""
        stream = self.take_stream()
        block = self.blocks.encode(frames.request_fields(path, self.target.authority))
        self.reader.open_streams.add(stream)
        data = frames.grpc_message(body)
        self.reader.send_window -= len(data)
        self.send(
            frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
            + frames.frame(frames.DATA, 0, stream, data)
        )
        return stream

    def more(self, stream: int, body: bytes) -> None:
        """Another message on an open stream."""
        self.send(frames.frame(frames.DATA, 0, stream, frames.grpc_message(body)))

    def send(self, data: bytes) -> None:
        """Write, as far as the socket takes it."""
        self._raw(self.tls.send(data) if self.tls is not None else data)

    def _raw(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        if not data:
            return
        try:
            done = self.sock.send(data)
        except BlockingIOError:
            done = 0
        if done < len(data):
            self._out = data[done:]
            self.writing = True

    def flush(self) -> None:
        """The socket takes more."""
        data, self._out = self._out, b""
        self.writing = False
        self._raw(data)

    # --- receiving -------------------------------------------------------------------------------

    def readable(self) -> None:
        """Digest what arrived.

        Raises:
            BenchFault: the connection is over.
        """
        data = self.arrived()
        if data:
            self.digest(data)

    def arrived(self) -> bytes:
        """What the socket has; empty when that is nothing.

        Raises:
            BenchFault: the connection is over.
        """
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise BenchFault(f"connection lost: {error.strerror}") from None
        if not data:
            raise BenchFault("connection closed")
        return data

    def digest(self, data: bytes) -> None:
        """Tell what one read brought.

        Raises:
            BenchFault: the connection is over.
        """
        if self.tls is not None:
            try:
                data, answer = self.tls.receive(data)
            except TlsFailed as failure:
                raise BenchFault(f"TLS: {failure.reason}") from None
            self._raw(answer)
            if not self._opened and self.tls.established:
                self._open()
        if data:
            self.reader.receive(data)
            self.after_read()
        if self.reader.control:
            control, self.reader.control = self.reader.control, []
            self.send(b"".join(control))

    def _open(self) -> None:
        self._opened = True
        self.send(frames.opening())

    def close(self) -> None:
        """End without ceremony."""
        with contextlib.suppress(OSError):
            self.sock.close()


class Links:
    """Many connections behind one epoll."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self.links: dict[int, Link] = {}

    def add(self, link: Link) -> None:
        """Begin to listen to ``link``."""
        self.links[link.sock.fileno()] = link
        self._poll.register(link.sock.fileno(), select.EPOLLIN)

    def run_once(self, timeout: float) -> None:
        """Handle what is there, or wait up to ``timeout`` seconds for something."""
        for fileno, what in self._poll.poll(timeout):
            link = self.links[fileno]
            if what & select.EPOLLOUT:
                link.flush()
                if not link.writing:
                    self._poll.modify(fileno, select.EPOLLIN)
            if what & ~select.EPOLLOUT:
                link.readable()
            if link.writing:
                self._poll.modify(fileno, select.EPOLLIN | select.EPOLLOUT)

    def run_until(self, done: object, seconds: float) -> bool:
        """Handle until ``done()`` is true; False when the time is over."""
        deadline = time.perf_counter() + seconds
        check = done if callable(done) else bool
        while not check():
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            self.run_once(min(left, 0.1))
        return True

    def open(self, made: list[Link]) -> None:
        """Add connections and wait until requests may be sent on all.

        Raises:
            BenchFault: not in time.
        """
        for link in made:
            self.add(link)
        if not self.run_until(lambda: all(link.ready for link in made), OPEN_SECONDS):
            raise BenchFault("connections did not open in time")

    def close(self) -> None:
        """Close every connection."""
        for link in self.links.values():
            link.close()
        self.links.clear()
        self._poll.close()
