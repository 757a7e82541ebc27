"""A link of so many bytes per second, and the queue before it: the product's own connection.

Each member has two lanes to each peer, as the product has two connections: control, and bulk for
appends and installs. What is sent goes through a real ``PeerConnection``: outbox, bound, encoding
and frames are the product's; only the socket below is simulated. It holds what has not left yet,
tells the connection to pause and to go on, and lets bytes leave one pass after the other.

I14: a queue never holds more than its bound, but for a single message that is longer.

Not here: what happens to frames on their way (``sim_net``); looking after connections that are
stuck or silent, which needs two ends (tests of ``transport``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from configsvc.codec.raft_wire import decode_messages
from configsvc.codec.records import encode_entries
from configsvc.raft.messages import Message, MessageType
from configsvc.runtime.install_frames import INSTALL_FRAMES
from configsvc.transport import connection as product
from configsvc.transport.connection import PeerConnection
from configsvc.transport.frames import FRAME_HELLO, FRAME_RAFT, FrameReader, frame_head
from configsvc.transport.hello import BULK, CONTROL, Hello, encode_hello
from configsvc.transport.ports import LinkCounters
from configsvc.types import NodeId
from tests.simulation.node.sim_kernel import S, Timer

if TYPE_CHECKING:
    from tests.simulation.node.sim_net import Connection, Net
    from tests.simulation.node.sim_node import Life
    from tests.simulation.node.sim_swarm import Swarm

CHUNK_BYTES: Final = 4096  # what an install frame stands for: the simulator's name rows only
_BULK_TYPES: Final = frozenset({MessageType.APP, MessageType.SNAP})


def is_bulk(message: Message) -> bool:
    return message.type in _BULK_TYPES


@contextmanager
def small_queues(swarm: Swarm) -> Iterator[None]:
    """The bounds of the product's queues, as the seed has them."""
    if not swarm.queue_bytes:
        yield
        return
    bounds = {CONTROL: swarm.queue_bytes, BULK: swarm.queue_bytes}
    with mock.patch.dict(product._QUEUE_BYTES, bounds):
        yield


class Lane:
    """One way of one connection."""

    def __init__(
        self, net: Net, connection: Connection, sender: Life, peer: Life, *, bulk: bool
    ) -> None:
        self._net = net
        self._connection = connection
        self._one, self._peer, self._bulk = sender.node.id, peer.node.id, bulk
        self._life = sender
        self._reader = FrameReader()
        self._reader.greeted = True
        self._wire = Wire(self)
        self._asked = False
        self.counters = LinkCounters()
        hello = peer.hello(self._one)._replace(lane=BULK if bulk else CONTROL)
        self._own = hello._replace(member_id=self._one, to=self._peer)
        self.out = PeerConnection(self, _Loop(net), None, dialled=False)  # type: ignore[arg-type]
        self.out.connection_made(self._wire)
        body = encode_hello(hello)
        self.out.data_received(frame_head(FRAME_HELLO, len(body)) + body)

    @property
    def busy(self) -> bool:
        return self.out.queued_bytes > 0

    def send_message(self, message: Message) -> bool:
        """False: the queue is full, and the message is gone."""
        records = encode_entries(message.entries) if message.entries else b""
        return self._checked(self.out.send_message(message, records), len(records))

    def send_frame(self, kind: int, body: bytes) -> bool:
        sent = self.out.send_frame(kind, body)
        if sent and kind in INSTALL_FRAMES:
            self._wire.owed += CHUNK_BYTES
        return self._checked(sent, len(body))

    def _checked(self, sent: bool, size: int) -> bool:
        if not sent:
            self._net.world.count("a peer's queue is full")
            return False
        lane = BULK if self._bulk else CONTROL
        bound = max(product._QUEUE_BYTES[lane], size) + 1024  # a head, and a hello
        assert self.out.queued_bytes <= bound, "I14 the queue of a peer's connection"
        self._net.world.count("queued for a slow link")
        return True

    def arrive(self, data: bytes) -> None:
        """Bytes have left: whole frames go on their way."""
        for kind, body in self._reader.feed(data):
            if kind == FRAME_RAFT:
                messages, _ = decode_messages(body)
                self._net.datagram(self._one, self._peer, tuple(messages))
            elif kind != FRAME_HELLO:
                self._net.carry(
                    self._connection, self._one, self._peer, kind, body, bulk=self._bulk
                )

    def bytes_per_s(self) -> int:
        """0: as many as there are; -1: no more, the connection is gone."""
        if self._connection.broken or not self._life.alive:
            return -1
        return self._net.bandwidth.get((self._one, self._peer), 0)

    def hurry(self) -> None:
        """The link is fast again: everything leaves."""
        self._wire.drain()

    # --- what a connection asks of its owner ------------------------------------------------------

    def has_output(self, _: PeerConnection) -> None:
        if not self._asked:
            self._asked = True
            self._net.kernel.at(0, self._flush)

    def _flush(self) -> None:
        self._asked = False
        self.out.flush()

    def own_hello(self, lane: int, to: int) -> Hello:
        return self._own

    def judge_hello(self, *_: Any) -> None:
        """``sim_net`` has judged it."""

    def began(self, *_: Any) -> None:
        """Nothing to do."""

    opened = closed = began

    @property
    def net(self) -> Net:
        return self._net


class Wire(asyncio.Transport):
    """The socket's buffer and the link behind it: one pass leaves after the other."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._high = 0
        self._paused = False
        self._serial = 0
        self.owed = 0  # bytes that frames stand for and do not have

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        own = self._lane.net.world.swarm.queue_bytes // 4
        self._high = min(high or 0, own) if own else high or 0

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self._waiting.append(bytes(data))
        self._size += len(data)
        if len(self._waiting) == 1:
            self._next()
        if self._size > self._high and not self._paused:
            self._paused = True
            self._lane.out.pause_writing()

    def close(self) -> None:
        self._waiting.clear()
        self._size = 0

    def _next(self) -> None:
        rate = self._lane.bytes_per_s()
        if rate < 0:
            return
        size, self.owed = len(self._waiting[0]) + self.owed, 0
        self._serial += 1
        wait = size * S // rate if rate else 0
        self._lane.net.kernel.at(wait, self._left, self._serial)

    def _left(self, serial: int) -> None:
        if serial != self._serial or self._lane.bytes_per_s() < 0:
            return
        data = self._waiting.popleft()
        self._size -= len(data)
        self._lane.arrive(data)
        if self._paused and self._size <= self._high // 4:
            self._paused = False
            self._lane.out.resume_writing()
        if self._waiting:
            self._next()

    def drain(self) -> None:
        if self._waiting:
            self._next()  # the event that was planned is void


class _Loop:
    """As much of an event loop as a connection without an end of its own needs."""

    def __init__(self, net: Net) -> None:
        self._net = net

    def create_future(self) -> Any:
        return None

    def time(self) -> float:
        return self._net.kernel.now / S

    def call_later(self, *_: Any) -> Timer:
        return Timer()


def lane_of(
    net: Net, connection: Connection, sender: Life, peer: NodeId, *, bulk: bool
) -> Lane | None:
    """The lane that a frame takes; None: it leaves at once, for the link has no bound and nothing
    waits before it.
    """
    key = (sender.node.id, bulk)
    lane = connection.lanes.get(key)
    if lane is not None and (lane.busy or (sender.node.id, peer) in net.bandwidth):
        return lane
    if (sender.node.id, peer) not in net.bandwidth:
        return None
    life = net.world.nodes[peer].life
    if life is None:
        return None
    lane = connection.lanes[key] = Lane(net, connection, sender, life, bulk=bulk)
    return lane
