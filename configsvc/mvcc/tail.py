"""The newest changes, kept in memory: what lets reads and watches look a little way back.

Owns rows in the order they were made, each with the value it replaced. State at an older revision
is the present with the changes above that revision undone, so nothing is kept per key and a write
costs two list appends.

Always true:
  * Rows lie in (revision, sub) order; a revision is here whole or not at all.
  * Reads at ``floor`` and above can be answered; below it only SQL knows.
  * ``trim`` drops nothing that SQL does not hold durably and nothing that a pin protects.

Not here: the present (``store``), older rows (``storage.history``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from configsvc.errors import ensure
from configsvc.limits import TAIL_BYTES_MAX, TAIL_ROWS_MAX
from configsvc.mvcc.messages import KeyValue, Row
from configsvc.types import KeySpan

TAIL_ROW_OVERHEAD: Final = 256  # what a row costs beside key and value, roughly

_revision_of = itemgetter(0)


class Tail:
    """Rows above ``floor``. Positions count all rows ever added, so that trimming keeps them."""

    __slots__ = ("_bytes", "_dropped", "_pins", "_prevs", "_rows", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._rows: list[Row] = []
        self._prevs: list[KeyValue | None] = []
        self._bytes = 0
        self._dropped = 0
        self._pins: dict[int, int] = {}  # revision -> holders

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def byte_count(self) -> int:
        """Approximate memory held."""
        return self._bytes

    @property
    def end(self) -> int:
        """Position behind the newest row."""
        return self._dropped + len(self._rows)

    def add(self, rows: Sequence[Row], prevs: Sequence[KeyValue | None]) -> None:
        """Rows of one new revision; ``prevs`` are the values before that revision."""
        self._rows += rows
        self._prevs += prevs
        size = 0
        for row in rows:
            size += len(row[2]) + len(row[3])
        self._bytes += size + TAIL_ROW_OVERHEAD * len(rows)

    def add_one(self, row: Row, prev: KeyValue | None) -> None:
        """``add`` for the most frequent case."""
        self._rows.append(row)
        self._prevs.append(prev)
        self._bytes += TAIL_ROW_OVERHEAD + len(row[2]) + len(row[3])

    def add_run(self, rows: Sequence[Row], prevs: Sequence[KeyValue | None], size: int) -> None:
        """One row each of as many revisions; ``size``: bytes of their keys and values."""
        self._rows += rows
        self._prevs += prevs
        self._bytes += size + TAIL_ROW_OVERHEAD * len(rows)

    def position_after(self, revision: int) -> int:
        """Position of the first row above ``revision``."""
        return self._dropped + bisect_right(self._rows, revision, key=_revision_of)

    @property
    def start(self) -> int:
        """Position of the oldest row."""
        return self._dropped

    def undo(
        self,
        span: KeySpan,
        position: int,
        into: dict[bytes, KeyValue | None],
        stop: int | None = None,
    ) -> dict[bytes, KeyValue | None]:
        """Values that keys of ``span`` had before the rows from ``position`` on; None: absent.

        A key already in ``into`` keeps its value: the earliest change tells the oldest state.
        ``stop``: position of the first row that is left out; None: up to the newest.
        """
        start, end = span
        at = position - self._dropped
        ensure(at >= 0, "undo reaches below the tail")
        to = None if stop is None else stop - self._dropped
        setdefault = into.setdefault
        for row, prev in zip(self._rows[at:to], self._prevs[at:to], strict=True):
            key = row[2]
            if start <= key and (end is None or key < end):
                setdefault(key, prev)
        return into

    def fewer(self, span: KeySpan, position: int, stop: int) -> int:
        """How many keys ``span`` lost, all in all, by the rows from ``position`` up to ``stop``."""
        start, end = span
        count = 0
        for row in self._rows[position - self._dropped : stop - self._dropped]:
            key = row[2]
            if start <= key and (end is None or key < end):
                if row[7]:
                    count += 1
                elif row[5] == 1:  # a key's first version: it was not there
                    count -= 1
        return count

    def rows_from(self, revision: int) -> tuple[list[Row], list[KeyValue | None]]:
        """Rows at ``revision`` and above, with the values before them."""
        at = bisect_left(self._rows, revision, key=_revision_of)
        return self._rows[at:], self._prevs[at:]

    def pin(self, revision: int) -> None:
        """Keep what reads at ``revision`` need until ``unpin``."""
        self._pins[revision] = self._pins.get(revision, 0) + 1

    def unpin(self, revision: int) -> None:
        held = self._pins.get(revision, 0)
        ensure(held > 0, "unpin without pin")
        if held == 1:
            del self._pins[revision]
        else:
            self._pins[revision] = held - 1

    def trim(self, durable_revision: int, compact_revision: int) -> int:
        """Drop old rows that SQL holds, until both bounds are kept; returns how many went.

        Rows below the compact revision go in any case: only audit asks for them, and SQL answers.
        """
        limit = durable_revision
        if self._pins:
            limit = min(limit, min(self._pins))
        rows = self._rows
        most = bisect_right(rows, limit, key=_revision_of)
        count = min(most, bisect_left(rows, compact_revision, key=_revision_of))
        count = max(count, min(most, len(rows) - TAIL_ROWS_MAX))
        held = self._bytes
        for row in rows[:count]:
            held -= TAIL_ROW_OVERHEAD + len(row[2]) + len(row[3])
        while count < most and held > TAIL_BYTES_MAX:
            row = rows[count]
            held -= TAIL_ROW_OVERHEAD + len(row[2]) + len(row[3])
            count += 1
        return self._drop(count, held)

    def _drop(self, count: int, held: int) -> int:
        """Let go of the first ``count`` rows; ``held``: the bytes of those behind them."""
        rows = self._rows
        # A revision is never split: the rest of the last one goes too, for SQL holds it whole.
        while 0 < count < len(rows) and rows[count][0] == rows[count - 1][0]:
            held -= TAIL_ROW_OVERHEAD + len(rows[count][2]) + len(rows[count][3])
            count += 1
        if not count:
            return 0
        self.floor = rows[count - 1][0]
        self._bytes = held
        del rows[:count]
        del self._prevs[:count]
        self._dropped += count
        return count
