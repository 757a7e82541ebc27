"""Reads a whole history as an install stream (S2).

Rows and commits never change once written, so most of them are read in short transactions, each
going on behind the last key of the one before. Only the rest, the actors and the small tables come
from one last transaction, and its applied index is the install's. The log must be kept from that
index on until the receiver is done, and rows must not be deleted meanwhile: the runtime's part.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Final

from sqlalchemy import bindparam, select, tuple_

from configsvc.errors import ensure
from configsvc.limits import INSTALL_CHUNK_BYTES_MAX, INSTALL_LAST_S
from configsvc.storage.history import loading, verify
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.schema import REVISIONS
from configsvc.storage.history.session import Session
from configsvc.storage.history.statements import ROW_COLUMNS, compiled, constant
from configsvc.storage.snapshot.stream import (
    HEAD_BYTES,
    ChunkKind,
    End,
    Record,
    encode_chunk,
    encode_records,
)

# One transaction here, one chunk, one transaction of the receiver: few pages are written twice
# there, and a chunk of usual values is sealed and sent within half a millisecond of the loop's.
_PAGE_ROWS: Final = 512
_PAGE_COMMITS: Final = 256
_SLICE_RECORDS: Final = 16  # between two breaths: less than 0.1 ms of work
_ENCODED_RECORDS: Final = 64  # at once: less than that too
_PASSES: Final = 2  # the second takes what arrived while the first one was sent

_ROWS_AFTER: Final = compiled(
    select(*ROW_COLUMNS)
    .where(
        tuple_(REVISIONS.c.revision, REVISIONS.c.sub)
        > tuple_(bindparam("revision"), bindparam("sub"))
    )
    .order_by(REVISIONS.c.revision, REVISIONS.c.sub)
    .limit(constant(_PAGE_ROWS))
    .offset(constant(0))
).sql
_VALUE: Final = 3  # place of ``value`` in ROW_COLUMNS
_SEQ: Final = 8  # place of ``seq`` in ROW_COLUMNS


class InstallSource:
    """One install, once. ``chunks`` blocks on the database: run it in an executor thread."""

    def __init__(self, reader: HistoryReader, breathe: Callable[[], None] = lambda: None) -> None:
        """Set up.

        Args:
            reader: of the history that is sent.
            breathe: called after every few records, so that whoever shares the interpreter with
                this thread gets it; it may rest, for milliseconds: a transaction may be open.
        """
        self._reader = reader
        self._rests = breathe
        self._hurry_at = math.inf  # on the monotonic clock; no rest from then on
        self._hash = sha256()
        self._number = 0
        self._counts = dict.fromkeys(ChunkKind, 0)
        self._place = (-1, -1)  # revision and sub of the last row sent
        self._seq = -1  # last commit sent
        self.end: End | None = None  # what was sent, once ``chunks`` is exhausted

    def chunks(self) -> Iterator[bytes]:
        """The stream, chunk by chunk, in order.

        Raises:
            SealBroken: a row is not what was written; this member cannot serve installs.
        """
        ensure(self._number == 0, "a source is read once")
        for _ in range(_PASSES):
            yield from self._paged(self._rows, ChunkKind.ROWS)
            yield from self._paged(self._commits, ChunkKind.COMMITS)
        with self._reader.transaction() as (connection, session):
            self._hurry_at = time.monotonic() + INSTALL_LAST_S
            yield from self._packed(ChunkKind.ROWS, self._rest(session, self._rows))
            yield from self._packed(ChunkKind.COMMITS, self._rest(session, self._commits))
            actors = loading.actors(connection)
            yield from self._packed(
                ChunkKind.ACTORS, ((a.hash, a.record, a.salt, a.seq) for a in actors)
            )
            tables = loading.small_tables(connection, session.vault)
            yield from self._packed(
                ChunkKind.TABLES, ((name, *row) for name, rows in tables.items() for row in rows)
            )
            meta = loading.read_meta(connection, self._reader.identity)
            root = loading.read_tree(connection, meta.tree_size).root()
        self.end = End(
            cluster_id=meta.identity.cluster_id,
            epoch=meta.identity.epoch,
            insecure=int(meta.identity.insecure),
            index=meta.applied,
            term=meta.term,
            visible_revision=meta.visible_revision,
            conf_state=meta.conf_state,
            digest=meta.digest,
            tree_size=meta.tree_size,
            tree_root=root,
            rows=self._counts[ChunkKind.ROWS],
            commits=self._counts[ChunkKind.COMMITS],
            actors=self._counts[ChunkKind.ACTORS],
            table_rows=self._counts[ChunkKind.TABLES],
            sha256=self._hash.digest(),
        )
        yield self._chunk(ChunkKind.END, [encode_records([self.end])], 1)

    def _breathe(self) -> None:
        if time.monotonic() < self._hurry_at:
            self._rests()

    def _rows(self, session: Session) -> list[Record]:
        """The next page of rows; empty at the end."""
        records: list[Record] = []
        size = 0
        cursor = session.cursor.execute(_ROWS_AFTER, self._place)
        while size < INSTALL_CHUNK_BYTES_MAX and (raws := cursor.fetchmany(_SLICE_RECORDS)):
            self._place = raws[-1][:2]
            size += sum(len(raw[_VALUE]) for raw in raws)
            rows = session.vault.open_rows(raws)
            records += [(*row, raw[_SEQ]) for row, raw in zip(rows, raws, strict=True)]
            self._breathe()
        return records

    def _commits(self, session: Session) -> list[Record]:
        """The next page of commits with their openings; empty at the end."""
        commits = verify.commits(session, self._seq + 1, self._seq + 1 + _PAGE_COMMITS)
        if not commits:
            return []
        self._seq = commits[-1].seq
        records: list[Record] = []
        for at in range(0, len(commits), _SLICE_RECORDS):
            part = commits[at : at + _SLICE_RECORDS]
            opened = verify.openings(session, part)
            records += [(*commit, *opened.get(commit.seq, ())) for commit in part]
            self._breathe()
        return records

    def _paged(self, read: Callable[[Session], list[Record]], kind: ChunkKind) -> Iterator[bytes]:
        """Pages, each from a transaction of its own, until there is no more for now."""
        while True:
            with self._reader.transaction() as (_connection, session):
                records = read(session)
            if not records:
                return
            yield from self._packed(kind, records)
            self._breathe()

    def _rest(self, session: Session, read: Callable[[Session], list[Record]]) -> Iterator[Record]:
        while records := read(session):
            yield from records

    def _packed(self, kind: ChunkKind, records: Iterable[Record]) -> Iterator[bytes]:
        """Records as chunks that stay below the bound (one record alone may pass it)."""
        parts: list[bytes] = []
        size = count = 0
        for data, number in _encoded(records):
            self._breathe()
            if parts and HEAD_BYTES + size + len(data) > INSTALL_CHUNK_BYTES_MAX:
                yield self._chunk(kind, parts, count)
                parts, size, count = [], 0, 0
            parts.append(data)
            size += len(data)
            count += number
        if parts:
            yield self._chunk(kind, parts, count)

    def _chunk(self, kind: ChunkKind, parts: list[bytes], records: int) -> bytes:
        chunk = encode_chunk(kind, self._number, records, b"".join(parts))
        self._number += 1
        self._counts[kind] += records
        self._hash.update(chunk)
        return chunk


def _encoded(records: Iterable[Record]) -> Iterator[tuple[bytes, int]]:
    """Some records at a time and how many they are; one at a time where they are large."""
    every = iter(records)
    while part := [*itertools.islice(every, _ENCODED_RECORDS)]:
        data = encode_records(part)
        if len(data) < INSTALL_CHUNK_BYTES_MAX // 2:
            yield data, len(part)
        else:
            yield from ((encode_records([record]), 1) for record in part)
