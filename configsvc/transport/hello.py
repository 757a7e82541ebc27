"""The first frame on a peer connection: who speaks, of which cluster, since which start."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from configsvc.errors import DecodeError

MAGIC: Final = b"CFGPEER1"
VERSION: Final = 1
MIN_READER: Final = 1
CONTROL: Final = 0  # votes, heartbeats, acks, reads, calls
BULK: Final = 1  # appends, forwarded writes, installs
_HELLO = struct.Struct("<8sHHBBQQ16sQQQ")


class Hello(NamedTuple):
    """What each side says first."""

    lane: int
    insecure: bool
    cluster_id: int
    member_id: int
    store_id: bytes
    incarnation: int
    term: int
    last_index: int  # last durable entry


def encode_hello(h: Hello) -> bytes:
    return _HELLO.pack(
        MAGIC,
        VERSION,
        MIN_READER,
        h.lane,
        h.insecure,
        h.cluster_id,
        h.member_id,
        h.store_id,
        h.incarnation,
        h.term,
        h.last_index,
    )


def decode_hello(body: bytes) -> Hello:
    """Raises ``DecodeError``; a newer peer that admits older readers is accepted."""
    if len(body) < _HELLO.size:
        raise DecodeError("hello is cut short")
    magic, _, reader, lane, insecure, *rest = _HELLO.unpack_from(body)
    if magic != MAGIC or lane not in (CONTROL, BULK) or insecure > 1:
        raise DecodeError("hello of another protocol")
    if reader > VERSION:
        raise DecodeError("the peer needs a newer reader")
    return Hello(lane, bool(insecure), *rest)
