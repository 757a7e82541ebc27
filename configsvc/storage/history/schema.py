"""The tables of the history, as SQLAlchemy Core sees them.

Owns names and columns; ``migrations/`` makes the same tables step by step, and a test compares
the two. Keys and values are BLOB, compared bytewise; the tables are STRICT, so that no text ever
slips into a key column.

  revisions     every change of every key, for ever
  versions      the same rows by key; filled, as ``live``, from ``revisions`` up to
                ``progress.folded`` now and then (``folding``)
  live          which revision row is a key's present value: a restart reads these and few rows
                behind them
  commits       one row per audit leaf; ``openings`` beside it, so that an opening can be erased
  actors        actor records under their salted hash
  tiles         full tiles of 256 hashes of the Merkle tree (the unfinished rest is recomputed)
  seeds         sealing seeds, wrapped by the key file; ``seal_batches``: one derivation each
  store         one row: whose store this is, format and oldest reader
  progress      one row: how far the log has been written, guarded by ``owner_epoch``
  small tables  see ``small_tables``
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from configsvc.storage.history.small_tables import SMALL_TABLES, Kind

SCHEMA_ID: Final = "0003"  # newest migration this program knows
FORMAT: Final = 2  # meaning of the stored bytes; a store whose oldest reader is newer is refused

METADATA: Final = MetaData()

# SQLite's STRICT tables know INTEGER only, and it is 64 bits wide there.
BIG: Final = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *items: Any, rowid: bool = False) -> Table:
    return Table(name, METADATA, *items, sqlite_strict=True, sqlite_with_rowid=rowid)


def _int(name: str, **options: Any) -> Column[int]:
    return Column(name, BIG, nullable=False, **options)


def _blob(name: str, **options: Any) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False, **options)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


REVISIONS: Final = _table(
    "revisions",
    _int("revision"),
    _int("sub"),
    _blob("key"),
    _blob("value"),
    _int("create_revision"),
    _int("version"),
    _int("lease"),
    _int("tombstone"),
    _int("seq"),
    PrimaryKeyConstraint("revision", "sub"),
)
# The tombstone is in here so that counting and old key lists never touch the rows.
VERSIONS: Final = _table(
    "versions",
    _blob("key"),
    _int("revision"),
    _int("sub"),
    _int("tombstone"),
    PrimaryKeyConstraint("key", "revision", "sub"),
)

LIVE: Final = _table("live", _blob("key", primary_key=True), _int("revision"), _int("sub"))

COMMITS: Final = _table(
    "commits",
    _int("seq", primary_key=True, autoincrement=False),
    _int("raft_index"),
    _int("raft_term"),
    _int("revision"),
    _int("time_ns"),
    _text("event"),
    _blob("actor"),
    _text("outcome"),
    _blob("leaf"),
    rowid=True,
)
OPENINGS: Final = _table(
    "openings",
    _int("seq", primary_key=True, autoincrement=False),
    _blob("sealed"),
    rowid=True,
)
ACTORS: Final = _table(
    "actors",
    _int("seq", primary_key=True, autoincrement=False),
    _blob("hash"),
    _blob("record"),
    _blob("salt"),
    rowid=True,
)
Index("actors_by_hash", ACTORS.c.hash, unique=True)
TILES: Final = _table(
    "tiles",
    _int("level"),
    _int("number"),
    _blob("hashes"),
    PrimaryKeyConstraint("level", "number"),
    rowid=True,
)
SEEDS: Final = _table(
    "seeds",
    _text("id", primary_key=True),
    _text("key_id"),
    _blob("wrapped"),
    _int("created_s"),
)
SEAL_BATCHES: Final = _table(
    "seal_batches",
    _int("id", primary_key=True, autoincrement=False),
    _text("seed"),
    _blob("info"),
    rowid=True,
)
STORE: Final = _table(
    "store",
    _int("id", primary_key=True, autoincrement=False),
    _int("format"),
    _int("minimum_reader"),
    _blob("cluster_id"),
    _blob("member_id"),
    _blob("store_id"),
    _int("insecure"),
    _int("epoch"),
    _int("generation"),
    rowid=True,
)
PROGRESS: Final = _table(
    "progress",
    _int("id", primary_key=True, autoincrement=False),
    _int("applied"),
    _int("term"),
    _int("visible_revision"),
    _blob("conf_state"),
    _blob("digest"),
    _int("tree_size"),
    _int("last_batch"),
    _int("sealed"),
    _int("folded"),
    _int("owner_epoch"),
    _blob("mark", server_default=text("x'00'")),
    rowid=True,
)

_TYPES: Final[dict[Kind, Any]] = {
    Kind.INT: BIG,
    Kind.U64: BIG,
    Kind.FLAG: BIG,
    Kind.TEXT: Text,
    Kind.BLOB: LargeBinary,
    Kind.SECRET: LargeBinary,
}

SMALL: Final = {
    spec.name: _table(
        spec.name,
        *(Column(c.name, _TYPES[c.kind], nullable=False) for c in spec.keys + spec.values),
        PrimaryKeyConstraint(*(c.name for c in spec.keys)),
    )
    for spec in SMALL_TABLES.values()
}
