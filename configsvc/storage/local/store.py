"""The stream on disk: records, actors and the tree's frontier, committed together and synced.

Always true:
  * ``head.size`` records with seq 0 … size - 1 are held; a commit adds whole groups or nothing.
  * A commit that returned is on disk (``synchronous = FULL``).
  * The origin's mark is drawn once per file: a file made anew is another stream, and the anchors
    in stream M show where one ends and the next begins.

Not here: the thread (``writer``), what a record says (``audit``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from configsvc.audit.merkle import HASH_BYTES, Frontier, leaf_hash
from configsvc.errors import (
    ConfigError,
    DecodeError,
    ExitCode,
    FatalError,
    InvariantViolationError,
    ensure,
)
from configsvc.limits import ACTORS_KNOWN_MAX
from configsvc.storage.local import sealing
from configsvc.storage.local.engine import (
    check_private,
    open_reader,
    open_writer,
    private_files,
    sync_dir,
)
from configsvc.storage.local.looking import REMEDY, refuse_foreign
from configsvc.storage.local.messages import LocalActor, LocalHead, LocalIdentity, LocalRecord
from configsvc.storage.local.reader import LocalReader
from configsvc.storage.local.schema import (
    ACTORS,
    BATCHES,
    FORMAT,
    HEAD,
    METADATA,
    RECORDS,
    STORE,
)
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.seal.rows import RowSealer

_MARK_BYTES: Final = 4


class LocalStore:
    """The open file; its writing side belongs to one thread at a time."""

    def __init__(self, path: Path, identity: LocalIdentity, key_file: KeyFile, *, sync: bool):
        self.path = path
        self._identity = identity
        self._key_file = key_file
        self._older_key: KeyFile | None = None  # what readers may still meet, after a rewrap
        self._sync = sync
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._sealers: dict[str, RowSealer] = {}
        self._seed = ""
        self._frontier = Frontier()
        self.mark = ""
        self.head = LocalHead(0, (), 0)

    @classmethod
    def open(
        cls, path: Path, identity: LocalIdentity, key_file: KeyFile, *, sync: bool = True
    ) -> Self:
        """Open the database, or make it.

        Raises:
            ConfigError: exit 78: wrong key file, or others can reach the file.
            FatalError: exit 80 cannot be opened; 84 damaged; 85 another member's; 86 newer.
        """
        check_private(path)
        made = cls(path, identity, key_file, sync=sync)
        try:
            made.connect()
        except (sqlite3.Error, SQLAlchemyError) as error:
            cause = getattr(error, "orig", None) or error
            raise FatalError(
                ExitCode.STORAGE,
                f"local audit log {path} cannot be opened ({type(cause).__name__})",
                f"check the disk; if the file is damaged, {REMEDY}",
            ) from None
        return made

    def connect(self) -> None:
        """Open the file once more, after a failure or for the first time; sets ``head``."""
        self.close()
        fresh = not self.path.exists()
        with private_files():
            self._engine = open_writer(self.path, sync=self._sync)
            self._connection = connection = self._engine.connect()
            with connection.begin():
                METADATA.create_all(connection)
                self._stamp(connection)
                self._sealers = sealing.load_sealers(
                    connection, self._identity, self._key_file, self.path
                )
                self._seed = sealing.choose_active(
                    connection, self._identity, self._key_file, int(time.time())
                )
                self.head = self._read_head(connection)
        with connection.begin():  # a seed that was just made, unwrapped like the others
            self._sealers = sealing.load_sealers(
                connection, self._identity, self._key_file, self.path
            )
        self._frontier = Frontier.restore(self.head.size, self.head.roots)
        if fresh:
            sync_dir(self.path.parent)

    def close(self) -> None:
        """Let go of the file; what was committed stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    # --- writing ---------------------------------------------------------------------------------

    def append(
        self, records: Sequence[LocalRecord], actors: Sequence[LocalActor], time_ns: int
    ) -> None:
        """Commit and sync a group.

        Args:
            records: In order, beginning at ``head.size``.
            actors: Actor records that these name for the first time.
            time_ns: Of the newest of them.

        Raises:
            SQLAlchemyError, sqlite3.Error: nothing or everything of it is on disk: ``connect``
                again and look at ``head``.
        """
        ensure(records and records[0].seq == self.head.size, "records follow one another")
        frontier = self._frontier.copy()
        hashes = [leaf_hash(record.leaf) for record in records]
        for hashed in hashes:
            frontier.append_hash(hashed)
        size, roots = frontier.state()
        ensure(size == records[-1].seq + 1, "the tree has one leaf per record")
        head = LocalHead(size, roots, max(time_ns, self.head.time_ns))
        connection = self._open_connection()
        with connection.begin():
            self._insert(connection, records, hashes, actors)
            connection.execute(
                update(HEAD).values(size=size, roots=b"".join(roots), time_ns=head.time_ns)
            )
        self._frontier, self.head = frontier, head

    def _insert(
        self,
        connection: Connection,
        records: Sequence[LocalRecord],
        hashes: Sequence[bytes],
        actors: Sequence[LocalActor],
    ) -> None:
        batch, sealed = connection.execute(select(HEAD.c.last_batch, HEAD.c.sealed)).one()
        batch += 1
        sealing_batch = self._sealers[self._seed].begin()
        connection.execute(
            insert(BATCHES).values(id=batch, seed=self._seed, info=sealing_batch.info)
        )
        fields = [
            (r.seq, hashed, sealing.record_aad(r.seq, hashed), sealing.pack_record(r))
            for r, hashed in zip(records, hashes, strict=True)
        ] + [
            (a.seq, a.hash, sealing.actor_aad(a.seq, a.hash), sealing.pack_actor(a)) for a in actors
        ]
        rows = [
            {
                "seq": seq,
                "hash": hashed,
                "batch": batch,
                "number": number,
                "sealed": sealing_batch.seal(number, aad, clear),
            }
            for number, (seq, hashed, aad, clear) in enumerate(fields)
        ]
        connection.execute(insert(RECORDS), rows[: len(records)])
        if actors:
            connection.execute(insert(ACTORS), rows[len(records) :])
        connection.execute(update(HEAD).values(last_batch=batch, sealed=sealed + len(rows)))

    def rewrap(self, new: KeyFile) -> int:
        """Wrap the seeds with another key file; the number of seeds. Readers may go on."""
        connection = self._open_connection()
        self._older_key = old = self._key_file
        self._key_file = new
        try:
            with connection.begin():
                return sealing.rewrap(connection, self._identity, old, new)
        except BaseException:
            self._key_file = old
            raise

    # --- reading ---------------------------------------------------------------------------------

    def known_actors(self) -> list[tuple[bytes, bytes]]:
        """(record, hash) of the newest actor records, oldest first, for ``KnownActors.load``."""
        with self.reading() as reader:
            actors = reader.newest_actors(ACTORS_KNOWN_MAX)
        return [(actor.record, actor.hash) for actor in actors]

    @contextmanager
    def reading(self) -> Iterator[LocalReader]:
        """One snapshot of the stream; from any thread."""
        engine = open_reader(self.path)
        try:
            with engine.connect() as connection, connection.begin():
                yield LocalReader(connection, self._sealers_of(connection))
        finally:
            engine.dispose()

    # --- inside ----------------------------------------------------------------------------------

    def _sealers_of(self, connection: Connection) -> dict[str, RowSealer]:
        tried = self._key_file
        try:
            return sealing.load_sealers(connection, self._identity, tried, self.path)
        except ConfigError:
            # The writer's thread may have changed both, or the seeds, since that was read.
            other = self._older_key if self._key_file is tried else self._key_file
            if other is None:
                raise
            return sealing.load_sealers(connection, self._identity, other, self.path)

    def _open_connection(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise InvariantViolationError("a closed stream is not written to")
        return connection

    def _stamp(self, connection: Connection) -> None:
        own = self._identity
        ids = (own.cluster_id.to_bytes(8, "big"), own.member_id.to_bytes(8, "big"), own.store_id)
        row = connection.execute(select(STORE)).mappings().first()
        if row is None:
            self.mark = os.urandom(_MARK_BYTES).hex()
            connection.execute(
                insert(STORE).values(
                    id=1,
                    format=FORMAT,
                    minimum_reader=FORMAT,
                    cluster_id=ids[0],
                    member_id=ids[1],
                    store_id=ids[2],
                    mark=self.mark,
                )
            )
            connection.execute(
                insert(HEAD).values(id=1, size=0, roots=b"", time_ns=0, last_batch=0, sealed=0)
            )
            return
        refuse_foreign(self.path, row, own)
        self.mark = row["mark"]

    def _read_head(self, connection: Connection) -> LocalHead:
        size, roots, time_ns = connection.execute(
            select(HEAD.c.size, HEAD.c.roots, HEAD.c.time_ns)
        ).one()
        newest = connection.execute(select(func.max(RECORDS.c.seq))).scalar()
        held = 0 if newest is None else newest + 1
        parts = tuple(roots[at : at + HASH_BYTES] for at in range(0, len(roots), HASH_BYTES))
        try:
            Frontier.restore(size, parts)
        except DecodeError:
            held = -1
        if held != size:
            raise FatalError(
                ExitCode.STORES_DISAGREE, f"{self.path}: records and tree disagree", REMEDY
            )
        return LocalHead(size, parts, time_ns)
