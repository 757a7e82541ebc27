"""The key space at the newest revision, and a little of its past.

Owns live keys and values, the two revisions that clients see, and the tail of superseded
versions. A change is computed first (``stage_put``, ``stage_delete``, ``txn.stage_txn``) and takes
effect in ``commit``, so an error never leaves half of it behind (A2).

Always true:
  * ``keys`` holds exactly the keys of ``live``, ascending.
  * ``revision`` grows by one per commit that changed something, and by nothing else.
  * Results depend on the logical state only: where memory ends, ``NeedHistory`` is raised and
    SQL gives the same answer.

Not here: transactions (``txn``), options of a range (``ranges``), who may (``apply``), watches
(``watch``), rows below the tail (``storage.history``).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, NamedTuple

from sortedcontainers import SortedList

from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    FutureRevError,
    KeyNotFoundError,
    LeaseNotFoundError,
    ensure,
)
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import (
    DeleteOp,
    DeleteResult,
    Event,
    KeyValue,
    OpResult,
    PutOp,
    PutResult,
    RangeOp,
    RangeResult,
    Row,
)
from configsvc.mvcc.ranges import fetch_limit, is_plain, keys_only, refine
from configsvc.mvcc.tail import Tail
from configsvc.mvcc.tally import Tally
from configsvc.mvcc.window import ROW_BYTES, Window
from configsvc.types import KeySpan

FIRST_REVISION: Final = 1
NEVER_COMPACTED: Final = -1

_MANY: Final = 256  # rows; more than the puts of a transaction, so most of them are deletions
_REBUILD_SHARE: Final = 8  # removing a key costs as much as keeping that many

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


class NeedHistory(ConfigServiceError):
    """Memory does not reach back to ``revision``; ask ``storage.history``."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revision {revision} is older than the tail in memory")
        self.revision = revision


class Staged(NamedTuple):
    """A change that has been computed and not yet made."""

    rows: tuple[Row, ...]
    prevs: tuple[KeyValue | None, ...]  # per row: the key before this revision
    result: OpResult


class LeaseMove(NamedTuple):
    """A key changed its lease; 0 is none."""

    key: bytes
    before: int
    after: int


class Catchup(NamedTuple):
    """Events of a late watcher; go on at ``next_revision``."""

    batches: list[tuple[int, list[Event]]]
    next_revision: int


def single_key(span: KeySpan) -> bytes | None:
    """The only key that ``span`` can hold, if it was made from a key without a range end."""
    start, end = span
    if end is not None and len(end) == len(start) + 1 and end[-1] == 0 and end[:-1] == start:
        return start
    return None


