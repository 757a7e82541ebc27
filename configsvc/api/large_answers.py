"""Answers of very many keys: read and encoded slice by slice, so that other calls get their turn.

Always true:
  * The answer is of one revision, that of its first slice, whatever is written meanwhile (R1).
  * No step is longer than ``RANGE_PIECE_KEYS`` and ``RANGE_PIECE_BYTES`` allow, but for single
    values above the latter.
  * Whoever called it off is found out at the next slice, and nothing is held for it any more.

Rights are judged once, when the read becomes linearizable, as for every other range.

Not here: finding the keys (``mvcc.cursor``), who is next (``runtime.slices``), writing the answer
(``frontend``, ``gateway``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain, islice

from configsvc.codec import answers
from configsvc.codec.varint import int_field
from configsvc.errors import OverloadedError
from configsvc.limits import (
    RANGE_PIECE_BYTES,
    RANGE_PIECE_KEYS,
    RANGE_PIECE_ROWS,
    RANGES_IN_PIECES_MAX,
    RANGES_WAITING_MAX,
)
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.messages import DeleteResult, KeyValue, RangeOp, RangeResult
from configsvc.mvcc.ranges import (
    VALUE,
    fetch_limit,
    filtered,
    is_plain,
    keys_only,
    sort_key,
)
from configsvc.mvcc.store import NeedHistory, Store, single_key
from configsvc.runtime.history_gate import HistoryGate
from configsvc.runtime.member import Member
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Pieces, Waiting


def is_large(store: Store, op: RangeOp) -> bool:
    """Whether ``op`` could take longer than one slice."""
    if op.count_only or single_key(op.span) is not None:
        return False
    if 0 < op.revision < store.revision:
        rows = store.tail.end - store.tail.position_after(op.revision)
        return rows > RANGE_PIECE_ROWS or store.count(op.span) > RANGE_PIECE_KEYS
    if len(store.live) <= RANGE_PIECE_KEYS or (0 < op.limit <= RANGE_PIECE_KEYS and is_plain(op)):
        return False
    return store.count(op.span) > RANGE_PIECE_KEYS


class LargeRanges:
    """Large answers in the making: a few at once, the others in the order in which they came.

    What is being made is in memory whole, and nobody else's bound counts it: so few at once. Who
    waits has its revision, and holds nothing back: if memory forgets meanwhile, SQL answers.
    """

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._making = 0
        self._waiting: deque[_LargeRange] = deque()

    def add(self, work: _LargeRange) -> None:
        """Make an answer, now or later.

        Raises:
            OverloadedError: RANGES_WAITING_MAX wait already.
        """
        if self._making < RANGES_IN_PIECES_MAX:
            self._start(work)
            return
        if len(self._waiting) >= RANGES_WAITING_MAX:
            self._waiting = deque(each for each in self._waiting if not each.waiting.cancelled)
            if len(self._waiting) >= RANGES_WAITING_MAX:
                work.give_up()
                raise OverloadedError
        work.rest()
        self._waiting.append(work)

    def _start(self, work: _LargeRange) -> None:
        self._making += 1

        def step() -> bool:
            more = False
            try:
                more = work()
            finally:
                if not more:
                    work.when_done(self._ended)
            return more

        self._slices.add(step)

    def _ended(self) -> None:
        self._making -= 1
        while self._waiting and self._making < RANGES_IN_PIECES_MAX:
            work = self._waiting.popleft()
            if not work.waiting.cancelled:
                self._start(work)


def large_range(member: Member, ranges: LargeRanges, header: bytes, op: RangeOp) -> Waiting:
    """Answer ``op`` with ``Pieces``, over as many turns of the loop as it takes.

    Raises:
        NeedHistory: memory does not reach back to the revision.
        FutureRevError, CompactedError: as for every range.
        OverloadedError: too many wait.
    """
    store = member.store
    store.tally.ranges += 1

    def history(revision: int) -> Waiting:
        return from_history(member, header, op._replace(revision=revision))

    work = _LargeRange(store, header, op, history)
    ranges.add(work)
    return work.waiting


def large_deletion(slices: Slices, header: bytes, result: DeleteResult) -> Waiting:
    """The answer to a deletion that tells very many previous values."""
    waiting = Waiting()
    parts = [header + int_field(2, result.deleted)]
    prevs = result.prevs

    def encode() -> Iterator[bytes]:
        for at in range(0, len(prevs), RANGE_PIECE_KEYS):
            for portion in portions(list(prevs[at : at + RANGE_PIECE_KEYS])):
                yield answers.key_values(portion, tag=answers.PREV_KVS)

    steps = encode()

    def work() -> bool:
        if waiting.cancelled:
            return False
        part = next(steps, None)
        if part is None:
            waiting.complete(Pieces(tuple(parts)))
            return False
        parts.append(part)
        return True

    slices.add(work)
    return waiting


def from_history(member: Member, header: bytes, op: RangeOp) -> Waiting:
    """Answer ``op`` from SQL: read and encoded on a reader thread."""
    gate: HistoryGate = member.gate
    reader = member.reader
    return gate.ask(
        member.applied,
        lambda: pieces_of(header, reader.range_at(op, op.revision)),
        lambda pieces: pieces,
    )


def pieces_of(header: bytes, result: RangeResult) -> bytes | Pieces:
    """The answer; in pieces when it is of more keys than one slice."""
    kvs = result.kvs
    if len(kvs) <= RANGE_PIECE_KEYS:
        return header + answers.range_body(result)
    starts = range(0, len(kvs), RANGE_PIECE_KEYS)
    pieces = (answers.key_values(kvs[at : at + RANGE_PIECE_KEYS]) for at in starts)
    parts = (header, *pieces, answers.range_end(result))
    return Pieces(parts)


class _LargeRange:
    """One answer in the making; each call is a slice of it."""

    def __init__(
        self, store: Store, header: bytes, op: RangeOp, history: Callable[[int], Waiting]
    ) -> None:
        self.waiting = Waiting()
        self._op = op
        self._cursor = RangeCursor(store, op.span, op.revision)
        self._history = history
        self._parts = [header]
        self._more = False
        self._pieces: Pieces | None = None
        self._steps = self._run()

    def __call__(self) -> bool:
        waiting = self.waiting
        if waiting.cancelled:
            self._cursor.close()
            return False
        try:
            next(self._steps)
        except StopIteration:
            self._pieces = Pieces(tuple(self._parts))
            waiting.complete(self._pieces)
            return False
        except NeedHistory:
            # An install replaced the store: the same revision, from its beginning.
            self._parts.clear()
            waiting.follow(self._history(self._cursor.revision))
            return False
        return True

    def when_done(self, then: Callable[[], None]) -> None:
        """Call ``then`` once the answer is nobody's to make any more."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            pieces.when_released(then)
        else:
            then()

    def rest(self) -> None:
        """It is not our turn yet: hold nothing back."""
        self._cursor.rest()

    def give_up(self) -> None:
        """There is no turn for us."""
        self._cursor.close()

    def _run(self) -> Iterator[None]:
        op = self._op
        bare = op.keys_only and op.sort_target != VALUE
        batches = self._in_key_order() if is_plain(op) else self._sorted()
        for batch in batches:
            kvs = keys_only(op, batch) if op.keys_only and not bare else batch
            for portion in (kvs,) if bare else portions(kvs):
                self._parts.append(answers.key_values(portion, keys_only=bare))
                yield
        self._parts.append(answers.range_tail(more=self._more, count=self._cursor.count))

    def _in_key_order(self) -> Iterator[list[KeyValue]]:
        cursor, limit = self._cursor, self._op.limit
        given = 0
        while not cursor.done and not 0 < limit <= given:
            want = min(RANGE_PIECE_KEYS, limit - given) if limit > 0 else RANGE_PIECE_KEYS
            kvs = cursor.next_chunk(want)
            given += len(kvs)
            yield kvs
        cursor.close()
        self._more = 0 < limit < cursor.count

    def _sorted(self) -> Iterator[list[KeyValue]]:
        """With an order or bounds: first all that decides, sorted piece by piece, then merged."""
        op, cursor = self._op, self._cursor
        fetch, order = fetch_limit(op), sort_key(op)
        runs: list[list[KeyValue]] = []
        seen = kept = 0
        while not cursor.done and not (fetch and seen >= fetch):
            kvs = cursor.next_chunk(RANGE_PIECE_KEYS)
            if fetch:
                kvs = kvs[: fetch - seen]
            seen += len(kvs)
            run = filtered(op, kvs)
            kept += len(run)
            if order is not None:
                run = sorted(run, key=order[0], reverse=order[1])
            runs.append(run)
            yield []
        cursor.close()
        found: Iterator[KeyValue] = chain.from_iterable(runs)
        if order is not None:
            found = merge(*runs, key=order[0], reverse=order[1])
        if 0 < op.limit < kept:
            self._more = True
            found = islice(found, op.limit)
        while batch := list(islice(found, RANGE_PIECE_KEYS)):
            yield batch


def portions(kvs: list[KeyValue]) -> Iterator[list[KeyValue]]:
    """``kvs`` in portions of at most ``RANGE_PIECE_BYTES`` of values, or a single key value."""
    size = at = 0
    for number, kv in enumerate(kvs):
        size += len(kv[1])
        if size > RANGE_PIECE_BYTES and number > at:
            yield kvs[at:number]
            size, at = len(kv[1]), number
    yield kvs[at:] if at else kvs
