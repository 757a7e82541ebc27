"""The tables of the member-local database, made in one go: the format is stamped, not migrated.

store     one row: whose records, format and oldest reader, and the mark in the stream's origin
seeds     sealing seeds, wrapped by the key file; ``batches``: one derivation per transaction
records   one row per leaf: its hash in the clear, everything else sealed
actors    actor records under their salted hash, sealed
head      one row: size and frontier of the tree, written with the records
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

FORMAT: Final = 1  # meaning of the stored bytes; a database whose oldest reader is newer is refused

METADATA: Final = MetaData()
_BIG: Final = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *items: Any) -> Table:
    return Table(name, METADATA, *items, sqlite_strict=True)


def _int(name: str, **options: Any) -> Column[int]:
    return Column(name, _BIG, nullable=False, **options)


def _blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


STORE: Final = _table(
    "store",
    _int("id", primary_key=True, autoincrement=False),
    _int("format"),
    _int("minimum_reader"),
    _blob("cluster_id"),
    _blob("member_id"),
    _blob("store_id"),
    _text("mark"),
)
SEEDS: Final = _table(
    "seeds", _text("id", primary_key=True), _text("key_id"), _blob("wrapped"), _int("created_s")
)
BATCHES: Final = _table(
    "batches",
    _int("id", primary_key=True, autoincrement=False),
    _text("seed"),
    _blob("info"),
)
RECORDS: Final = _table(
    "records",
    _int("seq", primary_key=True, autoincrement=False),
    _blob("hash"),
    _int("batch"),
    _int("number"),
    _blob("sealed"),
)
ACTORS: Final = _table(
    "actors",
    _int("seq", primary_key=True, autoincrement=False),
    _blob("hash"),
    _int("batch"),
    _int("number"),
    _blob("sealed"),
)
HEAD: Final = _table(
    "head",
    _int("id", primary_key=True, autoincrement=False),
    _int("size"),
    _blob("roots"),
    _int("time_ns"),
    _int("last_batch"),
    _int("sealed"),
)
