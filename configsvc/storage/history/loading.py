"""What is read whole, at start and for an install: live rows, small tables, actors, tiles.

Plain reads on a connection that the caller gives, inside a transaction of the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from sqlalchemy import Connection, bindparam, inspect, select, text

from configsvc.audit.merkle import leaf_hash
from configsvc.storage.history.batch import secret_field, secret_tail
from configsvc.storage.history.messages import Actor, Meta, StoreIdentity
from configsvc.storage.history.schema import ACTORS, COMMITS, PROGRESS, SMALL, STORE, TILES
from configsvc.storage.history.small_tables import SMALL_TABLES, Kind, load_value
from configsvc.storage.history.soundness import check_live, whole_leaf
from configsvc.storage.history.statements import ROW_LIST, SELECT_SEAL_BATCH, compiled
from configsvc.storage.history.tree import TileTree, load_tree
from configsvc.storage.history.values import SALT_BYTES, SEALED_OVERHEAD, Vault
from configsvc.storage.seal.errors import SealBroken

# Live places are sorted by revision first: neighbours share a seal batch, so that opening a
# million rows derives each batch key once, and the rows are read in file order. The limit says
# nothing and keeps SQLite from dropping the order of a part of a join.
_LIVE_ROWS: Final = """
WITH place(revision, sub) AS MATERIALIZED (SELECT revision, sub FROM live ORDER BY 1, 2 LIMIT -1)
SELECT {columns} FROM place CROSS JOIN revisions r
ON r.revision = place.revision AND r.sub = place.sub
"""

# The ninth byte of a sealed value says whether a salt lies behind it (``values``).
_WINDOW_BYTES: Final = text(
    """
SELECT coalesce(sum(
  :row + length(key) + length(value) - :overhead - (substr(value, 9, 1) >= x'80') * :salt
), 0) FROM revisions WHERE revision > :floor
"""
)

_LEAVES: Final = compiled(
    select(COMMITS.c.leaf)
    .where(COMMITS.c.seq >= bindparam("start"), COMMITS.c.seq < bindparam("end"))
    .order_by(COMMITS.c.seq)
).sql
_TILE: Final = compiled(
    select(TILES.c.hashes).where(
        TILES.c.level == bindparam("level"), TILES.c.number == bindparam("number")
    )
).sql


def is_complete(connection: Connection) -> bool:
    """Whether the first start got as far as stamping the store (it is one transaction)."""
    if not inspect(connection).has_table(STORE.name):
        return False
    return connection.execute(select(STORE.c.id)).first() is not None


def read_identity(connection: Connection) -> StoreIdentity:
    row = connection.execute(select(STORE)).one()
    return StoreIdentity(
        cluster_id=int.from_bytes(row.cluster_id, "big"),
        member_id=int.from_bytes(row.member_id, "big"),
        store_id=row.store_id,
        insecure=bool(row.insecure),
        epoch=row.epoch,
    )


def read_meta(connection: Connection, identity: StoreIdentity) -> Meta:
    """The progress row as it is in the caller's transaction."""
    row = connection.execute(select(PROGRESS)).one()
    return Meta(
        applied=row.applied,
        term=row.term,
        visible_revision=row.visible_revision,
        conf_state=row.conf_state,
        digest=row.digest,
        tree_size=row.tree_size,
        owner_epoch=row.owner_epoch,
        generation=connection.execute(select(STORE.c.generation)).scalar_one(),
        identity=identity,
    )


def live_slices(connection: Connection, rows_max: int) -> Iterator[list[tuple[Any, ...]]]:
    """Present rows in ``ROW_COLUMNS``, straight from the driver, in order of revision and sub.

    Raises:
        SealBroken: the tables do not agree on what is present.
    """
    missing = check_live(connection)
    cursor = cast(Any, connection.connection.cursor())
    try:
        cursor.arraysize = rows_max
        cursor.execute(_LIVE_ROWS.format(columns=ROW_LIST))
        while raws := cursor.fetchmany():
            missing -= len(raws)
            yield raws
    finally:
        cursor.close()
    if missing:
        raise SealBroken(f"{missing} rows of present keys are not there")


def window_bytes(connection: Connection, floor: int, row_bytes: int) -> int:
    """Size of all rows above ``floor``: ``row_bytes`` + key + clear value each. Reads them all."""
    bounds = {"floor": floor, "row": row_bytes, "overhead": SEALED_OVERHEAD, "salt": SALT_BYTES}
    return int(connection.execute(_WINDOW_BYTES, bounds).scalar_one())


def small_tables(connection: Connection, vault: Vault) -> dict[str, list[tuple[Any, ...]]]:
    """Every small table, values as apply gave them, ordered by key."""
    found = {}
    for name, spec in SMALL_TABLES.items():
        columns = spec.keys + spec.values
        table = SMALL[name]
        rows = connection.execute(select(table).order_by(*(table.c[c.name] for c in spec.keys)))
        loaded = []
        for raw in rows:
            values = list(raw)
            for at, column in enumerate(columns):
                if column.kind is Kind.SECRET:
                    tail = secret_tail(tuple(raw[: len(spec.keys)]))
                    values[at] = vault.open(secret_field(name, column.name), tail, raw[at])
                values[at] = load_value(column.kind, values[at])
            loaded.append(tuple(values))
        found[name] = loaded
    return found


def actors(connection: Connection, after_seq: int = -1) -> list[Actor]:
    """Actor records first met after leaf ``after_seq``."""
    columns = (ACTORS.c.hash, ACTORS.c.record, ACTORS.c.salt, ACTORS.c.seq)
    rows = connection.execute(
        select(*columns).where(ACTORS.c.seq > after_seq).order_by(ACTORS.c.seq)
    )
    return [Actor(*row) for row in rows]


def find_batch(connection: Connection, batch_id: int) -> tuple[str, bytes] | None:
    """Seed id and info of a seal batch."""
    cursor = cast(Any, connection.connection.cursor())
    try:
        cursor.execute(SELECT_SEAL_BATCH, (batch_id,))
        return cast("tuple[str, bytes] | None", cursor.fetchone())
    finally:
        cursor.close()


def read_tile(connection: Connection, level: int, number: int) -> bytes | None:
    """The hashes of a full tile; None while it is not full."""
    row = connection.exec_driver_sql(_TILE, (level, number)).first()
    return None if row is None else row[0]


def leaf_hashes(connection: Connection, start: int, end: int) -> list[bytes]:
    """Level-0 hashes of leaves ``[start, end)``, recomputed from the leaves.

    Raises:
        SealBroken: one is not there, or no leaf.
    """
    rows = connection.exec_driver_sql(_LEAVES, (start, end))
    found = [leaf_hash(whole_leaf(row[0])) for row in rows]
    if len(found) != end - start:
        raise SealBroken(
            f"{end - start} leaves of the audit stream should be there, not {len(found)}"
        )
    return found


def read_tree(connection: Connection, size: int) -> TileTree:
    """The tree of ``size`` leaves, from full tiles and the leaves behind them."""

    def tile(level: int, number: int) -> bytes:
        return read_tile(connection, level, number) or b""

    return load_tree(size, lambda start, end: leaf_hashes(connection, start, end), tile)
