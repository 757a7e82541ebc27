"""Log entries as bytes, shared by the write-ahead log and the peer link.

A record is term (u64), kind (u8), payload length (u32), payload. The index is implicit: the first
record's index is given beside the blob, the next follow. Entries are encoded once: the same blob
goes into the log frame and to every peer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from configsvc.errors import DecodeError
from configsvc.raft.messages import Entry

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor
_HEAD = struct.Struct("<QBI")
RECORD_HEAD_BYTES = _HEAD.size


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """The records of ``entries``, in order."""
    pack = _HEAD.pack
    parts: list[bytes] = []
    for term, _, kind, data in entries:
        parts += (pack(term, kind, len(data)), data)
    return b"".join(parts)


def decode_entries(first_index: int, blob: bytes | memoryview, count: int) -> tuple[Entry, ...]:
    """Exactly ``count`` entries starting at ``first_index``.

    Raises:
        DecodeError: the blob is shorter or longer than its records say.
    """
    size = len(blob)
    if count < 0 or count * _HEAD.size > size:
        raise DecodeError("more records than the bytes can hold")
    out: list[Entry] = []
    at = 0
    unpack = _HEAD.unpack_from
    for index in range(first_index, first_index + count):
        if at + _HEAD.size > size:
            raise DecodeError("record is cut short")
        term, kind, length = unpack(blob, at)
        at += _HEAD.size
        end = at + length
        if end > size:
            raise DecodeError("record is cut short")
        out.append(_new(Entry, (term, index, kind, bytes(blob[at:end]))))
        at = end
    if at != size:
        raise DecodeError("bytes behind the last record")
    return tuple(out)


class RecordCache:
    """Remembers the newest encoded batches, so that log and peers share one encoding.

    First index, last index and last term name a batch: two logs that agree there agree on
    everything before (log matching).
    """

    __slots__ = ("_batches", "_size")

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._batches: dict[tuple[int, int, int], bytes] = {}

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """As ``encode_entries``."""
        if not entries:
            return b""
        last = entries[-1]
        key = (entries[0].index, last.index, last.term)
        found = self._batches.get(key)
        if found is None:
            found = encode_entries(entries)
            while len(self._batches) >= self._size:
                del self._batches[next(iter(self._batches))]
            self._batches[key] = found
        return found


def last_record_term(blob: bytes, count: int) -> int:
    """Term of the last of ``count`` records that ``encode_entries`` made."""
    at = 0
    for _ in range(count - 1):
        at += _HEAD.size + int(_HEAD.unpack_from(blob, at)[2])
    return int(_HEAD.unpack_from(blob, at)[0])


def split_records(blob: bytes, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """(count, records) of runs of at most ``bytes_max`` bytes; a longer record is alone."""
    start = at = count = 0
    while at < len(blob):
        end = at + _HEAD.size + int(_HEAD.unpack_from(blob, at)[2])
        if count and end - start > bytes_max:
            yield count, blob[start:at]
            start, count = at, 0
        at = end
        count += 1
    if count:
        yield count, blob[start:at]
