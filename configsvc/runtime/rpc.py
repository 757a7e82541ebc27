"""Questions between members that do not go through the log: lease renewals, fleet, membership.

A call has one answer or fails with a doubt: the peer is away, changed, or silent for too long.
Calls are small; nothing here is retried.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from configsvc import errors
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    InternalFailureError,
    LeaderChangedError,
    NoLeaderError,
    RequestError,
    RequestTimeoutError,
)
from configsvc.runtime.proposals import Clock
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

CALLS_MAX: Final = 20_000  # open calls of one member; NoLeaderError beyond
_HEAD = struct.Struct("<QB")
_CALLS_BITS: Final = 32  # of a call's number; the start it belongs to stands above
_OK: Final = 0
_ERROR: Final = 1


class PeerMethod(IntEnum):
    """What a member may ask another; numbers travel and never change."""

    LEASE_RENEW = 1
    LEASE_TIME_TO_LIVE = 2
    FLEET_STATUS = 3
    CONF_CHANGE = 4
    MOVE_LEADER = 5


_OF_LEADER: Final = frozenset(
    {
        PeerMethod.LEASE_RENEW,
        PeerMethod.LEASE_TIME_TO_LIVE,
        PeerMethod.CONF_CHANGE,
        PeerMethod.MOVE_LEADER,
    }
)

Server = Callable[[NodeId, bytes], "bytes | Waiting"]


class Frames(Protocol):
    def send_call(self, peer: NodeId, body: bytes) -> bool: ...

    def send_reply(self, peer: NodeId, body: bytes) -> bool: ...


class _Open(NamedTuple):
    """A call without an answer yet."""

    peer: NodeId
    method: PeerMethod
    deadline: float
    waiting: Waiting


class PeerCalls:
    """Both ends of the calls of one member."""

    def __init__(self, *, clock: Clock, frames: Frames, timeout: float, incarnation: int) -> None:
        """``timeout``: seconds. ``incarnation``: of this start, whose calls are ours."""
        self._clock = clock
        self._frames = frames
        self._timeout = timeout
        self._servers: dict[int, Server] = {}
        self._open: dict[int, _Open] = {}
        # An answer to a call of the start before may come on a connection of this one.
        self._first = incarnation % (1 << _CALLS_BITS) << _CALLS_BITS
        self._next = 0

    def serve(self, method: PeerMethod, server: Server) -> None:
        """Answer calls of ``method``; registered once, at start."""
        self._servers[method] = server

    def call(self, peer: NodeId, method: PeerMethod, body: bytes) -> Waiting:
        """Ask ``peer``; the answer is its bytes or an error."""
        waiting = Waiting()
        call_id = self._first | self._next
        self._next = (self._next + 1) % (1 << _CALLS_BITS)
        if len(self._open) >= CALLS_MAX or not self._frames.send_call(
            peer, _HEAD.pack(call_id, method) + body
        ):
            waiting.complete(NoLeaderError())
            return waiting
        deadline = self._clock.monotonic() + self._timeout
        self._open[call_id] = _Open(peer, method, deadline, waiting)
        return waiting

    def on_call(self, peer: NodeId, body: bytes) -> None:
        """A call of another member.

        Raises:
            DecodeError: malformed; the connection is closed.
        """
        if len(body) < _HEAD.size:
            raise DecodeError("peer call is cut short")
        call_id, method = _HEAD.unpack_from(body)
        server = self._servers.get(method)

        def reply(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, bytes):
                self._frames.send_reply(peer, _HEAD.pack(call_id, _OK) + result)
                return
            text = f"{type(result).__name__}\0{result}".encode()
            self._frames.send_reply(peer, _HEAD.pack(call_id, _ERROR) + text)

        if server is None:
            reply(InternalFailureError("peer call of an unknown kind"))
            return
        try:
            result = server(peer, body[_HEAD.size :])
        except ConfigServiceError as error:
            reply(error)
            return
        if isinstance(result, Waiting):
            result.bind(reply)
        else:
            reply(result)

    def on_reply(self, peer: NodeId, body: bytes) -> None:
        """An answer; one that nobody waits for is dropped.

        Raises:
            DecodeError: malformed; the connection is closed.
        """
        if len(body) < _HEAD.size:
            raise DecodeError("peer reply is cut short")
        call_id, status = _HEAD.unpack_from(body)
        entry = self._open.get(call_id)
        if entry is None or entry.peer != peer:
            return
        del self._open[call_id]
        rest = body[_HEAD.size :]
        entry.waiting.complete(rest if status == _OK else _error_of(rest))

    def lost(self, peer: NodeId) -> None:
        """The connection to ``peer`` broke: its open calls fail."""
        for call_id, call in list(self._open.items()):
            if call.peer == peer:
                del self._open[call_id]
                call.waiting.complete(NoLeaderError())

    def leader_lost(self, peer: NodeId) -> None:
        """``peer`` leads no more, or is silent: what only a leader answers it will not."""
        for call_id, call in list(self._open.items()):
            if call.peer == peer and call.method in _OF_LEADER:
                del self._open[call_id]
                call.waiting.complete(LeaderChangedError())

    def sweep(self) -> None:
        """Fail silent calls."""
        now = self._clock.monotonic()
        for call_id, call in list(self._open.items()):
            if call.deadline > now:
                break
            del self._open[call_id]
            call.waiting.complete(RequestTimeoutError())


def _error_of(body: bytes) -> RequestError:
    name, _, text = body.decode("utf-8", "replace").partition("\0")
    cls = getattr(errors, name, None)
    if isinstance(cls, type) and issubclass(cls, RequestError):
        return cls(text)
    return InternalFailureError("a member failed to answer")
