"""Membership changes as entry payloads.

Layout, big-endian: version (1 byte), flags (1), transition (1), count (2), then per operation a
type (1) and an id (8), then the context to the end. The empty payload is the empty change, so
that a leader leaving a joint configuration by itself never meets a byte bound.
"""

from __future__ import annotations

import struct
from typing import Final

from configsvc.errors import DecodeError, ensure
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
)
from configsvc.types import NodeId

_VERSION: Final = 1
_FLAG_V1: Final = 1
_HEAD: Final = struct.Struct(">BBBH")
_OPERATION: Final = struct.Struct(">BQ")


def encode_conf_change(change: ConfChange) -> bytes:
    """Payload of an entry that carries ``change``."""
    if change == ConfChange():
        return b""
    ensure(not change.v1 or len(change.changes) == 1, "the old form has exactly one operation")
    flags = _FLAG_V1 if change.v1 else 0
    head = _HEAD.pack(_VERSION, flags, change.transition, len(change.changes))
    operations = [_OPERATION.pack(kind, member) for kind, member in change.changes]
    return b"".join((head, *operations, change.context))


def decode_conf_change(data: bytes) -> ConfChange:
    """The change in an entry's payload.

    Raises:
        DecodeError: not what ``encode_conf_change`` makes.
    """
    if not data:
        return ConfChange()
    try:
        version, flags, transition, count = _HEAD.unpack_from(data)
        if version != _VERSION or flags & ~_FLAG_V1:
            raise DecodeError(f"membership change of version {version}, flags {flags}")
        end = _HEAD.size + count * _OPERATION.size
        if end > len(data):
            raise DecodeError("membership change is cut short")
        changes = tuple(
            ConfChangeSingle(ConfChangeType(kind), NodeId(member))
            for kind, member in _OPERATION.iter_unpack(data[_HEAD.size : end])
        )
        v1 = bool(flags & _FLAG_V1)
        if v1 and (count != 1 or transition != ConfChangeTransition.AUTO):
            raise DecodeError("the old form of a membership change has exactly one operation")
        return ConfChange(changes, ConfChangeTransition(transition), data[end:], v1)
    except (struct.error, ValueError) as error:
        raise DecodeError("not a membership change") from error
