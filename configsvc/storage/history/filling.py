"""A history that is filled from another member's instead of by writing entries.

Rows and commits arrive in ascending order in any mixture, then actors and small tables; sealed
here under this member's own seeds. Until ``complete`` the progress row says "nothing applied", so
a generation that was filled half-way can never be taken for a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select

from configsvc.errors import DecodeError, ensure
from configsvc.limits import INSTALL_FOLD_ROWS, SQL_SIDE_LOG_BYTES_MAX
from configsvc.storage.history import statements
from configsvc.storage.history.batch import small_row
from configsvc.storage.history.engine import BUSY_TIMEOUT_S
from configsvc.storage.history.folding import fold
from configsvc.storage.history.mark import SUM_MODULUS, rows_sum
from configsvc.storage.history.messages import Actor, CommitInfo, Meta, Opening
from configsvc.storage.history.schema import COMMITS, REVISIONS
from configsvc.storage.history.small_tables import SMALL_TABLES, store_value
from configsvc.storage.history.store import History
from configsvc.storage.history.tree import Tile
from configsvc.storage.history.values import ROW_AAD, VALUE_FIELD, Sealing


class FillingHistory(History):
    """Open with ``FillingHistory.open(..., create=True)`` on a fresh file."""

    def add_rows(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Opened revision rows: the fields of ``Row``, then the seq of their leaf."""
        with self._sealing() as sealing:
            seal, pack = sealing.field(VALUE_FIELD), ROW_AAD.pack
            stored = []
            for revision, sub, key, value, create, version, lease, tombstone, seq in rows:
                flag = 1 if tombstone else 0
                tail = pack(revision, sub, create, version, lease, seq, flag) + key
                blob = seal(tail, value)
                stored.append((revision, sub, key, blob, create, version, lease, flag, seq))
            self._insert(statements.INSERT_REVISIONS, stored)
            self._unfolded += len(stored)
            if self._unfolded > INSTALL_FOLD_ROWS:
                # The last revision may go on in the next call. Nobody reads by key before the end,
                # and each fold writes nearly every page of the index: few are made, of many rows.
                fold(self._cursor, stored[-1][0] - 1, INSTALL_FOLD_ROWS)
                self._unfolded = 1

    def add_commits(self, commits: Sequence[tuple[CommitInfo, Opening | None]]) -> None:
        """Commits in order of seq, with their openings; None: erased.

        Raises:
            DecodeError: a seq is not the next one.
        """
        tiles: list[Tile] = []
        with self._sealing() as sealing:
            openings = []
            for commit, opening in commits:
                if commit.seq != self._tree.size:
                    raise DecodeError(f"leaf {commit.seq} where {self._tree.size} is due")
                self._tree.append(commit.leaf, tiles)
                if opening is not None:
                    openings.append((commit.seq, sealing.seal_opening(commit.seq, *opening)))
            self._insert(statements.INSERT_COMMITS, [tuple(commit) for commit, _ in commits])
            self._insert(statements.INSERT_OPENINGS, openings)
            self._run(statements.INSERT_TILE, tiles)

    def add_actors(self, actors: Iterable[Actor]) -> None:
        rows = [(actor.seq, actor.hash, actor.record, actor.salt) for actor in actors]
        with self._connection.begin():
            self._run(statements.INSERT_ACTOR, rows)

    def add_table_rows(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Rows of a small table: key columns, then value columns, as ``load_tables`` gives them.

        Raises:
            DecodeError: no such table, or another number of columns.
        """
        spec = SMALL_TABLES.get(table)
        if spec is None:
            raise DecodeError("install of an unknown table")
        width = len(spec.keys)
        with self._sealing() as sealing:
            stored = []
            for row in rows:
                if len(row) != width + len(spec.values):
                    raise DecodeError(f"install row of another width for {table}")
                key = tuple(
                    store_value(column.kind, value)
                    for column, value in zip(spec.keys, row[:width], strict=True)
                )
                stored.append(small_row(spec, key, row[width:], sealing))
            self._tables = (self._tables + rows_sum(table, stored)) % SUM_MODULUS
            self._run(statements.UPSERT_SMALL[table], stored)

    def complete(self, meta: Meta, tree_root: bytes, rows: int) -> None:
        """Check what was filled against the sender's totals and make it the history's state.

        Args:
            meta: Progress of the sender; ownership and identity stay this store's.
            tree_root: Root of the sender's tree.
            rows: Number of revision rows.

        Raises:
            DecodeError: something is missing, too much or different. The file is of no use then.
        """
        with self._sealing() as sealing:
            self._check(meta, tree_root, rows)
            after = meta._replace(
                owner_epoch=self._meta.owner_epoch,
                generation=self._meta.generation,
                identity=self._meta.identity,
            )
            self._guard(after, sealing, self._tables)
            fold(self._cursor, after.visible_revision, INSTALL_FOLD_ROWS)
            self._unfolded = 0
        self._meta = after
        ensure(self.checkpoint(wait_s=BUSY_TIMEOUT_S) == after.applied, "nobody reads it yet")

    def _check(self, meta: Meta, tree_root: bytes, rows: int) -> None:
        count, newest = self._connection.execute(
            select(func.count(), func.coalesce(func.max(REVISIONS.c.revision), 1)).select_from(
                REVISIONS
            )
        ).one()
        leaves = self._connection.execute(select(func.count()).select_from(COMMITS)).scalar_one()
        if count != rows or newest > meta.visible_revision:
            raise DecodeError(f"install holds {count} rows up to revision {newest}, not as sent")
        if leaves != meta.tree_size or self._tree.size != meta.tree_size:
            raise DecodeError(f"install holds {leaves} leaves of {meta.tree_size}")
        if self._tree.root() != tree_root:
            raise DecodeError("install with another audit tree than the sender's")

    @contextmanager
    def _sealing(self) -> Iterator[Sealing]:
        """One transaction with a seal batch of its own."""
        if self.side_log_bytes() > SQL_SIDE_LOG_BYTES_MAX:
            self.checkpoint(wait_s=BUSY_TIMEOUT_S)
        sealing = self._vault.begin(self._last_batch + 1, self._seed)
        with self._connection.begin():
            yield sealing
            row = (sealing.batch_id, sealing.seed_id, sealing.info)
            self._run(statements.INSERT_SEAL_BATCH, [row])
        self._last_batch += 1
        self._sealed += sealing.count
