"""One peer connection: TLS over a plain asyncio transport, length-prefixed frames, one hello.

Lengths are judged before anything is kept. Whatever is malformed closes the connection with one
log line and changes nothing else. What is written in a pass leaves in one write.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, Protocol, cast

from configsvc.errors import DecodeError
from configsvc.limits import PEER_FRAME_BYTES_MAX, PEER_QUEUE_BYTES_MAX
from configsvc.net.shell import TlsConnection, TlsFailed
from configsvc.transport.hello import Hello, decode_hello, encode_hello

FRAME_HELLO: Final = 0
FRAME_VERSION: Final = 1
HANDSHAKE_S: Final = 5.0
_FRAME = struct.Struct("<IBB")


class Owner(Protocol):
    """What a connection asks of the transport it belongs to."""

    def own_hello(self, lane: int) -> Hello: ...

    def judge(self, connection: PeerConnection, hello: Hello, der: bytes | None) -> str:
        """Why to refuse the peer; empty to accept it."""

    def opened(self, connection: PeerConnection) -> None: ...

    def frame(self, connection: PeerConnection, kind: int, body: bytes) -> None:
        """Raises ``DecodeError`` for what the peer should not have sent."""

    def closed(self, connection: PeerConnection, reason: str) -> None: ...


class PeerConnection(asyncio.Protocol):
    """Either side of one connection. ``lane`` is known to the dialler, learned by the acceptor."""

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        tls: TlsConnection | None,
        *,
        dialled: bool,
        lane: int = 0,
        expected: int = 0,
    ) -> None:
        self.expected = expected  # member id that a dialler means to reach; 0: whoever it is
        self.hello: Hello | None = None
        self.lane = lane
        self.dialled = dialled
        self.since = 0.0
        self.last_heard = 0.0
        self.gone: asyncio.Future[None] = loop.create_future()
        self._owner = owner
        self._loop = loop
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._queue: list[bytes] = []
        self._flushing = False
        self._paused = False
        self._closing = False
        self._said_hello = False
        self._reason = "closed by the peer"
        self._deadline: asyncio.TimerHandle | None = None

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=PEER_QUEUE_BYTES_MAX)
        self._deadline = self._loop.call_later(
            HANDSHAKE_S, self.close, "no handshake within five seconds"
        )
        if self._tls is None:
            self._say_hello()
        elif self.dialled:
            self._transport.write(self._tls.start())

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            if self._tls is not None:
                data, answer = self._tls.receive(data)
                if answer and self._transport is not None:
                    self._transport.write(answer)
                if self._tls.established and not self._said_hello:
                    self._say_hello()
            self._buffer += data
            self._frames()
        except TlsFailed as failure:
            if failure.answer and self._transport is not None:
                self._transport.write(failure.answer)
            self.close(failure.reason)
            return
        except DecodeError as error:
            self.close(str(error))
            return
        if self._tls is not None and self._tls.peer_closed:
            self.close("closed by the peer")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._deadline is not None:
            self._deadline.cancel()
        if exc is not None and not isinstance(exc, ConnectionError):
            self._reason = type(exc).__name__
        self._owner.closed(self, self._reason)
        if not self.gone.done():
            self.gone.set_result(None)

    # --- frames ----------------------------------------------------------------------------------

    def _say_hello(self) -> None:
        self._said_hello = True
        if self.dialled:
            self._put(FRAME_HELLO, encode_hello(self._owner.own_hello(self.lane)))

    def _frames(self) -> None:
        buffer = self._buffer
        at = 0
        self.last_heard = self._loop.time()
        while len(buffer) - at >= _FRAME.size:
            length, kind, version = _FRAME.unpack_from(buffer, at)
            if length > PEER_FRAME_BYTES_MAX or version != FRAME_VERSION:
                raise DecodeError("frame of impossible length or version")
            end = at + _FRAME.size + length
            if len(buffer) < end:
                break
            body = bytes(buffer[at + _FRAME.size : end])
            at = end
            if self.hello is None:
                self._first(kind, body)
                if self._closing:
                    return
            else:
                self._owner.frame(self, kind, body)
        del buffer[:at]

    def _first(self, kind: int, body: bytes) -> None:
        if kind != FRAME_HELLO:
            raise DecodeError("the first frame is no hello")
        hello = decode_hello(body)
        der = self._tls.peer_der if self._tls is not None else None
        if self.dialled:
            hello = hello._replace(lane=self.lane)
        self.lane = hello.lane
        refusal = self._owner.judge(self, hello, der)
        if refusal:
            self.close(refusal)
            return
        self.hello = hello
        self.since = self._loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.dialled:
            self._put(FRAME_HELLO, encode_hello(self._owner.own_hello(self.lane)))
        self._owner.opened(self)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here and in the transport."""
        size = sum(map(len, self._queue))
        if self._transport is not None:
            size += self._transport.get_write_buffer_size()
        return size

    @property
    def usable(self) -> bool:
        """Whether something sent now has a chance to arrive soon."""
        return self.hello is not None and not self._closing and not self._paused

    def send(self, kind: int, body: bytes) -> bool:
        """Queue a frame for this pass; False when the queue is full or the connection is not up."""
        if not self.usable or len(body) > PEER_FRAME_BYTES_MAX:
            return False
        self._put(kind, body)
        return True

    def _put(self, kind: int, body: bytes) -> None:
        self._queue += (_FRAME.pack(len(body), kind, FRAME_VERSION), body)
        self._schedule()

    def _schedule(self) -> None:
        if not self._flushing and self._queue:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._closing or self._paused or self._transport is None or not self._queue:
            return
        data = b"".join(self._queue)
        self._queue.clear()
        self._transport.write(self._tls.send(data) if self._tls is not None else data)

    def close(self, reason: str = "closed here") -> None:
        """End the connection; nothing queued is sent."""
        if self._closing:
            return
        self._closing = True
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()


Factory = Callable[[], PeerConnection]
