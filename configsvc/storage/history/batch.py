"""Turns the effects of a run of entries into the tuples of one SQL transaction.

Pure but for the random bytes of sealing. Hot: this runs once per entry in the writer's thread,
which shares the interpreter with the serving loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configsvc.apply.commands import Effects, TableChange
from configsvc.errors import ensure
from configsvc.storage.history.small_tables import SMALL_TABLES, Kind, SmallTable, store_value
from configsvc.storage.history.tree import Tile, TileTree
from configsvc.storage.history.values import ROW_AAD, SALT_BYTES, VALUE_FIELD, Sealing


class Batch:
    """One transaction's tuples, in the column order of the tables."""

    __slots__ = (
        "actors",
        "commits",
        "openings",
        "revisions",
        "row_count",
        "small_deletes",
        "small_upserts",
        "tiles",
    )

    def __init__(self) -> None:
        # Of these two, rows lie flat, one behind the other: so they are bound, by blocks, and a
        # tuple for each would have to be taken apart again.
        self.revisions: list[Any] = []
        self.row_count = 0  # in it
        self.commits: list[Any] = []
        self.openings: list[tuple[int, bytes]] = []
        self.actors: list[tuple[int, bytes, bytes, bytes]] = []
        self.tiles: list[Tile] = []
        self.small_upserts: dict[str, list[tuple[Any, ...]]] = {}
        self.small_deletes: dict[str, list[tuple[Any, ...]]] = {}


def build(effects: Sequence[Effects], tree: TileTree, sealing: Sealing) -> Batch:
    """The tuples of ``effects``, which follow each other without a gap. Advances ``tree``."""
    batch = Batch()
    revisions, commits, openings = batch.revisions, batch.commits, batch.openings
    seal, pack, seal_opening = sealing.field(VALUE_FIELD), ROW_AAD.pack, sealing.seal_opening
    seal_salted = sealing.salted()
    changes: dict[tuple[str, tuple[Any, ...]], TableChange] = {}
    hashes: list[bytes] = []
    due = tree.size  # the next leaf's place
    for _, _, _, _, _, rows, _, tables, leaf, commit, _, hashed in effects:
        if commit is None:
            ensure(not rows, "rows without a leaf")
        else:
            (
                seq, index, term, at, time_ns, event, actor, record, actor_salt, outcome,
                salt, reason, ticket, listed,
            ) = commit  # fmt: skip
            if seq != due:
                ensure(False, "leaves follow each other")
            due += 1
            hashes.append(hashed)
            bare = not (reason or ticket or listed)
            with_row = bare and len(rows) == 1 and len(salt) == SALT_BYTES
            for revision, sub, key, value, create, version, lease, tombstone in rows:
                flag = 1 if tombstone else 0
                tail = pack(revision, sub, create, version, lease, seq, flag) + key
                blob = seal_salted(tail, value + salt) if with_row else seal(tail, value)
                revisions += (revision, sub, key, blob, create, version, lease, flag, seq)
            batch.row_count += len(rows)
            commits += (seq, index, term, at, time_ns, event, actor, outcome, leaf)
            if not with_row:
                openings.append((seq, seal_opening(seq, salt, reason, ticket, listed)))
            if record:
                batch.actors.append((seq, actor, record, actor_salt))
        for change in tables:
            changes[change.table, change.key] = change
    tree.append_hashes(hashes, batch.tiles)
    for change in changes.values():
        _add_small(batch, change, sealing)
    return batch


def _add_small(batch: Batch, change: TableChange, sealing: Sealing) -> None:
    spec = SMALL_TABLES.get(change.table)
    if spec is None:
        ensure(condition=False, what=f"unknown small table {change.table}")
        return
    ensure(len(change.key) == len(spec.keys), f"key columns of {spec.name}")
    key = tuple(
        store_value(column.kind, value) for column, value in zip(spec.keys, change.key, strict=True)
    )
    if change.row is None:
        batch.small_deletes.setdefault(spec.name, []).append(key)
    else:
        row = small_row(spec, key, change.row, sealing)
        batch.small_upserts.setdefault(spec.name, []).append(row)


def small_row(
    spec: SmallTable, key: tuple[Any, ...], values: Sequence[Any], sealing: Sealing
) -> tuple[Any, ...]:
    """A whole row of a small table as its columns hold it; ``key`` is already in that form."""
    ensure(len(values) == len(spec.values), f"value columns of {spec.name}")
    stored = []
    for column, value in zip(spec.values, values, strict=True):
        item = store_value(column.kind, value)
        if column.kind is Kind.SECRET:
            item = sealing.field(secret_field(spec.name, column.name))(secret_tail(key), item)
        stored.append(item)
    return key + tuple(stored)


def secret_field(table: str, column: str) -> bytes:
    """Name under which a sealed column of a small table is bound."""
    return f"{table}.{column}".encode()


def secret_tail(key: tuple[Any, ...]) -> bytes:
    """A small table's key as associated data; its parts are length-prefixed."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in key]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
