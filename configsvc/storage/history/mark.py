"""The mark: what no leaf and no sealed field covers is sealed by every transaction.

SQLite has no sums over its pages. A turned bit in the progress row (what was applied, the digest,
the configuration) or in a column of the small tables that is not sealed would be served as if it
had been written. Each transaction therefore seals, over nothing, the progress row and the sum of
all rows of the small tables; a start opens the mark before anything is believed.

The sum of a table's rows does not depend on their order, so that a transaction takes away the rows
that it replaces and adds its own, and never reads the others.

Not here: rows of revisions and openings (each is sealed), leaves (the tree's root).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, select

from configsvc.storage.history.batch import Batch
from configsvc.storage.history.messages import Meta
from configsvc.storage.history.schema import SMALL
from configsvc.storage.history.small_tables import SMALL_TABLES
from configsvc.storage.history.statements import SELECT_SMALL

MARK_FIELD: Final = b"progress.mark"
UNMARKED: Final = b"\0"  # of a store in which nothing was written yet
SUM_MODULUS: Final = 1 << 256
_NUMBERS: Final = struct.Struct(">qqqqqq")
_INT: Final = struct.Struct(">cq")
_LENGTH: Final = struct.Struct(">cI")


def rows_sum(table: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """Sum of rows as their columns hold them, of one small table."""
    start = sha256(table.encode() + b"\0")
    total = 0
    for row in rows:
        digest = start.copy()
        for value in row:
            if isinstance(value, int):
                digest.update(_INT.pack(b"i", value))
            else:
                raw = value.encode() if isinstance(value, str) else value
                kind = b"t" if isinstance(value, str) else b"b"
                digest.update(_LENGTH.pack(kind, len(raw)) + raw)
        total += int.from_bytes(digest.digest(), "big")
    return total % SUM_MODULUS


def stored_sum(connection: Connection) -> int:
    """Sum of all rows of all small tables as they lie in the database."""
    return (
        sum(
            rows_sum(name, (tuple(row) for row in connection.execute(select(table))))
            for name, table in SMALL.items()
        )
        % SUM_MODULUS
    )


def changed_sum(cursor: Any, total: int, batch: Batch) -> int:
    """The sum once ``batch`` is written; to be asked before it is."""
    for name, keys in batch.small_deletes.items():
        total -= _present(cursor, name, keys)
    for name, rows in batch.small_upserts.items():
        width = len(SMALL_TABLES[name].keys)
        total += rows_sum(name, rows) - _present(cursor, name, [row[:width] for row in rows])
    return total % SUM_MODULUS


def _present(cursor: Any, name: str, keys: Iterable[tuple[Any, ...]]) -> int:
    found = (cursor.execute(SELECT_SMALL[name], key).fetchone() for key in keys)
    return rows_sum(name, (row for row in found if row is not None))


def marked(meta: Meta, last_batch: int, tables: int) -> bytes:
    """What the mark is bound to."""
    numbers = _NUMBERS.pack(
        meta.applied,
        meta.term,
        meta.visible_revision,
        meta.tree_size,
        meta.generation,
        last_batch,
    )
    parts = (numbers, tables.to_bytes(32, "big"), meta.conf_state, meta.digest)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
