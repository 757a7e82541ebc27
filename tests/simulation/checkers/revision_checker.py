"""Is a history strictly serializable? Decided by revisions, in one pass (reliability.md 6.6).

The committed history gives the one order that all answers must agree with; every answer names its
place in it. So nothing is searched for: each operation is compared with the state at its revision,
and its revision with those of the operations that had ended before it began. Operations of unknown
outcome are found by their unique values, or have not happened.

Deletions have no value; one of unknown outcome explains at most one deletion of its key.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from tests.simulation.checkers.history import (
    FOR_EVER,
    BrokenHistory,
    Change,
    Operation,
    WatchHistory,
)


class Model:
    """The key space at every revision, from the committed history."""

    def __init__(self, changes: Sequence[Change], last: int = 0) -> None:
        newest = last
        self.by_revision: dict[int, list[Change]] = {}
        self._past: dict[bytes, list[tuple[int, bytes | None]]] = {}
        last = 0
        for change in changes:
            if change.revision < last:
                raise BrokenHistory("I19 the committed history is out of order")
            last = change.revision
            self.by_revision.setdefault(change.revision, []).append(change)
            self._past.setdefault(change.key, []).append((change.revision, change.value))
        self.last = max(last, newest)
        self.values = {c.value: c.revision for c in changes if c.value is not None}

    def at(self, key: bytes, revision: int) -> tuple[int, bytes | None]:
        """(mod revision, value) of a key as of ``revision``; (0, None) if it is not there."""
        past = self._past.get(key, [])
        low, high = 0, len(past)
        while low < high:
            middle = (low + high) // 2
            if past[middle][0] <= revision:
                low = middle + 1
            else:
                high = middle
        if not low:
            return 0, None
        mod, value = past[low - 1]
        return (0, None) if value is None else (mod, value)

    def deletes(self, key: bytes, revision: int) -> bool:
        return any(c.key == key and c.value is None for c in self.by_revision.get(revision, ()))


def check(
    operations: Iterable[Operation],
    changes: Sequence[Change],
    *,
    last: int = 0,
    others_may_delete: bool = True,
) -> int:
    """Compare; returns how many operations were judged.

    Args:
        operations: All calls on the keys of ``changes``.
        changes: The committed history, in order.
        last: Newest revision there is; 0: that of the last change.
        others_may_delete: Deletions without a client exist (leases that ran out).

    Raises:
        BrokenHistory: with the first contradiction.
    """
    model = Model(changes, last)
    done = [op for op in operations if not op.impossible]
    explained = _effects(done, model)
    _explain_all(done, model, explained, others_may_delete)
    _real_time(done, model)
    return len(done)


def _effects(operations: list[Operation], model: Model) -> set[int]:
    """Every answer agrees with the state at its revision; revisions that they account for."""
    explained: set[int] = set()
    for op in operations:
        if not op.acknowledged:
            where = model.values.get(op.value) if op.kind in ("put", "swap") else None
            if where is not None:
                op.revision = where
                explained.add(where)
            continue
        if op.revision > max(model.last, 1):
            raise BrokenHistory(f"I19 an answer at {op.revision}, above the history: {op}")
        if op.kind == "read":
            _check_read(op, model)
        elif not op.refused:
            _check_write(op, model, explained)
    return explained


def _check_read(op: Operation, model: Model) -> None:
    _, value = model.at(op.key, op.revision)
    if value != op.seen:
        raise BrokenHistory(f"I19 read {op.seen!r} at {op.revision}, it was {value!r}: {op}")


def _check_write(op: Operation, model: Model, explained: set[int]) -> None:
    mod, before = model.at(op.key, op.revision - 1)
    if op.kind == "swap" and not op.succeeded:
        mod, before = model.at(op.key, op.revision)
        if mod == op.expected or before != op.seen:
            raise BrokenHistory(f"I19 a swap failed without reason: {op}")
        return
    if op.kind == "delete":
        if op.succeeded:
            if not model.deletes(op.key, op.revision):
                raise BrokenHistory(f"I19 an acknowledged deletion is missing: {op}")
            _explain(op, explained)
        elif model.at(op.key, op.revision)[1] is not None:
            raise BrokenHistory(f"I19 a deletion found no key where there was one: {op}")
        return
    if model.values.get(op.value) != op.revision:
        raise BrokenHistory(f"I19 an acknowledged write is missing: {op}")
    if op.kind == "swap" and mod != op.expected:
        raise BrokenHistory(f"I19 a swap succeeded on another revision ({mod}): {op}")
    _explain(op, explained)


def _explain(op: Operation, explained: set[int]) -> None:
    if op.revision in explained:
        raise BrokenHistory(f"I19 two calls made revision {op.revision}")
    explained.add(op.revision)


def _explain_all(
    operations: list[Operation], model: Model, explained: set[int], others_may_delete: bool
) -> None:
    """Nothing is in the history that nobody asked for."""
    pool: dict[bytes, list[int]] = {}
    for op in operations:
        if op.kind == "delete" and not op.acknowledged:
            pool.setdefault(op.key, []).append(op.called)
    for revision, changes in model.by_revision.items():
        if revision in explained:
            continue
        for change in changes:
            if change.value is not None:
                raise BrokenHistory(f"I19 nobody wrote {change}")
            if not others_may_delete:
                if not pool.get(change.key):
                    raise BrokenHistory(f"I19 nobody deleted {change}")
                pool[change.key].pop()


def _real_time(operations: list[Operation], model: Model) -> None:
    """Whoever begins after an answer sees at least what that answer was about.

    ``floor``: highest revision that any call had been told, or whose effect it had been told,
    before this one began.
    """
    ended: list[tuple[int, int]] = []
    floor = 0
    for op in sorted(operations, key=lambda op: op.called):
        while ended and ended[0][0] < op.called:
            floor = max(floor, heapq.heappop(ended)[1])
        if op.revision:
            changed = op.kind != "read" and _changed(op, model)
            if not op.serializable and op.revision < floor + (1 if changed else 0):
                raise BrokenHistory(
                    f"I12 an answer at {op.revision} after one at {floor} had ended: {op}"
                )
            if op.acknowledged and op.returned != FOR_EVER:
                heapq.heappush(ended, (op.returned, op.revision))


def _changed(op: Operation, model: Model) -> bool:
    if op.refused:
        return False
    if op.kind == "delete":
        return op.acknowledged and op.succeeded
    return model.values.get(op.value) == op.revision


def check_watch(
    watch: WatchHistory, changes: Sequence[Change], *, complete_to: int = 0, compacted: int = 0
) -> int:
    """Ordered, unique, atomic, reliable, and with the right values before (I17).

    Args:
        watch: What it got.
        changes: The committed history.
        complete_to: Revision up to which everything must have arrived; 0: what came so far.
        compacted: Newest compaction; values that it took away may be missing as values before.

    Raises:
        BrokenHistory: an event is missing, twice, torn, invented, or has a wrong value.
    """
    model = Model(changes)
    until = max(complete_to, watch.next_revision - 1)
    wanted = [
        c
        for c in changes
        if watch.start <= c.revision <= until
        and watch.span.holds(c.key)
        and not any(low <= c.revision < high for low, high in watch.gaps)
    ]
    for got, want in zip(watch.events, wanted, strict=False):
        if got[:3] != (want.revision, want.key, want.value):
            raise BrokenHistory(f"I17 watcher got {got}, the history has {want}")
        mod, before = model.at(want.key, want.revision - 1)
        if got[3] != before and (got[3] is not None or mod > compacted):
            raise BrokenHistory(f"I17 watcher got {got}, the value before was {before!r}")
    if len(watch.events) != len(wanted):
        raise BrokenHistory(
            f"I17 watcher got {len(watch.events)} events of {len(wanted)} up to {until}"
        )
    return len(wanted)
