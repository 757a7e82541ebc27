"""The rolling digest over everything apply did: equal on all members, or one of them is wrong.

``digest(i) = blake2b-128(digest(i-1), index, revision, outcome, changed rows in clear)``, one step
per entry, so that batch sizes do not matter (reliability.md A3). Every value has one encoding;
nothing here depends on the interpreter's version.

Not here: comparing digests between members, and what follows (``runtime``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

from configsvc.apply.commands import TableChange
from configsvc.errors import InvariantViolationError, ensure
from configsvc.mvcc.messages import Row

DIGEST_BYTES: Final = 16
GENESIS: Final = bytes(DIGEST_BYTES)

_HEAD: Final = Struct("<QQBII")  # index, revision, code, rows, table changes
_ROW: Final = Struct("<QIQQq?II")  # revision, sub, create, version, lease, tombstone, lengths
_PUT: Final = Struct("<16s" + "QQBII" + "QIQQq?II")  # digest before, then head and row
_SIZE: Final = Struct("<I")


def step(
    before: bytes,
    index: int,
    revision: int,
    code: int,
    rows: Sequence[Row],
    tables: Sequence[TableChange],
) -> bytes:
    """The digest after one entry; ``code`` is the number of its gRPC outcome."""
    chain = Chain(before, index, revision, code, len(rows), len(tables))
    if rows:
        chain.add(rows)
    return chain.finish(tables)


class Chain:
    """``step`` piece by piece, for an entry of many rows."""

    __slots__ = ("_hash",)

    def __init__(
        self, before: bytes, index: int, revision: int, code: int, rows: int, tables: int
    ) -> None:
        head = before + _HEAD.pack(index, revision, code, rows, tables)
        self._hash = blake2b(head, digest_size=DIGEST_BYTES)

    def add(self, rows: Iterable[Row]) -> None:
        """The next rows, in order; together as many as announced."""
        parts: list[bytes] = []
        pack = _ROW.pack
        for mod, sub, key, value, create, version, lease, tombstone in rows:
            head = pack(mod, sub, create, version, lease, tombstone, len(key), len(value))
            parts += (head, key, value)
        self._hash.update(b"".join(parts))

    def finish(self, tables: Iterable[TableChange]) -> bytes:
        """The digest after the entry, once all its rows were added."""
        parts: list[bytes] = []
        for change in tables:
            _encode(change, parts)
        self._hash.update(b"".join(parts))
        return self._hash.digest()


def step_put(before: bytes, index: int, revision: int, row: Row) -> bytes:
    """``step`` of an entry that was done and changed one row and no table."""
    ensure(row[0] == revision, "a row is of its entry's revision")
    return step_puts(before, index, (row,))[0]


def step_puts(before: bytes, index: int, rows: Iterable[Row]) -> list[bytes]:
    """``step`` of entries from ``index`` on, each of which was done and changed one row."""
    chain: list[bytes] = []
    pack = _PUT.pack
    for revision, sub, key, value, create, version, lease, tombstone in rows:
        head = pack(
            before, index, revision, 0, 1, 0,
            revision, sub, create, version, lease, tombstone, len(key), len(value),
        )  # fmt: skip
        before = blake2b(b"".join((head, key, value)), digest_size=DIGEST_BYTES).digest()
        chain.append(before)
        index += 1
    return chain


def _encode(value: Any, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"n")
    elif isinstance(value, int):  # a bool counts as 0 or 1, as SQL keeps it
        text = b"%d" % value
        parts += (b"i", _SIZE.pack(len(text)), text)
    elif isinstance(value, str):
        data = value.encode()
        parts += (b"s", _SIZE.pack(len(data)), data)
    elif isinstance(value, bytes):
        parts += (b"b", _SIZE.pack(len(value)), value)
    elif isinstance(value, tuple):
        parts += (b"(", _SIZE.pack(len(value)))
        for item in value:
            _encode(item, parts)
    else:
        raise InvariantViolationError("a table row holds a value without an encoding")
