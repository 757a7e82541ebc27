"""The log as the core sees it: storage below, the unstable tail above, and how far it got.

Always true: ``applied <= applying <= committed <= last_index``; ``committed`` never falls;
entries are handed out for application once each, in order, without gaps.

Not here: who may write to it (``raft.replication``), the durable part (``raft.storage``).
"""

from __future__ import annotations

from collections.abc import Sequence

from configsvc.errors import ensure
from configsvc.raft.config import NO_LIMIT
from configsvc.raft.errors import Compacted, Unavailable
from configsvc.raft.messages import Entry, EntryKind, Snapshot
from configsvc.raft.sizes import limit_bytes, retained_bytes
from configsvc.raft.storage import LogStorage
from configsvc.raft.unstable import Unstable


class RaftLog:
    """One member's log. Byte bounds as in ``RaftConfig``."""

    __slots__ = (
        "_applying_bytes",
        "_applying_bytes_max",
        "_applying_entries_max",
        "_applying_paused",
        "applied",
        "applying",
        "committed",
        "last_index",
        "storage",
        "unstable",
    )

    def __init__(
        self,
        storage: LogStorage,
        *,
        commit_hint: int,
        applied: int,
        applying_bytes_max: int = NO_LIMIT,
        applying_entries_max: int = NO_LIMIT,
    ) -> None:
        """Start from what ``storage`` holds; ``applied`` 0 means its base."""
        base = storage.first_index() - 1
        self.storage = storage
        self.last_index = storage.last_index()
        self.unstable = Unstable(self.last_index + 1)
        ensure(applied == 0 or applied >= base, "applied index below the base of the log")
        self.applied = self.applying = max(applied, base)  # durable; handed out
        self.committed = max(commit_hint, self.applied)
        ensure(self.committed <= self.last_index, "commit index beyond the end of the log")
        self._applying_bytes = 0  # handed out and not yet acknowledged as applied
        self._applying_bytes_max = applying_bytes_max
        self._applying_entries_max = applying_entries_max
        self._applying_paused = False

    # --- reading ------------------------------------------------------------------------

    def first_index(self) -> int:
        snapshot = self.unstable.snapshot
        return self.storage.first_index() if snapshot is None else snapshot.index + 1

    def term(self, index: int) -> int:
        """Term of the entry at ``index``, of the base or of a waiting snapshot.

        Raises:
            Compacted: below the base. Unavailable: above the last entry.
        """
        unstable = self.unstable
        if index >= unstable.offset:
            if index > self.last_index:
                raise Unavailable
            return unstable.entries[index - unstable.offset].term
        snapshot = unstable.snapshot
        if snapshot is not None:
            if index == snapshot.index:
                return snapshot.term
            raise Compacted
        return self.storage.term(index)

    def last_term(self) -> int:
        return self.term(self.last_index)

    def known_term(self, index: int) -> int:
        """As ``term``, but 0 where it is not known."""
        try:
            return self.term(index)
        except (Compacted, Unavailable):
            return 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is known and of ``term``."""
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends at (``term``, ``index``) is at least as good as this one."""
        own = self.last_term()
        return term > own or (term == own and index >= self.last_index)

    def entries(self, low: int, high: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries in ``[low, high)``, cut to ``max_bytes`` but never to nothing.

        Raises:
            Compacted: ``low`` is gone.
        """
        if low >= high:
            return ()
        unstable = self.unstable
        offset = unstable.offset
        if low >= offset:
            return limit_bytes(tuple(unstable.entries[low - offset : high - offset]), max_bytes)
        if unstable.snapshot is not None:
            raise Compacted
        stored = self.storage.entries(low, min(high, offset), max_bytes)
        if high <= offset or len(stored) < offset - low:
            return stored
        return limit_bytes(stored + tuple(unstable.entries[: high - offset]), max_bytes)

    def conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last (index, term) at or below ``index`` whose term is not above ``term``.

        An index whose term is not known counts, with term 0; (0, 0) if there is nothing.
        """
        while index > 0:
            own = self.known_term(index)
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    # --- writing ------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Write over what stands from the first one's index on; never over what is committed."""
        first = entries[0].index
        ensure(first > self.committed, "an entry would replace a committed one")
        self.unstable.append(entries)
        self.last_index = first + len(entries) - 1

    def try_append(
        self, prev_index: int, prev_term: int, entries: tuple[Entry, ...], commit: int
    ) -> int | None:
        """Take a leader's entries if the one before them matches; None if it does not.

        Returns the index up to which this log now equals the leader's. Entries that are already
        there are not written again, and nothing behind them is cut off (#15).
        """
        if not self.matches(prev_index, prev_term):
            return None
        last_new = prev_index + len(entries)
        if entries:
            known = self._known_prefix(entries)
            if known < len(entries):
                self.append(entries[known:] if known else entries)
        self.commit_to(min(commit, last_new))
        return last_new

    def _known_prefix(self, entries: tuple[Entry, ...]) -> int:
        """How many of ``entries`` this log holds already."""
        if entries[0].index > self.last_index:
            return 0
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                return position
        return len(entries)

    def commit_to(self, index: int) -> None:
        if index > self.committed:
            ensure(index <= self.last_index, "commit index beyond the end of the log")
            self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the log by ``snapshot``; nothing is handed out until that is installed."""
        self.committed = snapshot.index
        self.last_index = snapshot.index
        self.unstable.restore(snapshot)

    # --- applying -----------------------------------------------------------------------

    def next_committed(self, *, allow_unstable: bool) -> tuple[Entry, ...]:
        """Committed entries to hand out now, within the byte budget.

        ``allow_unstable``: entries may be handed out together with the write that makes them
        durable; the plan applies them after it (C5).
        """
        if self._applying_paused or self.unstable.snapshot is not None:
            return ()
        low, high = self.applying + 1, self._appliable(allow_unstable) + 1
        if low >= high:
            return ()
        high = min(high, low + self._applying_entries_max)
        return self.entries(low, high, self._applying_bytes_max - self._applying_bytes)

    def has_next_committed(self, *, allow_unstable: bool) -> bool:
        return (
            self.applying < self._appliable(allow_unstable)
            and not self._applying_paused
            and self.unstable.snapshot is None
        )

    def _appliable(self, allow_unstable: bool) -> int:
        return self.committed if allow_unstable else min(self.committed, self.unstable.offset - 1)

    def accept_applying(self, entries: tuple[Entry, ...], *, allow_unstable: bool) -> None:
        """``entries`` have been handed out."""
        last = entries[-1].index
        ensure(entries[0].index == self.applying + 1, "committed entries handed out with a gap")
        self.applying = last
        self._applying_bytes += retained_bytes(entries)
        # Entries that stayed behind wait for an acknowledgement, so that the budget is spent on
        # whole pages and not on the rest of one.
        self._applying_paused = (
            self._applying_bytes >= self._applying_bytes_max
            or last < self._appliable(allow_unstable)
        )

    def applied_to(self, index: int, size: int) -> None:
        """Everything up to ``index`` is applied; ``size`` as ``accept_applying`` counted it."""
        ensure(index <= self.committed, "applied beyond the commit index")
        self.applied = max(self.applied, index)
        self.applying = max(self.applying, self.applied)
        self._applying_bytes = max(0, self._applying_bytes - size)
        self._applying_paused = self._applying_bytes >= self._applying_bytes_max

    def applying_bytes(self) -> int:
        """Bytes handed out and not acknowledged; 0 when idle."""
        return self._applying_bytes

    def has_unapplied_conf_change(self) -> bool:
        """Whether a committed entry that is not applied yet changes the configuration."""
        low, high = self.applied + 1, self.committed + 1
        while low < high:
            page = self.entries(low, high, 1 << 20)
            if any(entry.kind != EntryKind.NORMAL for entry in page):
                return True
            low += len(page)
        return False
