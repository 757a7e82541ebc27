"""Fills a fresh generation from an install stream, and proves that it is whole (S2).

The live generation is not touched. ``finish`` checks hash, counts and Merkle root; only then may
the runtime load the state from ``history``, log the INSTALLED frame and switch. A stream that is
wrong or was given up is thrown away with ``discard``.
"""

from __future__ import annotations

import sqlite3
import struct
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from configsvc.errors import DecodeError, InvariantViolationError, ensure
from configsvc.storage.history.filling import FillingHistory
from configsvc.storage.history.messages import Actor, CommitInfo, Meta, Opening, StoreIdentity
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot.generations import generation_path, remove
from configsvc.storage.snapshot.stream import Chunk, ChunkKind, End, Record, decode_chunk, expect

_ROW: Final = (int, int, bytes, bytes, int, int, int, int, int)
_COMMIT: Final = (int, int, int, int, int, str, bytes, str, bytes)
_OPENING: Final = (bytes, str, str, bytes)
_ACTOR: Final = (bytes, bytes, bytes, int)
_END: Final = (int,) * 6 + (bytes, bytes, int, bytes) + (int,) * 4 + (bytes,)

# What a record can cause that has the right shape and impossible content.
_MISFITS: Final = (sqlite3.Error, InvariantViolationError, OverflowError, struct.error)


class Installed(NamedTuple):
    """What the INSTALLED frame and the core's snapshot need."""

    index: int  # type: ignore[assignment]
    term: int
    conf_state: bytes
    digest: bytes
    visible_revision: int
    generation: int


class InstallSink:
    """One install on the receiving side. Blocks on the database: run it in an executor thread."""

    def __init__(
        self, data_dir: Path, identity: StoreIdentity, key_file: KeyFile, generation: int
    ) -> None:
        """``generation``: a number of which no file exists (``generations.next_number``)."""
        self._data_dir = data_dir
        self._identity = identity
        self.generation = generation
        self.path = generation_path(data_dir, generation)
        ensure(not self.path.exists(), "an install fills a fresh generation")
        self._history = FillingHistory.open(
            self.path, identity, key_file, create=True, generation=generation
        )
        self._hash = sha256()
        self._number = 0
        self._counts = dict.fromkeys(ChunkKind, 0)
        self._end: End | None = None
        self._finished = False

    @property
    def history(self) -> History:
        """The filled history, once ``finish`` has returned; the caller closes it."""
        ensure(self._finished, "an install is used after it was checked")
        return self._history

    def feed(self, data: bytes) -> bool:
        """Take one chunk.

        Returns:
            Whether it was the last one: call ``finish``.

        Raises:
            DecodeError: damaged, out of order, or not what an install holds. Discard it.
        """
        chunk = decode_chunk(data)
        if self._end is not None or chunk.number != self._number:
            raise DecodeError(f"install chunk {chunk.number} where {self._number} is due")
        if chunk.kind is ChunkKind.END:
            self._take_end(chunk)
            return True
        self._number += 1
        self._hash.update(data)
        self._counts[chunk.kind] += len(chunk.records)
        try:
            self._store(chunk)
        except _MISFITS as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # the disk's fault, not the stream's
            raise DecodeError(f"install chunk {chunk.number} does not fit the tables") from None
        return False

    def finish(self) -> Installed:
        """Check the whole against the sender's totals and make it durable.

        Raises:
            DecodeError: the stream is not what the sender read. Discard it.
        """
        end = self._end
        if end is None:
            raise DecodeError("install ended early")
        counts = (
            self._counts[ChunkKind.COMMITS],
            self._counts[ChunkKind.ACTORS],
            self._counts[ChunkKind.TABLES],
        )
        if counts != (end.commits, end.actors, end.table_rows):
            raise DecodeError("install with other counts than the sender's")
        meta = Meta(
            applied=end.index,
            term=end.term,
            visible_revision=end.visible_revision,
            conf_state=end.conf_state,
            digest=end.digest,
            tree_size=end.tree_size,
            owner_epoch=0,
            generation=self.generation,
            identity=self._identity,
        )
        self._history.complete(meta, end.tree_root, end.rows)
        self._finished = True
        return Installed(
            index=end.index,
            term=end.term,
            conf_state=end.conf_state,
            digest=end.digest,
            visible_revision=end.visible_revision,
            generation=self.generation,
        )

    def discard(self) -> None:
        """Close and delete the generation, whatever state it is in."""
        self._history.abandon()
        remove(self._data_dir, self.generation)

    def _take_end(self, chunk: Chunk) -> None:
        if len(chunk.records) != 1:
            raise DecodeError("install with a strange end")
        end = End._make(expect(chunk.records[0], _END))
        own = self._identity
        if (end.cluster_id, end.epoch, bool(end.insecure)) != (
            own.cluster_id,
            own.epoch,
            own.insecure,
        ):
            raise DecodeError("install of another cluster")
        if end.sha256 != self._hash.digest():
            raise DecodeError("install whose bytes are not the sender's")
        self._end = end

    def _store(self, chunk: Chunk) -> None:
        records = chunk.records
        if chunk.kind is ChunkKind.ROWS:
            self._history.add_rows([expect(record, _ROW) for record in records])
        elif chunk.kind is ChunkKind.COMMITS:
            self._history.add_commits([_commit(record) for record in records])
        elif chunk.kind is ChunkKind.ACTORS:
            self._history.add_actors([Actor._make(expect(record, _ACTOR)) for record in records])
        else:
            for table, rows in _by_table(records).items():
                self._history.add_table_rows(table, rows)


def _commit(record: Record) -> tuple[CommitInfo, Opening | None]:
    width = len(_COMMIT)
    commit = CommitInfo._make(expect(record[:width], _COMMIT))
    rest = record[width:]
    return commit, Opening._make(expect(rest, _OPENING)) if rest else None


def _by_table(records: list[Record]) -> dict[str, list[Record]]:
    tables: dict[str, list[Record]] = {}
    for record in records:
        if not record or not isinstance(record[0], str):
            raise DecodeError("install row without its table")
        tables.setdefault(record[0], []).append(record[1:])
    return tables
