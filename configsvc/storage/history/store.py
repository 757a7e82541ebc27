"""The history's one writing side: opens the database, writes batches, loads at start.

Always true:
  * One transaction holds rows, live keys, commits, openings, tiles, small tables and progress of
    a run of entries, and takes effect only from the state this process last wrote (Q1). A second
    writer, or a process that was declared dead, ends with exit 84 and has changed nothing.
  * The durable index moves only after a complete checkpoint (Q4).
  * Entries at or below ``applied`` are skipped, so replaying the log is harmless (Q3).

Used by one thread at a time. Not here: the thread (``writer``), questions (``reader``), which
generation file is the right one (``storage.snapshot.generations``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self, cast

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import SQLAlchemyError

from configsvc.apply.commands import Effects
from configsvc.errors import ExitCode, FatalError, ensure
from configsvc.limits import SEALED_PER_SEED_MAX
from configsvc.mvcc.messages import Row
from configsvc.storage.history import loading, statements
from configsvc.storage.history.batch import Batch, build
from configsvc.storage.history.engine import (
    BUSY_TIMEOUT_S,
    check_private,
    open_writer,
    private_files,
    set_busy_timeout,
    sqlite_path,
    sync_dir,
)
from configsvc.storage.history.folding import fold, fold_due
from configsvc.storage.history.mark import (
    MARK_FIELD,
    UNMARKED,
    changed_sum,
    marked,
    stored_sum,
)
from configsvc.storage.history.messages import Actor, Meta, StoreIdentity
from configsvc.storage.history.migrate import migrate
from configsvc.storage.history.schema import COMMITS, PROGRESS
from configsvc.storage.history.seeds import choose_active, load_sealers, rewrap
from configsvc.storage.history.soundness import damaged
from configsvc.storage.history.stamping import precheck, stamp
from configsvc.storage.history.values import Sealing, Vault
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.seal.rows import RowSealer

LIVE_SLICE_ROWS: Final = 1_000  # rows of one slice of ``load_live_slices``


class History:
    """One open history database, for writing. Use ``open``."""

    def __init__(
        self, path: Path, identity: StoreIdentity, engine: Engine, key_file: KeyFile
    ) -> None:
        self.path = path
        self._identity = identity
        self._engine = engine
        self._connection: Connection = engine.connect()
        self._cursor = cast(Any, self._connection.connection.cursor())
        self._key_file = key_file
        self._broken = False
        self.durable = 0  # applied index of the last complete checkpoint of this incarnation

    @classmethod
    def open(
        cls,
        url_or_path: str | os.PathLike[str],
        identity: StoreIdentity,
        key_file: KeyFile,
        *,
        create: bool,
        generation: int = 1,
    ) -> Self:
        """Open a history for writing: check, migrate, take ownership.

        Args:
            url_or_path: A file, or ``sqlite:///`` and a file.
            identity: Stamped into a new store, compared with an existing one.
            key_file: What the sealing seeds are wrapped with.
            create: Make the store if it does not exist. An existing one is opened either way, so
                that a first start that was killed half-way can be repeated.
            generation: Number stamped into a new store (``storage.snapshot``).

        Raises:
            ConfigError: exit 78: wrong key file, file reachable by others. Nothing was touched.
            FatalError: exit 84 no such store; 85 another cluster's, member's or store's; 86 newer.
        """
        path = sqlite_path(url_or_path)
        if not path.exists() and not create:
            raise FatalError(
                ExitCode.STORES_DISAGREE,
                f"history {path} is missing",
                "wipe the data directory and let the member join again, or restore a backup",
            )
        check_private(path)
        try:
            with private_files():
                if path.exists():
                    precheck(path, identity, key_file)
                return cls._opened(path, identity, key_file, generation)
        except (sqlite3.Error, SQLAlchemyError) as error:
            cause = getattr(error, "orig", None) or error
            raise FatalError(
                ExitCode.STORAGE,
                f"history {path} cannot be opened ({type(cause).__name__}: {cause})",
                "check the disk; if the file is damaged, wipe the data directory and join again",
            ) from None

    @classmethod
    def _opened(
        cls, path: Path, identity: StoreIdentity, key_file: KeyFile, generation: int
    ) -> Self:
        fresh = not path.exists()
        history = cls(path, identity, open_writer(path), key_file)
        try:
            history._start(generation)
            if fresh:
                sync_dir(path.parent)
            # What a killed process left in SQLite's own log may never have been synced.
            history.checkpoint(wait_s=BUSY_TIMEOUT_S)
        except BaseException:
            history._dispose()
            raise
        return history

    def _start(self, generation: int) -> None:
        connection, identity = self._connection, self._identity
        with connection.begin():
            migrated = migrate(connection)
            stamp(connection, identity, generation)
            load_sealers(connection, identity, self._key_file, self.path)
            self._seed = choose_active(connection, identity, self._key_file, int(time.time()))
            connection.execute(update(PROGRESS).values(owner_epoch=PROGRESS.c.owner_epoch + 1))
            self._vault = Vault(self._load_sealers, self._find_batch)
            self._meta = loading.read_meta(connection, identity)
            fold(self._cursor, self._meta.visible_revision)
            self._unfolded = 0  # rows that the key index lacks
            columns = select(PROGRESS.c.last_batch, PROGRESS.c.sealed, PROGRESS.c.mark)
            self._last_batch, self._sealed, mark = connection.execute(columns).one()
            self._tables = stored_sum(connection)
            if migrated and self._meta.applied:
                self._mark_first(connection)
            else:
                self._check_mark(mark)
            try:
                self._tree = loading.read_tree(connection, self._meta.tree_size)
            except SealBroken as error:
                raise self._damaged(str(error)) from None

    def _check_mark(self, mark: bytes) -> None:
        """Progress and small tables are what the last transaction wrote, or nothing is believed."""
        if mark == UNMARKED and not self._meta.applied:
            return
        try:
            bound = marked(self._meta, self._last_batch, self._tables)
            self._vault.open(MARK_FIELD, bound, mark)
        except SealBroken:
            raise self._damaged("its progress row or a small table is not as written") from None

    def _mark_first(self, connection: Connection) -> None:
        """A program without marks wrote this store; from now on it has one."""
        sealing = self._vault.begin(self._last_batch + 1, self._seed)
        mark = self._mark(sealing, self._meta, self._tables)
        self._run(statements.INSERT_SEAL_BATCH, [(sealing.batch_id, sealing.seed_id, sealing.info)])
        self._last_batch, self._sealed = sealing.batch_id, self._sealed + sealing.count
        connection.execute(
            update(PROGRESS).values(mark=mark, last_batch=self._last_batch, sealed=self._sealed)
        )

    def _mark(self, sealing: Sealing, meta: Meta, tables: int) -> bytes:
        return sealing.field(MARK_FIELD)(marked(meta, sealing.batch_id, tables), b"")

    # --- start ------------------------------------------------------------------------------------

    def meta(self) -> Meta:
        """Where the history stands, as of the last written batch."""
        return self._meta

    def load_live_slices(self, rows_max: int = LIVE_SLICE_ROWS) -> Iterator[list[Row]]:
        """The present value of every key, opened, in order of revision and sub, in slices.

        Raises:
            FatalError: exit 84, a row is not what was written.
        """
        try:
            with self._connection.begin():
                for raws in loading.live_slices(self._connection, rows_max):
                    yield self._vault.open_rows(raws)
        except SealBroken as error:
            raise self._damaged(str(error)) from error

    def load_live(self) -> Iterator[Row]:
        """``load_live_slices``, row by row."""
        return chain.from_iterable(self.load_live_slices())

    def load_tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every small table: name to rows (key columns, then value columns), ordered by key.

        Raises:
            FatalError: exit 84, a sealed column is not what was written.
        """
        try:
            with self._connection.begin():
                return loading.small_tables(self._connection, self._vault)
        except SealBroken as error:
            raise self._damaged(str(error)) from error

    def load_tree(self) -> tuple[int, tuple[bytes, ...]]:
        """Leaves of stream M, and the roots of its perfect subtrees from left to right."""
        return self._tree.size, self._tree.frontier()

    def load_actors(self) -> list[Actor]:
        """Every actor record, in order of first mention."""
        with self._connection.begin():
            return loading.actors(self._connection)

    def last_time_ns(self) -> int:
        """Leader time of the newest commit; 0 when there is none."""
        with self._connection.begin():
            newest = select(COMMITS.c.time_ns).order_by(COMMITS.c.seq.desc()).limit(1)
            return self._connection.execute(newest).scalar() or 0

    def window_bytes(self, floor: int, row_bytes: int) -> int:
        """Size of the rows above ``floor``: ``row_bytes`` + key + clear value each.

        Reads every one of them: about half a second per million, without the interpreter's lock.
        """
        with self._connection.begin():
            return loading.window_bytes(self._connection, floor, row_bytes)

    def tree_root(self) -> bytes:
        """RFC 6962 root over every leaf written."""
        return self._tree.root()

    # --- write ------------------------------------------------------------------------------------

    def write(self, effects: Sequence[Effects], conf_state: bytes | None = None) -> None:
        """Write a run of entries in one transaction.

        Args:
            effects: Entries without a gap, beginning at most one above ``applied``.
            conf_state: Encoded configuration as of the last entry; None: unchanged.

        Raises:
            FatalError: exit 84, another writer has been here.
            sqlite3.Error: the database failed; the caller ends the process (W8).
        """
        ensure(not self._broken, "a failed history is not written again")
        meta = self._meta
        if effects and effects[0].index <= meta.applied:
            effects = [effect for effect in effects if effect.index > meta.applied]
        if not effects:
            return
        ensure(effects[0].index == meta.applied + 1, "entries are written without a gap")
        last = effects[-1]
        ensure(last.index - meta.applied == len(effects), "entries are written without a gap")
        if self._sealed >= SEALED_PER_SEED_MAX:
            self._change_seed()
        self._broken = True  # until the commit: the tree moves ahead of the database
        with self._transaction():
            batch_id = self._last_batch + 1
            sealing = self._vault.begin(batch_id, self._seed)
            batch = build(effects, self._tree, sealing)
            after = meta._replace(
                applied=last.index,
                term=last.term,
                visible_revision=last.revision,
                conf_state=meta.conf_state if conf_state is None else conf_state,
                digest=last.digest,
                tree_size=self._tree.size,
            )
            tables = changed_sum(self._cursor, self._tables, batch)
            self._guard(after, sealing, tables)
            info = (batch_id, sealing.seed_id, sealing.info)
            self._run(statements.INSERT_SEAL_BATCH, [info])
            self._execute(batch)
            unfolded = self._unfolded + batch.row_count
            if fold_due(unfolded, after.visible_revision):
                fold(self._cursor, after.visible_revision)
                unfolded = 0
        self._unfolded = unfolded
        self._meta, self._tables, self._last_batch = after, tables, batch_id
        self._sealed += sealing.count
        self._broken = False

    def _change_seed(self) -> None:
        with self._connection.begin():
            self._seed = choose_active(
                self._connection, self._identity, self._key_file, int(time.time())
            )
            self._vault.reload_seeds()
        self._sealed = 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction of hot statements, on the driver's cursor alone.

        SQLAlchemy's own begin, commit and executions cost as much as thirty rows.
        """
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._cursor.execute("ROLLBACK")
            raise
        self._cursor.execute("COMMIT")

    def _guard(self, after: Meta, sealing: Sealing, tables: int) -> None:
        """Move the progress row from where this process left it, or end (Q1).

        Nothing is sealed in this transaction afterwards.
        """
        mark = self._mark(sealing, after, tables)
        result = self._cursor.execute(
            statements.GUARD.sql,
            (
                after.applied,
                after.term,
                after.visible_revision,
                after.conf_state,
                after.digest,
                after.tree_size,
                sealing.batch_id,
                self._sealed + sealing.count,
                mark,
                self._meta.applied,
                self._meta.owner_epoch,
            ),
        )
        if result.rowcount != 1:
            raise FatalError(
                ExitCode.STORES_DISAGREE,
                f"history {self.path} was written by another process",
                "make sure that only one server uses this data directory, then start it again",
            )

    def _execute(self, batch: Batch) -> None:
        run = self._run
        self._insert_values(statements.INSERT_REVISIONS, batch.revisions)
        self._insert_commits(batch.commits)
        self._insert(statements.INSERT_OPENINGS, batch.openings)
        run(statements.INSERT_ACTOR, batch.actors)
        run(statements.INSERT_TILE, batch.tiles)
        for name, keys in batch.small_deletes.items():
            run(statements.DELETE_SMALL[name], keys)
        for name, rows in batch.small_upserts.items():
            run(statements.UPSERT_SMALL[name], rows)

    def _insert_commits(self, values: Sequence[Any]) -> None:
        """Insert whole rows; most blocks of a busy log are runs, of which less is bound."""
        step = statements.BLOCK_ROWS[0] * statements.INSERT_COMMITS.width
        done = 0  # values before this place are inserted: rows go to their table's end in order
        for at in range(0, len(values) - step + 1, step):
            block = values[at : at + step]
            if statements.is_commit_run(block):
                self._insert_values(statements.INSERT_COMMITS, values[done:at])
                run = statements.commit_run(block)
                self._cursor.execute(statements.INSERT_COMMIT_RUN, run)
                done = at + step
        self._insert_values(statements.INSERT_COMMITS, values[done:])

    def _insert(self, insert: statements.Insert, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert ``rows``."""
        self._insert_values(insert, list(chain.from_iterable(rows)))

    def _insert_values(self, insert: statements.Insert, values: Sequence[Any]) -> None:
        """Insert the rows that ``values`` make up, in the largest blocks that they fill."""
        at = 0
        for size, sql in insert.blocks:
            step = size * insert.width
            end = len(values) - (len(values) - at) % step
            if end > at:
                blocks = [values[i : i + step] for i in range(at, end, step)]
                self._cursor.executemany(sql, blocks)
                at = end

    def _run(self, sql: str, rows: Sequence[Any]) -> None:
        if rows:
            self._cursor.executemany(sql, rows)

    def checkpoint(self, *, wait_s: float = 0.0, quiet: bool = True) -> int:
        """Move what was written into the database file and sync it.

        Args:
            wait_s: Longest wait for readers, so that SQLite's own log can start from its beginning
                again; 0: do not wait, and leave that log as it is.
            quiet: Fold in what the key index lacks; False: there is more to do, leave it.

        Returns:
            The applied index that is durable now, 0 when a reader kept the checkpoint from
            completing: nothing new is durable then, try again later.
        """
        if self._unfolded and quiet:
            with self._transaction():
                fold(self._cursor, self._meta.visible_revision)
            self._unfolded = 0
        mode = "TRUNCATE" if wait_s else "PASSIVE"
        # Past SQLAlchemy, which would open a transaction first.
        set_busy_timeout(self._cursor, wait_s)
        pragma = self._cursor.execute(f"PRAGMA wal_checkpoint({mode})")
        busy, in_log, moved = pragma.fetchone()
        set_busy_timeout(self._cursor, BUSY_TIMEOUT_S)
        if busy or in_log != moved:
            return 0
        self.durable = self._meta.applied
        return self.durable

    def side_log_bytes(self) -> int:
        """Size of SQLite's own write-ahead file."""
        try:
            return os.path.getsize(f"{self.path}-wal")
        except FileNotFoundError:
            return 0

    def vacuum(self) -> None:
        """Give freed pages of the file back to the file system (defragment)."""
        self._cursor.executescript("PRAGMA incremental_vacuum")  # ``execute`` frees one page
        self.checkpoint(wait_s=BUSY_TIMEOUT_S)

    def rewrap(self, new_key_file: KeyFile) -> int:
        """Wrap all seeds with another key file (ENC-5); the number of seeds. No row is touched."""
        with self._connection.begin():
            count = rewrap(self._connection, self._meta.identity, self._key_file, new_key_file)
        self._key_file = new_key_file
        return count

    def close(self) -> None:
        """Checkpoint and close. The file alone is complete afterwards, its side files are gone."""
        if not self._broken:
            self.checkpoint(wait_s=BUSY_TIMEOUT_S)
        self._dispose()

    def abandon(self) -> None:
        """Close without a checkpoint: nothing that was not durable before becomes so."""
        self._dispose()

    def _dispose(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _load_sealers(self) -> dict[str, RowSealer]:
        return load_sealers(self._connection, self._identity, self._key_file, self.path)

    def _find_batch(self, batch_id: int) -> tuple[str, bytes] | None:
        return loading.find_batch(self._connection, batch_id)

    def _damaged(self, what: str) -> FatalError:
        return damaged(self.path, what)