class Store:
    """Live keys, revisions, tail. One thread; reads between two commits see one revision."""

    __slots__ = ("compact_revision", "keys", "live", "revision", "tail", "tally", "window")

    def __init__(self) -> None:
        self.live: dict[bytes, KeyValue] = {}
        self.keys: Any = SortedList()
        self.revision = FIRST_REVISION
        self.compact_revision = NEVER_COMPACTED
        self.tail = Tail(FIRST_REVISION)
        self.tally = Tally(FIRST_REVISION)
        self.window = Window(0, 0, FIRST_REVISION, FIRST_REVISION)

    def load(
        self,
        rows: Iterable[Row],
        revision: int,
        compact_revision: int,
        superseded_bytes: int = 0,
    ) -> None:
        """Replace everything by the live rows of a start or an install.

        Args:
            rows: The newest row of every live key, in any order.
            revision: Visible revision of the rows.
            compact_revision: KV floor; -1 if never compacted.
            superseded_bytes: Size of superseded rows above the floor, 0 if unknown. One row counts
                ``window.ROW_BYTES`` + key + value.
        """
        self.adopt(LiveRows(rows), revision, compact_revision, superseded_bytes)

    def adopt(
        self,
        loaded: LiveRows,
        revision: int,
        compact_revision: int,
        superseded_bytes: int = 0,
    ) -> None:
        """``load`` with rows that were gathered before; ``loaded`` belongs to the store then."""
        self.live = loaded.live
        self.keys = loaded.keys
        self.tally.adopted(self.revision, revision)
        self.revision = revision
        self.compact_revision = compact_revision
        self.tail = Tail(revision)
        floor = max(compact_revision, FIRST_REVISION)
        self.window = Window(loaded.size, superseded_bytes, floor, revision)

    # --- figures ---------------------------------------------------------------------------------

    @property
    def key_count(self) -> int:
        """Live keys."""
        return len(self.live)

    @property
    def db_bytes(self) -> int:
        """Approximate size of the KV window: what dbSize shows and the quota measures."""
        return self.window.total

    @property
    def tail_floor(self) -> int:
        """Oldest revision at which memory can answer reads."""
        return self.tail.floor

    # --- changes ---------------------------------------------------------------------------------

    def stage_put(self, op: PutOp, leases: Container[int]) -> Staged:
        """Compute a put.

        Raises:
            LeaseNotFoundError: the lease does not exist; judged before the key (P4).
            KeyNotFoundError: an ignore flag needs a key that is not there (P3).
        """
        key, value, lease, prev_kv, ignore_value, ignore_lease = op
        if lease and lease not in leases:
            raise LeaseNotFoundError
        revision = self.revision + 1
        old = self.live.get(key)
        if old is None:
            if ignore_value or ignore_lease:
                raise KeyNotFoundError
            row = _new(Row, (revision, 0, key, value, revision, 1, lease, False))
        else:
            _, old_value, create, _, version, old_lease = old
            if ignore_value:
                value = old_value
            if ignore_lease:
                lease = old_lease
            row = _new(Row, (revision, 0, key, value, create, version + 1, lease, False))
        result = _new(PutResult, (revision, old if prev_kv else None))
        return _new(Staged, ((row,), (old,), result))

    def stage_delete(self, op: DeleteOp) -> Staged:
        """Compute a range delete; deleting nothing leaves the revision (D1)."""
        self.tally.deletes += 1
        return self._stage_deletion(list(self.iter_keys(op.span)), op.prev_kv)

    def stage_delete_keys(self, keys: Sequence[bytes]) -> Staged:
        """Compute the deletion of live ``keys``, in the order given."""
        self.tally.deleted(len(keys))
        return self._stage_deletion(keys, False)

    def _stage_deletion(self, keys: Sequence[bytes], prev_kv: bool) -> Staged:
        if not keys:
            return Staged((), (), DeleteResult(self.revision, 0, ()))
        revision = self.revision + 1
        prevs = tuple(map(self.live.__getitem__, keys))
        rows = tuple(
            _new(Row, (revision, sub, key, b"", 0, 0, 0, True)) for sub, key in enumerate(keys)
        )
        return Staged(rows, prevs, DeleteResult(revision, len(rows), prevs if prev_kv else ()))

    def commit(self, staged: Staged) -> list[LeaseMove] | None:
        """Make a staged change; returns the keys whose lease changed, None when there are none.

        The change must have been staged at the present revision.
        """
        rows = staged[0]
        if not rows:
            return None
        ensure(rows[0][0] == self.revision + 1, "a change is made at the revision it was staged at")
        if len(rows) == 1:
            self.tail.add_one(rows[0], staged[1][0])
        else:
            self.tail.add(rows, staged[1])
        if len(rows) > _MANY:
            return self._commit_many(rows)
        self.tally.staged(sum(not row[7] for row in rows))
        moves: list[LeaseMove] | None = None
        live, window = self.live, self.window
        for revision, _sub, key, value, create, version, lease, tombstone in rows:
            old = live.get(key)
            if tombstone:
                ensure(old is not None, "a tombstone ends a live key")
                _, old_value, _, _, _, before = old  # type: ignore[misc]
                del live[key]
                self.keys.remove(key)
                window.tombstone(revision, len(key), ROW_BYTES + len(key) + len(old_value))
            else:
                live[key] = _new(KeyValue, (key, value, create, revision, version, lease))
                base = ROW_BYTES + len(key)
                if old is None:
                    self.keys.add(key)
                    before = 0
                    window.change(revision, base + len(value), 0)
                else:
                    before = old[5]
                    window.change(revision, base + len(value), base + len(old[1]))
            if before != lease:
                if moves is None:
                    moves = []
                moves.append(LeaseMove(key, before, lease))
        self.revision = rows[0][0]
        return moves

    def _commit_many(self, rows: Sequence[Row]) -> list[LeaseMove] | None:
        """The rest of ``commit`` for what is mostly deletions: keys come and go all at once."""
        moves: list[LeaseMove] = []
        fresh: list[bytes] = []
        revision = rows[0][0]
        live, window = self.live, self.window
        count = key_bytes = superseded = 0
        for _, _, key, value, create, version, lease, tombstone in rows:
            old = live.get(key)
            before = 0 if old is None else old[5]
            if tombstone:
                ensure(old is not None, "a tombstone ends a live key")
                del live[key]
                count += 1
                key_bytes += len(key)
                superseded += len(old[1])  # type: ignore[index]
            else:
                live[key] = _new(KeyValue, (key, value, create, revision, version, lease))
                base = ROW_BYTES + len(key)
                if old is None:
                    fresh.append(key)
                window.change(revision, base + len(value), 0 if old is None else base + len(old[1]))
            if before != lease:
                moves.append(_new(LeaseMove, (key, before, lease)))
        self.tally.staged(len(rows) - count)
        window.tombstones(revision, count, key_bytes, count * ROW_BYTES + key_bytes + superseded)
        # A key that was deleted and put again in this revision is in the order still.
        self.keys.update({key for key in fresh if key in live and key not in self.keys})
        self._drop_keys(rows, count)
        self.revision = revision
        return moves or None

    def _drop_keys(self, rows: Sequence[Row], count: int) -> None:
        """Take the ``count`` keys that ``rows`` deleted off the order."""
        live, keys = self.live, self.keys
        if count * _REBUILD_SHARE > len(keys):
            # In order, a list of all that stay is made faster than many leave one by one.
            self.keys = SortedList(filter(live.__contains__, keys))
            return
        for row in rows:
            if row[7] and row[2] not in live:
                keys.discard(row[2])

    def puts(self, pairs: Iterable[tuple[bytes, bytes]]) -> tuple[list[Row], list[KeyValue | None]]:
        """``stage_put`` and ``commit`` in one for a run of puts without options, one revision each.

        Returns rows and the keys before them. Whoever calls tells the lessor what left a lease.
        """
        rows: list[Row] = []
        prevs: list[KeyValue | None] = []
        live, revision, size, superseded = self.live, self.revision, 0, 0
        for key, value in pairs:
            revision += 1
            old = live.get(key)
            if old is None:
                create, version = revision, 1
                self.keys.add(key)
            else:
                create, version = old[2], old[4] + 1
                superseded += ROW_BYTES + len(key) + len(old[1])
            size += len(key) + len(value)
            live[key] = _new(KeyValue, (key, value, create, revision, version, 0))
            rows.append(_new(Row, (revision, 0, key, value, create, version, 0, False)))
            prevs.append(old)
        self.tail.add_run(rows, prevs, size)
        self.window.change(revision, size + ROW_BYTES * len(rows), superseded)
        self.revision = revision
        return rows, prevs

    def check_compact(self, revision: int) -> None:
        """Whether the floor may move to ``revision`` (C2).

        Raises:
            CompactedError: at or below the floor.
            FutureRevError: above the present.
        """
        if revision <= self.compact_revision:
            raise CompactedError
        if revision > self.revision:
            raise FutureRevError

    def compact(self, revision: int) -> None:
        """Move the KV floor; memory follows with the next ``trim_tail``."""
        self.check_compact(revision)
        self.compact_revision = revision
        self.window.compact(max(revision, FIRST_REVISION), self.revision)

    def trim_tail(self, durable_revision: int) -> int:
        """Give back memory for what SQL holds durably; returns the rows dropped."""
        return self.tail.trim(durable_revision, self.compact_revision)

    # --- reads -----------------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        """The live version of ``key``."""
        return self.live.get(key)

    def iter_keys(self, span: KeySpan) -> Iterable[bytes]:
        """Live keys of ``span``, ascending. Invalid after the next commit."""
        start, end = span
        single = single_key(span)
        if single is not None:
            return (single,) if single in self.live else ()
        if end is not None and end <= start:
            return ()
        return self.keys.irange(start, end, (True, False))  # type: ignore[no-any-return]

    def count(self, span: KeySpan) -> int:
        """Live keys in ``span``."""
        start, end = span
        keys = self.keys
        if end is None:
            return len(keys) - keys.bisect_left(start) if start else len(keys)
        if end <= start:
            return 0
        return keys.bisect_left(end) - keys.bisect_left(start)  # type: ignore[no-any-return]

    def check_revision(self, revision: int) -> None:
        """Whether clients may read at ``revision`` (R4); 0 and below mean now.

        Raises:
            FutureRevError: above the present.
            CompactedError: below the KV floor; the floor itself is readable.
        """
        if revision > self.revision:
            raise FutureRevError
        if 0 < revision < self.compact_revision:
            raise CompactedError

    def range(self, op: RangeOp) -> RangeResult:
        """Answer ``op`` at its own revision.

        Raises:
            FutureRevError, CompactedError: see ``check_revision``.
            NeedHistory: older than the tail.
        """
        self.tally.ranges += 1
        revision = op.revision
        if revision <= 0 or revision == self.revision:
            return self.range_now(op)
        self.check_revision(revision)
        return self.range_at(op, revision)

    def range_now(self, op: RangeOp) -> RangeResult:
        """Answer ``op`` at the present, whatever revision it names."""
        span = op[0]
        live = self.live
        key = single_key(span)
        if key is not None:
            kv = live.get(key)
            if kv is None:
                return RangeResult((), 0, False)
            return refine(op, [kv], 1)
        count = self.count(span)
        if op.count_only or not count:
            return RangeResult((), count, False)
        limit = op.limit
        if is_plain(op):
            keys = self.iter_keys(span)
            if 0 < limit < count:
                keys = islice(keys, limit)
            kvs = list(map(live.__getitem__, keys))
            more = 0 < limit < count
            return RangeResult(tuple(keys_only(op, kvs) if op.keys_only else kvs), count, more)
        fetch = fetch_limit(op)
        keys = self.iter_keys(span)
        if fetch:
            keys = islice(keys, fetch)
        return refine(op, list(map(live.__getitem__, keys)), count)

    def range_at(self, op: RangeOp, revision: int) -> RangeResult:
        """Answer ``op`` as of ``revision``, without looking at the floors.

        Raises:
            NeedHistory: older than the tail.
        """
        if revision >= self.revision:
            return self.range_now(op)
        past = self.past(op.span, revision)
        if not past:
            return self.range_now(op)
        live, count = self.live, self.count(op.span)
        for key, kv in past.items():
            count += (kv is not None) - (key in live)
        if op.count_only or not count:
            return RangeResult((), count, False)
        kvs = self._kvs_at(op.span, past)
        fetch = fetch_limit(op)
        return refine(op, list(islice(kvs, fetch) if fetch else kvs), count)

    def _kvs_at(self, span: KeySpan, past: dict[bytes, KeyValue | None]) -> Iterator[KeyValue]:
        """Key values in key order; lazy, for a page must not cost the whole span."""
        live = self.live
        gone = sorted(key for key, kv in past.items() if kv is not None and key not in live)
        for key in merge(self.iter_keys(span), gone):
            kv = past[key] if key in past else live[key]
            if kv is not None:
                yield kv

    def past(self, span: KeySpan, revision: int) -> dict[bytes, KeyValue | None]:
        """Keys of ``span`` that changed after ``revision``, as they were then; None: absent.

        Raises:
            NeedHistory: older than the tail.
        """
        tail = self.tail
        if revision < tail.floor:
            raise NeedHistory(revision)
        return tail.undo(span, tail.position_after(revision), {})

    def events_since(
        self, start_revision: int, limit_revisions: int, span: KeySpan | None = None
    ) -> Catchup:
        """Events at ``start_revision`` and above, oldest first, for a watcher that is behind.

        A revision is never split. ``prev`` is absent where the revision before is compacted (W16).

        Raises:
            NeedHistory: the tail does not hold ``start_revision`` any more.
        """
        if start_revision <= self.tail.floor:
            raise NeedHistory(start_revision)
        batches: list[tuple[int, list[Event]]] = []
        last = 0
        for row, prev in zip(*self.tail.rows_from(start_revision), strict=True):
            if span is not None and not span.holds(row[2]):
                continue
            revision = row[0]
            if revision != last:
                if len(batches) == limit_revisions:
                    return Catchup(batches, revision)
                last = revision
                batches.append((revision, []))
            batches[-1][1].append(event_of(row, prev, self.compact_revision))
        return Catchup(batches, self.revision + 1)


def event_of(row: Row, prev: KeyValue | None, compact_revision: int = NEVER_COMPACTED) -> Event:
    """The event of a row; no previous value for creations or below the floor (W16)."""
    revision = row[0]
    if revision - 1 < compact_revision or (row[5] == 1 and row[4] == revision):
        prev = None
    return _new(Event, (row, prev))
