"""Live rows on their way into memory, a slice at a time, so that an install never holds the loop.

A start hands all rows over at once; an install adds slices between other work and then has
``Store.adopt`` take the whole in one step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sortedcontainers import SortedList

from configsvc.mvcc.messages import KeyValue, Row
from configsvc.mvcc.window import ROW_BYTES

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


class LiveRows:
    """The newest row of every live key. Cheapest when rows come in key order."""

    __slots__ = ("keys", "live", "size")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.live: dict[bytes, KeyValue] = {}
        self.keys: Any = SortedList()
        self.size = 0  # bytes, as the window counts them
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows of keys that are not there yet."""
        live = self.live
        size = 0
        fresh: list[bytes] = []
        for mod, _sub, key, value, create, version, lease, _tombstone in rows:
            live[key] = _new(KeyValue, (key, value, create, mod, version, lease))
            fresh.append(key)
            size += ROW_BYTES + len(key) + len(value)
        self.size += size
        self.keys.update(fresh)

    def size_above(self, floor: int) -> int:
        """``size`` of the rows that came after revision ``floor``."""
        if floor < 1:
            return self.size
        return sum(
            ROW_BYTES + len(key) + len(value)
            for key, value, _create, mod, _version, _lease in self.live.values()
            if mod > floor
        )
