"""The install stream: chunks of records, checkable one by one and as a whole.

A chunk is ``version, kind, number, records, length, CRC32C`` and its records; the CRC covers all
before and behind it. Numbers count from 0 without a gap. The last chunk (END) carries the totals
and the SHA-256 of every byte before it. Values travel in the clear inside mutual TLS and are
sealed again by the receiver under its own keys.

A record is a tuple of integers, byte strings and texts; lengths are checked before they are
believed. Reading takes bytes from a peer: anything wrong is a ``DecodeError``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from google_crc32c import value as crc32c

from configsvc.errors import DecodeError, ensure
from configsvc.limits import INSTALL_CHUNK_BYTES_MAX, REQUEST_BYTES_MAX

VERSION: Final = 1

_HEAD: Final = struct.Struct(">BBIII")  # version, kind, number, records, payload length
_CRC: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
# One record larger than a chunk (a value near the request limit) travels in a chunk of its own.
CHUNK_BYTES_MAX: Final = HEAD_BYTES + max(INSTALL_CHUNK_BYTES_MAX, 2 * REQUEST_BYTES_MAX)

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_INT, _BYTES, _TEXT = b"i", b"b", b"t"
_INT_BYTES_MAX: Final = 9  # a uint64 with its sign

Record = tuple[Any, ...]


class ChunkKind(IntEnum):
    ROWS = 1  # a revision row, opened
    COMMITS = 2  # a commit with its opening
    ACTORS = 3
    TABLES = 4  # table name, then one row of a small table
    END = 5


class Chunk(NamedTuple):
    kind: ChunkKind
    number: int
    records: list[Record]


class End(NamedTuple):
    """Content of the last chunk: where the sender stood, and what the receiver must find."""

    cluster_id: int
    epoch: int
    insecure: int
    index: int  # type: ignore[assignment]
    term: int
    visible_revision: int
    conf_state: bytes
    digest: bytes
    tree_size: int
    tree_root: bytes
    rows: int
    commits: int
    actors: int
    table_rows: int
    sha256: bytes  # of every chunk before this one


def encode_record(record: Sequence[Any]) -> bytes:
    """One record; its values are int, bytes or str."""
    parts = [_COUNT.pack(len(record))]
    for value in record:
        if isinstance(value, bytes):
            parts += (_BYTES, _LENGTH.pack(len(value)), value)
        elif isinstance(value, str):
            text = value.encode()
            parts += (_TEXT, _LENGTH.pack(len(text)), text)
        else:
            ensure(isinstance(value, int), "a record holds integers, bytes and texts")
            number = int(value)
            raw = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
            parts += (_INT, _LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def encode_chunk(kind: ChunkKind, number: int, records: int, payload: bytes) -> bytes:
    """A chunk of ``records`` encoded records."""
    head = _HEAD.pack(VERSION, kind, number, records, len(payload))
    return head + _CRC.pack(crc32c(head + payload)) + payload


def decode_chunk(data: bytes) -> Chunk:
    """A whole chunk.

    Raises:
        DecodeError: wrong version, kind, length, CRC or record.
    """
    if not HEAD_BYTES <= len(data) <= CHUNK_BYTES_MAX:
        raise DecodeError("install chunk of impossible size")
    version, kind, number, count, length = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    payload = data[HEAD_BYTES:]
    if version != VERSION:
        raise DecodeError(f"install stream of version {version}")
    if length != len(payload) or crc != crc32c(data[: _HEAD.size] + payload):
        raise DecodeError(f"install chunk {number} is damaged")
    if kind not in ChunkKind._value2member_map_:
        raise DecodeError(f"install chunk {number} of unknown kind")
    at, records = 0, []
    for _ in range(count):
        record, at = _decode_record(payload, at)
        records.append(record)
    if at != len(payload):
        raise DecodeError(f"install chunk {number} has bytes left over")
    return Chunk(ChunkKind(kind), number, records)


def _decode_record(data: bytes, at: int) -> tuple[Record, int]:
    try:
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        values: list[Any] = []
        for _ in range(count):
            tag = data[at : at + 1]
            (length,) = _LENGTH.unpack_from(data, at + 1)
            at += 1 + _LENGTH.size
            raw = data[at : at + length]
            if len(raw) != length:
                raise DecodeError("install record cut short")
            values.append(_value(tag, raw))
            at += length
    except (struct.error, UnicodeDecodeError) as error:
        raise DecodeError("install record that cannot be read") from error
    return tuple(values), at


def _value(tag: bytes, raw: bytes) -> Any:
    if tag == _BYTES:
        return raw
    if tag == _TEXT:
        return raw.decode()
    if tag == _INT and 0 < len(raw) <= _INT_BYTES_MAX:
        return int.from_bytes(raw, "big", signed=True)
    raise DecodeError("install record with an unknown value")


def expect(record: Record, types: Sequence[type]) -> Record:
    """``record`` if its values have these types.

    Raises:
        DecodeError: other types, or another number of values.
    """
    if tuple(map(type, record)) != tuple(types):
        raise DecodeError("install record of another shape")
    return record
