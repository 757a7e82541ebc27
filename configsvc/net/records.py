"""Where TLS records end in a stream of bytes, by their headers alone.

OpenSSL hides records that carry no data, and works for each: a KeyUpdate costs it two keys, and
two more when it is to answer, up to 16 µs for 27 bytes, and nothing bounds how many come. Who
counts records finds them: they are those that gave nothing (``shell``).
"""

from __future__ import annotations

from typing import Final

HEADER_BYTES: Final = 5  # kind, version, length


class RecordCounter:
    """Follows a stream that comes in any pieces; what is no TLS is counted as if it were."""

    __slots__ = ("_begun", "_missing", "count")

    def __init__(self) -> None:
        self.count = 0  # records whose header came, ever
        self._begun = b""  # part of a header, when a piece ended within it
        self._missing = 0  # bytes of the present record's body that have not come

    def step(self, data: bytes, start: int, records_max: int) -> int:
        """Count from ``start``; where to go on: behind so many records, or the end of ``data``."""
        size, count = len(data), self.count
        at = start + self._missing  # where the next header is
        if self._begun and at < size:
            needed = HEADER_BYTES - len(self._begun)
            header = self._begun + data[at : at + needed]
            if len(header) < HEADER_BYTES:
                self._begun = header
                return size
            self._begun = b""
            at += needed + (header[3] << 8 | header[4])
            count += 1
            records_max -= 1
        last, whole = count + records_max, size - HEADER_BYTES
        while at <= whole and count < last:
            at += HEADER_BYTES + (data[at + 3] << 8 | data[at + 4])
            count += 1
        self.count = count
        if at >= size:
            self._missing = at - size
            return size
        self._missing = 0
        if at > whole and count < last:
            self._begun = data[at:]
            return size
        return at
