"""Answers from the past, on connections that cannot write.

Every method is one read transaction and blocks: the runtime calls them in executor threads. Any
number of threads may; each call takes a connection of its own. What SQL does not hold yet is the
caller's to add (``NotFlushedError``, or ``EventPage.through``): the unflushed tail lies in memory.
Rights and the compaction floor are the caller's as well; rows below that floor are answered.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

from sqlalchemy import Connection, select

from configsvc.audit.proofs import NodeReader
from configsvc.audit.verify import ActorRow, Entry
from configsvc.errors import ConfigError, OverloadedError, ensure
from configsvc.limits import HISTORY_COPY_BYTES_MAX, HISTORY_READERS_MAX
from configsvc.mvcc.messages import RangeOp, RangeResult
from configsvc.storage.history import loading, questions, verify
from configsvc.storage.history.copying import open_copy
from configsvc.storage.history.engine import open_reader, sqlite_path
from configsvc.storage.history.errors import NotFlushedError
from configsvc.storage.history.messages import (
    CommitInfo,
    Difference,
    EventPage,
    LogPage,
    Meta,
    StoreIdentity,
)
from configsvc.storage.history.nodes import Nodes
from configsvc.storage.history.ranges import read_range
from configsvc.storage.history.scans import Stretch
from configsvc.storage.history.schema import PROGRESS
from configsvc.storage.history.seeds import load_sealers
from configsvc.storage.history.session import Recent, Session
from configsvc.storage.history.values import Vault
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import KeySpan

_NO_END = 2**63 - 1
_PROGRESS = select(PROGRESS.c.visible_revision, PROGRESS.c.folded)


class _Link(NamedTuple):
    """One reading connection, with what was learnt on it."""

    connection: Connection
    vault: Vault
    recent: Recent


class HistoryReader:
    """Questions to one history database; safe for several threads."""

    def __init__(
        self, url_or_path: str | os.PathLike[str], identity: StoreIdentity, key_file: KeyFile
    ) -> None:
        """The database must have been opened for writing once (``History.open``)."""
        self._path = sqlite_path(url_or_path)
        self.identity = identity
        self._key_file = key_file
        self._older_key: KeyFile | None = None  # while a change of keys is under way
        self._engine = open_reader(self._path)
        self._idle: deque[_Link] = deque()
        self._nodes = Nodes()
        self._lock = threading.Lock()
        self._closed = False

    # --- what SQL holds ---------------------------------------------------------------------------

    def meta(self) -> Meta:
        """Where the history stands now."""
        with self.transaction() as (connection, _session):
            return loading.read_meta(connection, self.identity)

    def range_at(self, op: RangeOp, revision: int) -> RangeResult:
        """``op`` as the keys stood at ``revision``; all options of a Range.

        Raises:
            NotFlushedError: SQL does not hold ``revision`` yet.
            SealBroken: a row is not what was written (FC-9).
        """
        with self._session() as session:
            self._held(session, revision)
            return read_range(session, op, revision)

    def events(
        self,
        span: KeySpan | None,
        from_revision: int,
        to_revision: int,
        limit_revisions: int,
        *,
        with_previous: bool = True,
    ) -> EventPage:
        """Changes in ``span`` (None: all keys) of revisions from and to, both included.

        Args:
            span: Keys of interest.
            from_revision: First revision looked at.
            to_revision: Last one; what SQL does not hold yet is left out.
            limit_revisions: Most revisions with a change in one page. A page also ends, between
                two revisions, once it is larger than ``HISTORY_EVENTS_BYTES_MAX``.
            with_previous: Fill in the value before each change's revision.

        Returns:
            Whole revisions, ascending. Ask on from ``through + 1``.
        """
        with self._session() as session:
            return questions.events(
                session,
                span,
                from_revision,
                to_revision,
                revisions_max=limit_revisions,
                with_previous=with_previous,
            )

    def key_history(
        self,
        span: KeySpan,
        *,
        limit: int = 0,
        before: int = 0,
        after: int = 0,
        newest_first: bool = True,
    ) -> LogPage:
        """Changes of the keys in ``span`` with their authors.

        Args:
            span: One key or many.
            limit: Most rows, up to ``HISTORY_LOG_ROWS_MAX``; 0: that. A revision is never cut
                in two, so a page can be a little longer.
            before: Only revisions below; 0: no bound.
            after: Only revisions above.
            newest_first: Order, and the end from which the limit counts.
        """
        stretch = Stretch(after + 1, before - 1 if before > 0 else _NO_END)
        with self._session() as session:
            return questions.key_log(session, span, stretch, limit=limit, newest_first=newest_first)

    def blame(self, span: KeySpan, *, revision: int = 0, limit: int = 0) -> LogPage:
        """The last change of each key that exists at ``revision`` (0: the newest in SQL)."""
        with self._session() as session:
            self._held(session, revision)
            return questions.blame(session, span, revision or session.visible, limit)

    def diff(self, span: KeySpan, older: int, newer: int) -> list[Difference]:
        """Keys of ``span`` that differ between two revisions, in key order."""
        with self._session() as session:
            self._held(session, max(older, newer))
            return questions.difference(session, span, older, newer)

    def at_time(self, time_ns: int) -> int:
        """The newest revision not later than ``time_ns``; 1 when there was none."""
        with self._session() as session:
            first, size = self._leaf_bounds(session)
            return questions.revision_at(session, time_ns, size, first)

    def hash_kv(self, revision: int, compact_revision: int) -> int:
        """CRC32C over what a store compacted at ``compact_revision`` holds up to ``revision``.

        Clear bytes, in order: the keys that exist at the compaction, then every later change.
        Equal on all members. ``compact_revision`` below 1: never compacted.

        Raises:
            NotFlushedError: SQL does not hold ``revision`` yet.
        """
        with self._session() as session:
            self._held(session, revision)
            return questions.hash_kv(session, revision, compact_revision)

    def window_bytes(self, floor: int, row_bytes: int) -> int:
        """``History.window_bytes``, of what SQL holds now."""
        with self.transaction() as (connection, _session):
            return loading.window_bytes(connection, floor, row_bytes)

    # --- stream M ---------------------------------------------------------------------------------

    def commits(self, first_seq: int, end_seq: int) -> list[CommitInfo]:
        """Commits of leaves ``[first_seq, end_seq)`` that are held, in order."""
        with self._session() as session:
            return verify.commits(session, first_seq, end_seq)

    def leaves(self, first_seq: int, end_seq: int) -> Iterator[tuple[int, bytes]]:
        """(seq, leaf) of ``[first_seq, end_seq)``, one short read transaction per slice."""
        for commit in self._paged(first_seq, end_seq, verify.commits):
            yield commit.seq, commit.leaf

    def verify_entries(self, first_seq: int, end_seq: int) -> Iterator[Entry]:
        """Leaves ``[first_seq, end_seq)`` as ``audit.verify.verify_log`` takes them (TE-7).

        Raises:
            SealBroken: a row or opening is not what was written, or a row cannot be found by its
                key; names it.
            DecodeError: from leaf 0 on, at the end: the key index lists rows that do not exist.
        """
        yield from self._paged(first_seq, end_seq, verify.entries)
        if first_seq == 0:
            with self._session() as session:
                verify.check_key_index(session)

    def actors(self) -> dict[bytes, ActorRow]:
        """Every actor record that is held, by its hash, as the verifier takes them."""
        with self.transaction() as (connection, _session):
            found = loading.actors(connection)
        return {actor.hash: ActorRow(actor.salt, actor.record) for actor in found}

    def node(self, level: int, number: int) -> bytes:
        """Hash of perfect subtree ``number`` of 2^``level`` leaves; it must be complete."""
        with self.tree() as read:
            return read(level, number)

    @contextmanager
    def tree(self) -> Iterator[NodeReader]:
        """``node`` for many nodes, as a root or a proof asks for, in one transaction."""
        with self._session() as session:
            yield partial(self._nodes.read, session)

    def use_key_file(self, key_file: KeyFile) -> None:
        """The seeds are about to be wrapped with another key file (``History.rewrap``).

        The one before goes on opening what it wrapped: transactions that are open see it so.
        """
        if key_file.key_id != self._key_file.key_id:
            self._older_key = self._key_file
        self._key_file = key_file

    def close(self) -> None:
        """Close idle connections; calls under way close theirs when they end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for link in idle:
            link.connection.close()
        self._engine.dispose()

    # --- copies -----------------------------------------------------------------------------------

    def open_copy(self) -> BinaryIO:
        """The whole database, sealed as it lies, as a file without a name; the caller closes it.

        Needs as much free disk space as the database takes.
        """
        with self._lock:
            ensure(not self._closed, "a closed reader is not asked")
        connection = self._engine.connect()
        try:
            source = cast(sqlite3.Connection, connection.connection.driver_connection)
            return open_copy(source, self._path.parent)
        finally:
            connection.close()

    def export_copy(self) -> bytes:
        """``open_copy``, read into memory.

        Raises:
            OverloadedError: larger than ``HISTORY_COPY_BYTES_MAX``: stream ``open_copy`` instead.
        """
        with self.open_copy() as copy:
            data = copy.read(HISTORY_COPY_BYTES_MAX + 1)
        if len(data) > HISTORY_COPY_BYTES_MAX:
            raise OverloadedError("configsvc: the store is too large for a copy in memory")
        return data

    # --- inside -----------------------------------------------------------------------------------

    def _paged(self, first_seq: int, end_seq: int, read: Any) -> Iterator[Any]:
        at = first_seq
        while at < end_seq:
            with self._session() as session:
                page = read(session, at, min(at + verify.SLICE, end_seq))
            if not page:
                return
            yield from page
            at += verify.SLICE

    def _leaf_bounds(self, session: Session) -> tuple[int, int]:
        return verify.bounds(session)

    def _held(self, session: Session, revision: int) -> None:
        if revision > session.visible:
            raise NotFlushedError(revision, session.visible)

    @contextmanager
    def transaction(self) -> Iterator[tuple[Connection, Session]]:
        """One read transaction on a connection of its own, for readers of whole tables."""
        with self._lock:
            ensure(not self._closed, "a closed reader is not asked")
            held = self._idle.pop() if self._idle else None
        link = held or self._connect()
        connection = link.connection
        try:
            with connection.begin():
                visible, folded = connection.execute(_PROGRESS).one()
                cursor = cast(Any, connection.connection.cursor())
                yield (
                    connection,
                    Session(cursor, link.vault, link.recent, visible=visible, folded=folded),
                )
                cursor.close()
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = not self._closed and len(self._idle) < HISTORY_READERS_MAX
            if keep:
                self._idle.append(link)
        if not keep:
            connection.close()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self.transaction() as (_connection, session):
            yield session

    def _connect(self) -> _Link:
        connection = self._engine.connect()

        def sealers() -> Any:
            try:
                return load_sealers(connection, self.identity, self._key_file, self._path)
            except ConfigError:
                older = self._older_key  # asked for now: the change may have begun just before
                if older is None:
                    raise
                return load_sealers(connection, self.identity, older, self._path)

        def find(batch_id: int) -> tuple[str, bytes] | None:
            return loading.find_batch(connection, batch_id)

        with connection.begin():
            return _Link(connection, Vault(sealers, find), Recent())
