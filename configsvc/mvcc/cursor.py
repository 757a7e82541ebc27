"""A range read in slices at one revision, so that a huge one never holds the loop.

Always true:
  * Every slice is of the same revision, whatever is written in between.
  * While a cursor is open, the tail keeps what it needs; ``close`` gives it back.

Not here: how big a slice is and when the next one runs (``runtime``), options other than natural
order (``ranges``; they need the whole range at once).
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from configsvc.errors import CompactedError
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
        "_end",
        "_follow_floor",
        "_open",
        "_past",
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
        self._past: dict[bytes, KeyValue | None] = store.past(span, self.revision)
        self._tail = store.tail
        self._position = store.tail.end
        self._start, self._end = span
        self._follow_floor = follow_floor
        count = store.count(span)
        for key, kv in self._past.items():
            count += (kv is not None) - (key in store.live)
        self.count = count  # keys in the whole span at ``revision``
        self.done = span.is_empty()  # nothing is left
        self._open = not self.done
        if self._open:
            self._tail.pin(self.revision)

    def next_chunk(self, keys_max: int) -> list[KeyValue]:
        """The next key values; possibly none at all while ``done`` is still False.

        Raises:
            CompactedError: with ``follow_floor``, the floor passed this revision.
            NeedHistory: the store was replaced by an install; ``position`` is where to go on.
        """
        store = self._store
        if self.done:
            return []
        if self._follow_floor and self.revision < store.compact_revision:
            self.close()
            raise CompactedError
        tail = self._tail
        if store.tail is not tail:
            self.close()
            raise NeedHistory(self.revision)
        if self._position < tail.end:
            tail.undo(self.span, self._position, self._past)
            self._position = tail.end
        start, end = self._start, self._end
        found = list(islice(store.keys.irange(start, end, (True, False)), keys_max))
        if len(found) < keys_max:
            upper = end
            self.done = True
        else:
            self._start = upper = found[-1] + b"\0"
            self.done = end is not None and upper >= end
        past, live = self._past, store.live
        gone = [
            key
            for key, kv in past.items()
            if kv is not None
            and start <= key
            and (upper is None or key < upper)
            and key not in live
        ]
        if gone:
            found += gone
            found.sort()
        if self.done:
            self.close()
        if not past:
            return [live[key] for key in found]
        chunk = []
        for key in found:
            kv = past.get(key, _UNCHANGED)
            if kv is _UNCHANGED:
                chunk.append(live[key])
            elif kv is not None:
                chunk.append(kv)  # type: ignore[arg-type]
        return chunk

    def close(self) -> None:
        """Release the tail; safe to call twice."""
        self.done = True
        if self._open:
            self._open = False
            self._tail.unpin(self.revision)

    @property
    def position(self) -> bytes:
        """No key below it is still to come."""
        return self._start
