"""One peer connection: TLS over a plain asyncio transport, one hello each, then frames.

The life of a connection: TLS handshake → the leaf is judged, before a single frame is read (N49)
→ hello and answer → frames, until somebody closes. The handshake has a deadline; afterwards the
dialler asks for a sign of life now and then. Whatever is malformed closes the connection and
changes nothing else.

Not here: who is acceptable and what frames mean (``transport.link``), queueing (``outbox``).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

from configsvc.errors import DecodeError
from configsvc.identity.certificate import LeafIdentity
from configsvc.limits import (
    HANDSHAKE_SECONDS_MAX,
    PEER_CONTROL_QUEUE_BYTES_MAX,
    PEER_FRAME_BYTES_MAX,
    PEER_PING_S,
    PEER_QUEUE_BYTES_MAX,
    PEER_WRITE_BYTES_HIGH,
    TLS_SHUTDOWN_SECONDS_MAX,
)
from configsvc.net.shell import TlsConnection, TlsFailed
from configsvc.raft.messages import Message
from configsvc.transport.frames import (
    FRAME_HELLO,
    FRAME_JOIN,
    FRAME_JOIN_ANSWER,
    FRAME_PING,
    FRAME_PONG,
    FRAME_REFUSED,
    FrameReader,
    frame_head,
)
from configsvc.transport.hello import (
    BULK,
    CONTROL,
    Hello,
    Refusal,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
)
from configsvc.transport.outbox import Outbox
from configsvc.transport.ports import LinkCounters, PeerBytes
from configsvc.types import NodeId

_QUEUE_BYTES: Final = {CONTROL: PEER_CONTROL_QUEUE_BYTES_MAX, BULK: PEER_QUEUE_BYTES_MAX}
_NOBODY: Final = NodeId(0)
BY_PEER: Final = "closed by the peer"


class Owner(Protocol):
    """What a connection asks of the transport it belongs to."""

    counters: LinkCounters

    def began(self, connection: PeerConnection) -> None:
        """The socket is connected."""

    def own_hello(self, lane: int, to: int) -> Hello: ...

    def judge_leaf(self, connection: PeerConnection, der: bytes | None) -> str:
        """Why the peer's certificate is not acceptable; empty if it is."""

    def judge_hello(self, connection: PeerConnection, hello: Hello) -> Refusal | None: ...

    def asked_to_join(self, connection: PeerConnection, body: bytes) -> bytes | Refusal:
        """The answer's body, or why there is none. Raises ``DecodeError``: malformed."""

    def opened(self, connection: PeerConnection) -> None: ...

    def frame(self, connection: PeerConnection, kind: int, body: bytes) -> None:
        """Raises ``DecodeError`` for what the peer should not have sent."""

    def refused(self, connection: PeerConnection, refusal: Refusal) -> None:
        """The other side said no."""

    def misbehaved(self, connection: PeerConnection) -> None:
        """The other side sent what it should not."""

    def has_output(self, connection: PeerConnection) -> None:
        """Something waits to be written: ``flush`` is to be called, soon and once."""

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
        lane: int = CONTROL,
        expected: NodeId = _NOBODY,
    ) -> None:
        """``tls`` None is plaintext; ``expected`` is whom a dialler means to reach."""
        self.expected = expected
        self.hello: Hello | None = None
        self.peer = _NOBODY  # who is at the other end; 0 before the hello
        self.lane = lane
        self.dialled = dialled
        self.address = ""
        self.leaf: LeafIdentity | None = None  # of the peer's certificate; None in plaintext
        self.since = 0.0  # loop time at which the hellos were exchanged
        self.gone: asyncio.Future[None] = loop.create_future()
        self._owner = owner
        self._loop = loop
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._outbox = Outbox()
        self._judged = tls is None
        self._said_hello = False
        self._flushing = False
        self._paused = False
        self._closing = False
        self._reason = BY_PEER
        self._bytes = PeerBytes()  # the peer's own, once it is accepted
        self._heard = 0.0
        self._written = 0  # bytes handed to the transport, ever
        self._stuck_at = 0  # bytes that had left at the last look
        self._stuck_since: float | None = None
        self._asked = 0.0
        self._deadline: asyncio.TimerHandle | None = None

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the dialler speaks first."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=PEER_WRITE_BYTES_HIGH)
        name = self._transport.get_extra_info("peername")
        self.address = str(name[0]) if isinstance(name, tuple) else ""
        self._heard = self._loop.time()
        self._deadline = self._loop.call_later(HANDSHAKE_SECONDS_MAX, self._too_slow)
        self._owner.began(self)
        if self._closing:
            return
        if self._tls is None:
            self._say_hello()
        elif self.dialled:
            self._write(self._tls.start())

    def data_received(self, data: bytes) -> None:
        """Digest what was read: TLS, then frames."""
        if self._closing:
            return
        self._heard = self._loop.time()
        self._bytes.received += len(data)
        tls = self._tls
        try:
            if tls is not None:
                data, answer = tls.receive(data)
                if answer:
                    self._write(answer)
                if tls.established and not self._judged and not self._judge_leaf(tls):
                    return
            self._read_frames(data)
        except TlsFailed as failure:
            self._write(failure.answer)
            self.close(failure.reason)
        except DecodeError as error:
            self._owner.misbehaved(self)
            self.close(str(error))
        if tls is not None and tls.peer_closed:
            self.close(BY_PEER)

    def eof_received(self) -> bool:
        """Half a connection is none."""
        return False

    def pause_writing(self) -> None:
        """The peer reads too slowly: what comes now waits in the outbox, bounded."""
        self._paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything and tell the owner."""
        self._closing = True
        self._transport = None
        self._met_deadline()
        self._outbox.clear()
        if exc is not None and self._reason == BY_PEER:
            self._reason = "connection lost"
        self._owner.closed(self, self._reason)
        if not self.gone.done():
            self.gone.set_result(None)

    # --- handshake -------------------------------------------------------------------------------

    def _judge_leaf(self, tls: TlsConnection) -> bool:
        self._judged = True
        problem = self._owner.judge_leaf(self, tls.peer_der)
        if problem:
            self.close(problem)
            return False
        self._say_hello()
        return True

    def _say_hello(self) -> None:
        if self.dialled and not self._said_hello:
            self._said_hello = True
            hello = self._owner.own_hello(self.lane, self.expected)
            self._put(FRAME_HELLO, encode_hello(hello))

    def _read_frames(self, data: bytes) -> None:
        if not self._judged or not data:
            return
        for kind, body in self._reader.feed(data):
            if self.hello is None:
                self._first(kind, body)
            elif kind == FRAME_PING:
                self._put(FRAME_PONG, b"")
            elif kind == FRAME_REFUSED:
                self._told_no(body)
            elif kind != FRAME_PONG:
                self._owner.frame(self, kind, body)
            if self._closing:
                return

    def _first(self, kind: int, body: bytes) -> None:
        if kind == FRAME_REFUSED and self.dialled:
            self._told_no(body)
            return
        if kind == FRAME_JOIN and not self.dialled:
            self._asked_to_join(body)
            return
        if kind != FRAME_HELLO:
            raise DecodeError("the first frame is no hello")
        hello = decode_hello(body)
        if self.dialled and hello.lane != self.lane:
            raise DecodeError("hello of the other lane")
        self.lane = hello.lane
        refusal = self._owner.judge_hello(self, hello)
        if refusal is not None:
            self.refuse(refusal)
            return
        self.hello = hello
        self.peer = NodeId(hello.member_id)
        self._count_for(self.peer)
        self._reader.greeted = True
        self.since = self._asked = self._loop.time()
        self._met_deadline()
        if not self.dialled:
            own = self._owner.own_hello(self.lane, hello.member_id)
            self._put(FRAME_HELLO, encode_hello(own))
        self._owner.opened(self)

    def _count_for(self, peer: NodeId) -> None:
        before, self._bytes = self._bytes, self._owner.counters.bytes_of(peer)
        self._bytes.sent += before.sent
        self._bytes.received += before.received

    def _asked_to_join(self, body: bytes) -> None:
        """One answer, then the connection has served its purpose."""
        answer = self._owner.asked_to_join(self, body)
        if isinstance(answer, Refusal):
            self.refuse(answer)
            return
        self._put(FRAME_JOIN_ANSWER, answer)
        self.finish("a member that joins was told its cluster")

    def _met_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _told_no(self, body: bytes) -> None:
        refusal = decode_refusal(body)
        self._owner.refused(self, refusal)
        self.close(f"refused by the peer: {refusal.text}")

    # --- sending ---------------------------------------------------------------------------------

    @property
    def leaf_name(self) -> str:
        """Name part of the peer's certificate; "" in plaintext and before the handshake."""
        return self.leaf.name if self.leaf is not None else ""

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here and in the transport."""
        size = self._outbox.waiting
        if self._transport is not None:
            size += self._transport.get_write_buffer_size()
        return size

    def send_message(self, message: Message, records: bytes) -> bool:
        """Queue a raft message; False when the queue is full or the connection is not up."""
        if not self._has_room(len(records)):
            return False
        self._outbox.add_message(message, records)
        self._schedule()
        return True

    def send_frame(self, kind: int, body: bytes) -> bool:
        """Queue any other frame; False as above."""
        if len(body) > PEER_FRAME_BYTES_MAX or not self._has_room(len(body)):
            return False
        self._put(kind, body)
        return True

    def _has_room(self, size: int) -> bool:
        transport = self._transport
        if self._closing or self.hello is None or transport is None:
            return False
        queued = self._outbox.waiting + transport.get_write_buffer_size()
        return not queued or queued + size <= _QUEUE_BYTES[self.lane]

    def _put(self, kind: int, body: bytes) -> None:
        self._outbox.add_frame(kind, body)
        self._schedule()

    def _schedule(self) -> None:
        if not self._flushing and not self._paused and self._outbox.waiting:
            self._flushing = True
            self._owner.has_output(self)

    def flush(self) -> None:
        """Write what gathered since the last time, once."""
        self._flushing = False
        if self._closing or self._paused:
            return
        parts = self._outbox.take()
        if parts:
            self._write_plain(b"".join(parts))
            if self._outbox.waiting:
                self._schedule()

    def _write_plain(self, data: bytes) -> None:
        if self._tls is None:
            self._write(data)
            return
        try:
            self._write(self._tls.send(data))
        except TlsFailed as failure:
            self.close(failure.reason)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._written += len(data)
            self._bytes.sent += len(data)
            self._transport.write(data)

    # --- watching over it ------------------------------------------------------------------------

    def look(self, now: float, *, progress_s: float, silence_s: float) -> None:
        """Close a connection that is stuck or silent; ask for a sign of life. Called often."""
        if self._closing or self._transport is None or self.hello is None:
            return
        if self._stuck(now, progress_s):
            self.close("the peer does not read")
        elif now - self._heard > silence_s:
            self.close("the peer is silent")
        elif self.dialled and now - self._asked >= PEER_PING_S:
            self._asked = now
            if not self._paused:
                self._put(FRAME_PING, b"")

    def excuse(self, now: float) -> None:
        """This process stood still: its peers' silence proves nothing."""
        self._heard = now
        self._stuck_since = None

    def _stuck(self, now: float, progress_s: float) -> bool:
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        left = self._written - waiting
        if not waiting or left != self._stuck_at or self._stuck_since is None:
            self._stuck_at = left
            self._stuck_since = now if waiting else None
            return False
        return now - self._stuck_since > progress_s

    # --- ending ----------------------------------------------------------------------------------

    def _too_slow(self) -> None:
        self.close("no handshake in time")

    def refuse(self, refusal: Refusal) -> None:
        """Write out what is queued, tell the other side why, then end.

        A removed member learns so of its removal from the log, too.
        """
        if not self._closing:
            while not self._paused and (parts := self._outbox.take()):
                self._write_plain(b"".join(parts))
            body = encode_refusal(refusal)
            self._write_plain(frame_head(FRAME_REFUSED, len(body)) + body)
            self.close(refusal.text)

    def finish(self, reason: str) -> None:
        """Write out what is queued, then end."""
        if not self._closing and not self._paused:
            while parts := self._outbox.take():
                self._write_plain(b"".join(parts))
        self.close(reason)

    def close(self, reason: str) -> None:
        """End the connection: written bytes may still leave, queued ones do not."""
        if self._closing:
            return
        self._closing = True
        self._reason = reason
        self._outbox.clear()
        transport = self._transport
        if transport is None:
            return
        if self._tls is not None and self._tls.established:
            self._write(self._tls.close())
        transport.close()
        if transport.get_write_buffer_size():
            self._loop.call_later(TLS_SHUTDOWN_SECONDS_MAX, transport.abort)
