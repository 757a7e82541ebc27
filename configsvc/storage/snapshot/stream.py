"""The install stream: chunks of records, checkable one by one and as a whole.

A chunk is ``version, kind, number, records, length, CRC32C`` and its records; the CRC covers all
before and behind it. Numbers count from 0 without a gap. The last chunk (END) carries the totals
and the SHA-256 of every byte before it. Values travel in the clear inside mutual TLS and are
sealed again by the receiver under its own keys.

A record is a tuple of integers, byte strings and texts. Records of one shape that follow each other
lie in the chunk column by column: a column is packed and unpacked by one call, where a call per
value made a third of what an install costs its leader. Lengths are checked before they are
believed. Reading takes bytes from a peer: anything wrong is a ``DecodeError``.

    group    records, width, a tag per column, columns
    column   q: int64 each · w: 72-bit signed each · b, t: a uint32 length each, then all bytes
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from google_crc32c import value as crc32c

from configsvc.errors import DecodeError, ensure
from configsvc.limits import INSTALL_CHUNK_BYTES_MAX, REQUEST_BYTES_MAX

VERSION: Final = 2

_HEAD: Final = struct.Struct(">BBIII")  # version, kind, number, records, payload length
_CRC: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
# One record larger than a chunk (a value near the request limit) travels in a chunk of its own.
CHUNK_BYTES_MAX: Final = HEAD_BYTES + max(INSTALL_CHUNK_BYTES_MAX, 2 * REQUEST_BYTES_MAX)

_GROUP: Final = struct.Struct(">IH")  # records, width
_INTS, _WIDE, _BYTES, _TEXTS = b"qwbt"
_INT_BYTES: Final = 8
_WIDE_BYTES: Final = 9  # a uint64 with its sign
_LENGTH_BYTES: Final = 4

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


def encode_records(records: Iterable[Record]) -> bytes:
    """Records of one value or more, each an int of at most 72 bits, bytes or str."""
    groups = []
    for types, alike in itertools.groupby(records, lambda record: tuple(map(type, record))):
        ensure(bool(types), "a record holds something")
        rows = list(alike)
        columns = zip(*rows, strict=True)
        packed = [_pack(kind, column) for kind, column in zip(types, columns, strict=True)]
        tags = bytes(tag for tag, _ in packed)
        groups.append(_GROUP.pack(len(rows), len(types)) + tags + b"".join(x for _, x in packed))
    return b"".join(groups)


def _pack(kind: type, column: tuple[Any, ...]) -> tuple[int, bytes]:
    """Tag and bytes of a column."""
    if issubclass(kind, int):
        try:
            return _INTS, struct.pack(f">{len(column)}q", *column)
        except struct.error:
            wide = (int(value).to_bytes(_WIDE_BYTES, "big", signed=True) for value in column)
            return _WIDE, b"".join(wide)
    tag = _BYTES
    if issubclass(kind, str):
        tag, column = _TEXTS, tuple(value.encode() for value in column)
    else:
        ensure(issubclass(kind, bytes), "a record holds integers, bytes and texts")
    return tag, struct.pack(f">{len(column)}I", *map(len, column)) + b"".join(column)


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
    at = 0
    records: list[Record] = []
    while at < len(payload):
        group, at = _decode_group(payload, at)
        records += group
    if len(records) != count:
        raise DecodeError(f"install chunk {number} with another number of records than it says")
    return Chunk(ChunkKind(kind), number, records)


def _decode_group(data: bytes, at: int) -> tuple[list[Record], int]:
    """A group's records, and where it ends."""
    columns = []
    try:
        count, width = _GROUP.unpack_from(data, at)
        at += _GROUP.size
        tags = data[at : at + width]
        at += width
        if not count or not width or len(tags) != width:
            raise DecodeError("install group without records")
        for tag in tags:
            column, at = _unpack(tag, data, at, count)
            columns.append(column)
    except (struct.error, UnicodeDecodeError) as error:
        raise DecodeError("install records that cannot be read") from error
    return list(zip(*columns, strict=True)), at


def _unpack(tag: int, data: bytes, at: int, count: int) -> tuple[Sequence[Any], int]:
    """A column's values, and where it ends."""
    width = {_INTS: _INT_BYTES, _WIDE: _WIDE_BYTES, _BYTES: _LENGTH_BYTES, _TEXTS: _LENGTH_BYTES}
    if tag not in width:
        raise DecodeError("install column of an unknown kind")
    end = at + count * width[tag]
    if end > len(data):
        raise DecodeError("install column cut short")
    if tag == _INTS:
        return struct.unpack_from(f">{count}q", data, at), end
    if tag == _WIDE:
        places = range(at, end, _WIDE_BYTES)
        return [int.from_bytes(data[x : x + _WIDE_BYTES], "big", signed=True) for x in places], end
    lengths = struct.unpack_from(f">{count}I", data, at)
    ends = [*itertools.accumulate(lengths, initial=end)]
    if ends[-1] > len(data):
        raise DecodeError("install column cut short")
    blobs = [data[one:other] for one, other in itertools.pairwise(ends)]
    return blobs if tag == _BYTES else [blob.decode() for blob in blobs], ends[-1]


def expect(record: Record, types: Sequence[type]) -> Record:
    """``record`` if its values have these types.

    Raises:
        DecodeError: other types, or another number of values.
    """
    if tuple(map(type, record)) != tuple(types):
        raise DecodeError("install record of another shape")
    return record
