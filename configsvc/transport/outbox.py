"""What waits to be written on one connection: raft messages and other frames, bounded.

Everything that gathers between two writes leaves as one: messages share frames, frames share the
write. A heartbeat replaces an older one that still waits, so that a slow peer gets the newest and
not a backlog of them (L5).

Not here: when to write (``transport.connection``).
"""

from __future__ import annotations

from typing import Final

from configsvc.codec.raft_wire import MESSAGE_HEAD_BYTES, encode_parts
from configsvc.limits import PEER_MESSAGES_MAX, PEER_PASS_BYTES_MAX
from configsvc.raft.messages import Message, MessageType
from configsvc.transport.frames import FRAME_RAFT, HEAD_BYTES, frame_head

_REPLACEABLE: Final = frozenset({MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP})


class Outbox:
    """One connection's queue. ``waiting`` is in bytes, heads included."""

    __slots__ = ("_beats", "_frames", "_messages", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._messages: list[tuple[Message, bytes]] = []  # with their encoded entries
        self._beats: dict[int, int] = {}  # message type -> place in _messages
        self._frames: list[tuple[int, bytes]] = []

    def add_message(self, message: Message, records: bytes) -> None:
        """Queue a raft message; ``records`` are its entries, encoded."""
        if message.type in _REPLACEABLE and not message.context:
            place = self._beats.get(message.type)
            if place is not None:
                self._messages[place] = (message, records)
                return
            self._beats[message.type] = len(self._messages)
        self._messages.append((message, records))
        self.waiting += MESSAGE_HEAD_BYTES + len(records) + len(message.context)

    def add_frame(self, kind: int, body: bytes) -> None:
        """Queue any other frame."""
        self._frames.append((kind, body))
        self.waiting += HEAD_BYTES + len(body)

    def take(self) -> list[bytes]:
        """The parts of the next write, about ``PEER_PASS_BYTES_MAX`` at most; empty when idle."""
        parts: list[bytes] = []
        size = self._take_messages(parts)
        taken = 0
        for kind, body in self._frames:
            if parts and size + len(body) > PEER_PASS_BYTES_MAX:
                break
            parts += (frame_head(kind, len(body)), body)
            size += HEAD_BYTES + len(body)
            taken += 1
        del self._frames[:taken]
        if not self._messages and not self._frames:
            self.waiting = 0
        else:
            self.waiting -= min(self.waiting, size)
        return parts

    def clear(self) -> None:
        """Forget what waits: the connection is gone."""
        self._messages.clear()
        self._beats.clear()
        self._frames.clear()
        self.waiting = 0

    def _take_messages(self, parts: list[bytes]) -> int:
        """One frame of raft messages."""
        messages = self._messages
        if not messages:
            return 0
        body: list[bytes] = []
        size = taken = 0
        for message, records in messages:
            own = MESSAGE_HEAD_BYTES + len(records) + len(message.context)
            if taken and (size + own > PEER_PASS_BYTES_MAX or taken >= PEER_MESSAGES_MAX):
                break
            size += encode_parts(message, records, body)
            taken += 1
        del messages[:taken]
        self._beats.clear()
        if messages:
            self._beats = {
                m.type: place
                for place, (m, _) in enumerate(messages)
                if m.type in _REPLACEABLE and not m.context
            }
        parts.append(frame_head(FRAME_RAFT, size))
        parts += body
        return HEAD_BYTES + size
