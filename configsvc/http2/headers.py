"""Header blocks: decoding with a cache, encoding without state.

Decoding is ``hpack``'s. A decoded block may be kept only if decoding it left the dynamic table as
it was; any change of the table empties the cache. After a fault the decoder is never used again:
the connection ends (N37, N69).

Encoding uses literals without indexing only, so a block is a constant that can be made once and
sent on any connection.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from configsvc.http2.protocol import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from configsvc.http2.request import RequestHead, request_head
from configsvc.limits import (
    HEADER_BLOCK_BYTES_MAX,
    HEADER_CACHE_BLOCK_BYTES_MAX,
    HEADER_CACHE_ENTRIES_MAX,
    HEADER_FIELDS_MAX,
    HEADER_LIST_BYTES_MAX,
)

Fields = list[tuple[bytes, bytes]]

# The library writes whole header blocks, tokens included, at debug level.
logging.getLogger("hpack").setLevel(logging.CRITICAL)

STATUS_INDEX: Final = 8  # static table: ":status" with value 200; 8 is the first of them
CONTENT_TYPE_INDEX: Final = 31
SIZE_UPDATE: Final = 0x20  # in the upper three bits
SIZE_UPDATE_TO_ZERO: Final = b"\x20"
# Two are the most that can make sense in one block (RFC 7541, 4.2).
_THREE_SIZE_UPDATES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")


class _WatchedTable(HeaderTable):
    """A dynamic table that counts its changes."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.__set__(self, newmax)  # type: ignore[attr-defined]


class HeaderDecoder:
    """Decodes the blocks of one connection, in their order."""

    __slots__ = ("_cache", "_checked", "_decoder", "_table")

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._cache: dict[bytes, RequestHead] = {}
        self._checked: set[tuple[bytes, bytes]] = set()  # fields that passed the strict check

    def request(self, block: bytes) -> RequestHead:
        """The request that ``block`` describes; equal blocks may give the same object.

        Raises:
            ConnectionFault: the block cannot be decoded, is too large, or breaks section 8.
        """
        head = self._cache.get(block)
        if head is not None:
            return head
        before = self._table.changes
        head = request_head(self.fields(block), self._checked)
        if self._table.changes == before and len(block) <= HEADER_CACHE_BLOCK_BYTES_MAX:
            if len(self._cache) >= HEADER_CACHE_ENTRIES_MAX:
                self._cache.clear()
            self._cache[block] = head
        return head

    def known(self, block: bytes) -> RequestHead | None:
        """The request of a block that was decoded before and still means the same."""
        return self._cache.get(block)

    def fields(self, block: bytes) -> Fields:
        """The fields of ``block``, whatever they mean (trailers, refused streams).

        Raises:
            ConnectionFault: the block cannot be decoded or is too large.
        """
        if len(block) > HEADER_BLOCK_BYTES_MAX:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "header block too large")
        if _THREE_SIZE_UPDATES.match(block) is not None:
            raise ConnectionFault(COMPRESSION_ERROR, "too many table size updates")
        before = self._table.changes
        try:
            fields = self._indexed(block)
            if len(fields) < len(block):
                rest = block[len(fields) :]
                if fields and rest[0] & 0xE0 == SIZE_UPDATE:
                    raise ConnectionFault(COMPRESSION_ERROR, "table size update inside a block")
                fields += self._decoder.decode(rest, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "header list too large") from None
        except (HPACKError, IndexError, ValueError, OverflowError):
            raise ConnectionFault(COMPRESSION_ERROR, "header block does not decode") from None
        if self._table.changes != before:
            self._cache.clear()
        if len(fields) > HEADER_FIELDS_MAX:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many header fields")
        if sum([len(name) + len(value) + 32 for name, value in fields]) > HEADER_LIST_BYTES_MAX:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "header list too large")
        return fields

    def _indexed(self, block: bytes) -> Fields:
        """The fields at the start of ``block`` that are one byte each: indices into the tables.

        A client that sends a new deadline with each call changes its table with each call, but
        most of its block still is indices; for them the library's way is ten times as long.
        """
        fields: Fields = []
        static = HeaderTable.STATIC_TABLE
        dynamic = self._table.dynamic_entries
        for byte in block[: HEADER_FIELDS_MAX + 1]:
            if byte <= 0x80 or byte == 0xFF:  # no index, index 0, or an index of several bytes
                break
            index = byte - 0x81
            if index < len(static):
                fields.append(static[index])
            elif index - len(static) < len(dynamic):
                fields.append(dynamic[index - len(static)])
            else:
                break
        return fields


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    """RFC 7541, 5.1; ``first`` holds the bits before the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: bytes) -> bytes:
    return _integer(len(value), 7, 0) + value


def status_field(status: int) -> bytes:
    """``:status`` as a field of a block."""
    if status == 200:
        return b"\x88"
    return _integer(STATUS_INDEX, 4, 0) + _text(b"%d" % status)


def field_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as literals without indexing; names must be lower-case already."""
    parts = []
    for name, value in fields:
        if name == b"content-type":
            parts.append(_integer(CONTENT_TYPE_INDEX, 4, 0) + _text(value))
        else:
            parts.append(b"\0" + _text(name) + _text(value))
    return b"".join(parts)


def response_block(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A response's whole header block."""
    return status_field(status) + field_block(fields)
