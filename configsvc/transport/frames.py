"""Frames on the peer link: length, kind, version, body. Bytes in, bodies out; no sockets.

Always true: a length is judged as soon as its four bytes are there, before anything behind it is
kept, and a chunk is copied at most twice however small it came.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from configsvc.errors import DecodeError
from configsvc.limits import PEER_FRAME_BYTES_MAX, PEER_HELLO_BYTES_MAX

FRAME_HELLO: Final = 0
FRAME_RAFT: Final = 1
# 2 to 199 belong to the runtime; what the link itself says comes after.
FRAME_OWN_MIN: Final = 200
FRAME_JOIN: Final = 251  # instead of a hello: a new member asks for its cluster
FRAME_JOIN_ANSWER: Final = 252
FRAME_REFUSED: Final = 253
FRAME_PING: Final = 254
FRAME_PONG: Final = 255
FRAME_VERSION: Final = 1

_HEAD = struct.Struct("<IBB")
HEAD_BYTES: Final = _HEAD.size


def frame_head(kind: int, length: int) -> bytes:
    """What precedes a body of ``length`` bytes."""
    return _HEAD.pack(length, kind, FRAME_VERSION)


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_chunks", "_held", "_needed", "greeted")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = HEAD_BYTES  # nothing can be cut before that many bytes are held
        self.greeted = False  # until then only what a hello may be long is accepted

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of every frame that ``data`` completes, each judged when it is its turn.

        Raises:
            DecodeError: a frame of impossible length or version; the stream is lost.
        """
        self._held += len(data)
        if self._held < self._needed:
            self._chunks.append(data)
            return
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks = []
        at = 0
        size = len(data)
        self._needed = HEAD_BYTES
        while size - at >= HEAD_BYTES:
            length, kind, version = _HEAD.unpack_from(data, at)
            self._check(length, version)
            end = at + HEAD_BYTES + length
            if end > size:
                self._needed = end - at
                break
            body = data[at + HEAD_BYTES : end]
            at = end
            yield kind, body
        self._held = size - at
        if self._held:
            self._chunks.append(data[at:])

    def _check(self, length: int, version: int) -> None:
        bound = PEER_FRAME_BYTES_MAX if self.greeted else PEER_HELLO_BYTES_MAX
        if length > bound:
            raise DecodeError("frame of impossible length")
        if version != FRAME_VERSION:
            raise DecodeError("frame of another version")
