"""The tail of the log that is not durable yet, and a snapshot that is not installed yet.

Entry ``offset + i`` is ``entries[i]``; everything below ``offset`` is in storage or, while
``snapshot`` waits, in the snapshot. ``[offset, in_progress)`` has been handed out to be written,
``[in_progress, ...)`` has not.
"""

from __future__ import annotations

from collections.abc import Sequence

from configsvc.errors import ensure
from configsvc.raft.messages import Entry, Snapshot


class Unstable:
    __slots__ = ("entries", "in_progress", "offset", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int) -> None:
        self.entries: list[Entry] = []
        self.offset = offset
        self.in_progress = offset
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False

    def next_entries(self) -> tuple[Entry, ...]:
        """Entries not handed out yet."""
        return tuple(self.entries[self.in_progress - self.offset :])

    def next_snapshot(self) -> Snapshot | None:
        """The snapshot, unless it has been handed out."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept(self) -> None:
        """Everything that ``next_entries`` and ``next_snapshot`` gave has been handed out."""
        if self.entries:
            self.in_progress = self.offset + len(self.entries)
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, index: int, term: int) -> None:
        """Entries up to ``index`` are durable, provided the one at ``index`` is of ``term``.

        A late acknowledgement of entries that have been overwritten since is ignored.
        """
        position = index - self.offset
        if not 0 <= position < len(self.entries) or self.entries[position].term != term:
            return
        if position + 1 == len(self.entries):
            self.entries.clear()
        else:
            del self.entries[: position + 1]
        self.offset = index + 1
        self.in_progress = max(self.in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by ``snapshot``."""
        self.entries.clear()
        self.offset = self.in_progress = snapshot.index + 1
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def append(self, entries: Sequence[Entry]) -> None:
        """Write ``entries``, consecutive, over what stands from the first one's index on."""
        first = entries[0].index
        end = self.offset + len(self.entries)
        if first == end:
            self.entries.extend(entries)
            return
        ensure(first < end, "a gap in the unstable log")
        if first <= self.offset:
            self.entries = list(entries)
            self.offset = self.in_progress = first
            return
        del self.entries[first - self.offset :]
        self.entries.extend(entries)
        # What replaces entries that were handed out must be handed out itself.
        self.in_progress = min(self.in_progress, first)
