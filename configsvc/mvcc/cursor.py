"""A range read in slices at one revision, so that a huge one never holds the loop.

Always true:
  * Every slice is of the same revision, whatever is written in between.
  * A slice costs what it was asked to bring, plus the changes since the last one; those in pieces.
  * While a cursor is open and not resting, the tail keeps what it needs; ``close`` gives it back.

Not here: how big a slice is and when the next one runs (``api.large_answers``), options other than
natural order (``ranges``).
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from sortedcontainers import SortedList

from configsvc.errors import CompactedError
from configsvc.limits import RANGE_PIECE_ROWS
from configsvc.mvcc.messages import KeyValue
from configsvc.mvcc.store import NeedHistory, Store
from configsvc.types import KeySpan

_UNCHANGED: Final = object()


class RangeCursor:
    """Key values of ``span`` in key order, a chunk at a time.

    Args:
        store: Where to read.
        span: What to read.
        revision: Version to read at; 0 pins the present one.
        follow_floor: A compaction past ``revision`` ends the read (RangeStream, S4).

    Raises:
        NeedHistory: ``revision`` is older than the tail.
        FutureRevError, CompactedError: as for a Range.
    """

    __slots__ = (
        "_changed",
        "_counted",
        "_end",
        "_follow_floor",
        "_past",
        "_pinned",
        "_position",
        "_start",
        "_store",
        "_tail",
        "count",
        "done",
        "revision",
        "span",
    )

    def __init__(
        self, store: Store, span: KeySpan, revision: int = 0, *, follow_floor: bool = False
    ) -> None:
        store.check_revision(revision)
        self._store = store
        self.span = span
        self.revision = revision if revision > 0 else store.revision
        self._tail = store.tail
        if self.revision < store.tail.floor:
            raise NeedHistory(self.revision)
        self._position = store.tail.position_after(self.revision)
        # Keys that are still to come and changed since: as they were, None for absent.
        self._past: dict[bytes, KeyValue | None] = {}
        self._changed: Any = SortedList()  # the keys of ``_past``
        self._start, self._end = span
        self._follow_floor = follow_floor
        self._counted = False
        self.count = 0  # keys in the whole span at ``revision``; right once it was all undone
        self.done = span.is_empty()  # nothing is left
        self._pinned = False
        if not self.done:
            self._pin()
            self._catch_up()

    def next_chunk(self, keys_max: int) -> list[KeyValue]:
        """The next key values; possibly none at all while ``done`` is still False.

        Raises:
            CompactedError: with ``follow_floor``, the floor passed this revision.
            NeedHistory: the store was replaced by an install, or the tail was cut while the cursor
                rested; ``position`` is where to go on.
        """
        if self.done:
            return []
        store, tail = self._store, self._tail
        if self._follow_floor and self.revision < store.compact_revision:
            self.close()
            raise CompactedError
        if store.tail is not tail or self._position < tail.start:
            self.close()
            raise NeedHistory(self.revision)
        self._pin()
        if not self._catch_up():
            return []
        start, end = self._start, self._end
        found = list(islice(store.keys.irange(start, end, (True, False)), keys_max))
        whole = len(found) < keys_max
        upper = end if whole else found[-1] + b"\0"
        if self._past:
            found += self._gone(start, upper, keys_max)
            found.sort()
            if len(found) > keys_max:
                del found[keys_max:]
                whole, upper = False, found[-1] + b"\0"
        chunk = self._as_they_were(found, start, upper)
        if whole or (end is not None and upper is not None and upper >= end):
            self.close()
        elif upper is not None:
            self._start = upper
        return chunk

    def rest(self) -> None:
        """Let the tail be cut: the next chunk is not wanted before a reader has read."""
        if self._pinned:
            self._pinned = False
            self._tail.unpin(self.revision)

    def close(self) -> None:
        """Release the tail; safe to call twice."""
        self.done = True
        self.rest()
        self._past.clear()
        self._changed.clear()

    @property
    def position(self) -> bytes:
        """No key below it is still to come."""
        return self._start

    def _pin(self) -> None:
        if not self._pinned:
            self._pinned = True
            self._tail.pin(self.revision)

    def _catch_up(self) -> bool:
        """Undo what was written since; False while there is more of it than one slice takes."""
        tail = self._tail
        stop = min(tail.end, self._position + RANGE_PIECE_ROWS)
        if self._position < stop:
            span = KeySpan(self._start, self._end)
            past = self._past
            if not self._counted:
                self.count += tail.fewer(span, self._position, stop)
            fresh = tail.undo(span, self._position, {}, stop)
            new = [key for key in fresh if key not in past]
            for key in new:
                past[key] = fresh[key]
            self._changed.update(new)
            self._position = stop
        if stop < tail.end:
            return False
        if not self._counted:
            self._counted = True
            self.count += self._store.count(self.span)
        return True

    def _gone(self, start: bytes, upper: bytes | None, keys_max: int) -> list[bytes]:
        """Keys of a slice that were there, and are not any more."""
        past, live = self._past, self._store.live
        between = self._changed.irange(start, upper, (True, False))
        there = (key for key in between if past[key] is not None and key not in live)
        return list(islice(there, keys_max + 1))  # one more tells that there is more

    def _as_they_were(self, keys: list[bytes], start: bytes, upper: bytes | None) -> list[KeyValue]:
        past, live = self._past, self._store.live
        if not past:
            return [live[key] for key in keys]
        chunk = []
        for key in keys:
            kv = past.get(key, _UNCHANGED)
            if kv is _UNCHANGED:
                chunk.append(live[key])
            elif kv is not None:
                chunk.append(kv)  # type: ignore[arg-type]
        for key in list(self._changed.irange(start, upper, (True, False))):
            self._changed.remove(key)
            del past[key]
        return chunk
