"""The durable log as the core reads it, and the retained log in memory that the product uses (C8).

The core reads only; whoever carries out a Ready appends. Entries below the base are gone from
memory: a peer that needs them gets an install. Not here: files (``storage.wal``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from configsvc.errors import ensure
from configsvc.raft.errors import (
    Compacted,
    SnapshotOutOfDate,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)
from configsvc.raft.messages import Entry, HardState, Snapshot
from configsvc.raft.sizes import limit_bytes, retained_bytes


class LogStorage(Protocol):
    """What the core reads of the durable log: a base (index, term) and the entries behind it."""

    def first_index(self) -> int:
        """Index of the first entry held, or that the first one would have: base + 1."""

    def last_index(self) -> int:
        """Index of the last entry, or of the base if there is none."""

    def term(self, index: int) -> int:
        """Term of the entry at ``index``; the base's is known too.

        Raises:
            Compacted: ``index`` is below the base.
            Unavailable: ``index`` is above the last entry.
        """

    def entries(self, low: int, high: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries in ``[low, high)``, cut to ``max_bytes`` but never to nothing.

        Raises:
            Compacted: ``low`` is not above the base.
        """

    def snapshot(self) -> Snapshot:
        """A snapshot at or above the base, to be sent to a peer.

        Raises:
            SnapshotTemporarilyUnavailable: ask again later.
        """


class MemoryLog:
    """A retained log: a base and a list of the entries behind it."""

    __slots__ = ("_base_index", "_base_term", "_bytes", "_entries", "_installed", "_source", "hard")

    def __init__(
        self,
        base_index: int = 0,
        base_term: int = 0,
        *,
        snapshot_source: Callable[[], Snapshot] | None = None,
    ) -> None:
        """``snapshot_source`` names the snapshots for peers; without it, the installed one is."""
        self._base_index = base_index
        self._base_term = base_term
        self._entries: list[Entry] = []
        self._bytes = 0
        self._source = snapshot_source
        self._installed = Snapshot()
        self.hard = HardState()

    def name_snapshots(self, source: Callable[[], Snapshot]) -> None:
        """From now on ``source`` names the snapshots for peers."""
        self._source = source

    @property
    def bytes_retained(self) -> int:
        """Payload bytes held, plus the constant per entry of ``raft.sizes``."""
        return self._bytes

    def first_index(self) -> int:
        return self._base_index + 1

    def last_index(self) -> int:
        return self._base_index + len(self._entries)

    def term(self, index: int) -> int:
        offset = index - self._base_index
        if offset < 0:
            raise Compacted
        if offset == 0:
            return self._base_term
        if offset > len(self._entries):
            raise Unavailable
        return self._entries[offset - 1].term

    def entries(self, low: int, high: int, max_bytes: int) -> tuple[Entry, ...]:
        if low <= self._base_index:
            raise Compacted
        ensure(high <= self.last_index() + 1, "entries asked for beyond the end of the log")
        start = low - self._base_index - 1
        return limit_bytes(tuple(self._entries[start : high - self._base_index - 1]), max_bytes)

    def snapshot(self) -> Snapshot:
        if self._source is not None:
            return self._source()
        if self._installed.index == 0:
            raise SnapshotTemporarilyUnavailable
        return self._installed

    def installed(self) -> Snapshot:
        """The snapshot applied last; index 0 if none ever was."""
        return self._installed

    def set_hard_state(self, hard: HardState) -> None:
        self.hard = hard

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the whole log by the base of ``snapshot``.

        Raises:
            SnapshotOutOfDate: an earlier call had this index or a higher one.
        """
        if self._installed.index >= snapshot.index:
            raise SnapshotOutOfDate
        self._installed = snapshot
        self._base_index, self._base_term = snapshot.index, snapshot.term
        self._entries.clear()
        self._bytes = 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Write ``entries``, consecutive, over what stands from the first one's index on.

        Entries at or below the base are ignored: they are part of the snapshot.
        """
        if not entries:
            return
        first: int = entries[0].index
        ensure(first <= self.last_index() + 1, "a gap in the log")
        if first <= self._base_index:
            entries = entries[self._base_index + 1 - first :]
            if not entries:
                return
            first = self._base_index + 1
        kept = first - self._base_index - 1
        if kept < len(self._entries):
            self._bytes -= retained_bytes(self._entries[kept:])
            del self._entries[kept:]
        self._entries.extend(entries)
        self._bytes += retained_bytes(entries)

    def compact(self, index: int) -> None:
        """Let go of everything up to ``index``, which becomes the base.

        Raises:
            Compacted: ``index`` is at or below the base.
        """
        if index <= self._base_index:
            raise Compacted
        ensure(index <= self.last_index(), "compaction beyond the end of the log")
        term = self.term(index)
        gone = index - self._base_index
        self._bytes -= retained_bytes(self._entries[:gone])
        del self._entries[:gone]
        self._base_index, self._base_term = index, term
