"""Answers of very many keys: read and encoded slice by slice, so that other calls get their turn.

Always true:
  * The answer is of one revision, that of its first slice, whatever is written meanwhile (R1).
  * No step is longer than ``RANGE_PIECE_KEYS`` and ``RANGE_PIECE_BYTES`` allow, but for single
    values above the latter.
  * Whoever called it off is found out at the next slice, and nothing is held for it any more.

Rights are judged once, when the read becomes linearizable, as for every other range.

What a transaction reads is found in one go, for it is of one moment inside the transaction; only
its encoding is cut.

Not here: finding the keys (``mvcc.cursor``), who is next (``runtime.slices``), writing the answer
(``frontend``, ``gateway``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from heapq import merge
from itertools import chain, islice

from configsvc.codec import answers
from configsvc.codec.varint import int_field
from configsvc.errors import ConfigServiceError, OverloadedError
from configsvc.limits import (
    RANGE_PIECE_BYTES,
    RANGE_PIECE_KEYS,
    RANGE_PIECE_ROWS,
    RANGES_IN_PIECES_MAX,
    RANGES_WAITING_MAX,
)
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.messages import (
    DeleteResult,
    KeyValue,
    OpResult,
    RangeOp,
    RangeResult,
    TxnResult,
)
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
        self._waiting: deque[_Making] = deque()

    def add(self, work: _Making, *, made: bool = False) -> None:
        """Make an answer, now or later. ``made``: it tells of a change, and is not refused.

        Raises:
            OverloadedError: RANGES_WAITING_MAX wait already.
        """
        if self._making < RANGES_IN_PIECES_MAX:
            self._start(work)
            return
        if len(self._waiting) >= RANGES_WAITING_MAX and not made:
            self._waiting = deque(each for each in self._waiting if not each.waiting.cancelled)
            if len(self._waiting) >= RANGES_WAITING_MAX:
                work.give_up()
                raise OverloadedError
        work.rest()
        self._waiting.append(work)

    def _start(self, work: _Making) -> None:
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


def is_large_txn(result: TxnResult) -> bool:
    """Whether encoding ``result`` could take longer than one slice."""
    return _key_values_in(result) > RANGE_PIECE_KEYS


def _key_values_in(result: TxnResult) -> int:
    count = 0
    for response in result.responses:
        if type(response) is RangeResult:
            count += len(response.kvs)
        elif type(response) is DeleteResult:
            count += len(response.prevs)
        elif type(response) is TxnResult:
            count += _key_values_in(response)
    return count


def large_txn(ranges: LargeRanges, header: bytes, result: TxnResult, *, made: bool) -> Waiting:
    """Answer a transaction with ``Pieces``, one for each of its operations.

    Args:
        ranges: Whose turn it is.
        header: Of the answer.
        result: What was read and done; no part of it is still to be fetched.
        made: Whether it changed anything: then nobody may be told that it was refused.

    Raises:
        OverloadedError: too many wait.
    """
    work = _LargeTxn(header, result)
    ranges.add(work, made=made)
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


class _Making:
    """One answer in the making; each call is a slice of it."""

    def __init__(self, header: bytes) -> None:
        self.waiting = Waiting()
        self._parts = [header]
        self._pieces: Pieces | None = None
        self._steps = self._run()

    def __call__(self) -> bool:
        if self.waiting.cancelled:
            self.give_up()
            return False
        try:
            next(self._steps)
        except StopIteration:
            self._pieces = Pieces(tuple(self._parts))
            self.waiting.complete(self._pieces)
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

    def give_up(self) -> None:
        """There is no turn for us."""

    def _run(self) -> Iterator[None]:
        """The slices; ``_parts`` are the answer after the last one."""
        raise NotImplementedError


class _LargeTxn(_Making):
    """A transaction's answer."""

    def __init__(self, header: bytes, result: TxnResult) -> None:
        self._result = result
        super().__init__(header + answers.txn_head(result))

    def _run(self) -> Iterator[None]:
        for response in self._result.responses:
            parts = yield from self._response(response, self._result.revision)
            self._parts.append(b"".join(parts))
            yield

    def _response(self, response: OpResult, revision: int) -> Generator[None, None, list[bytes]]:
        """What ``answers.response`` says; its lengths are known when the last part is."""
        parts: list[bytes] = []
        if type(response) is RangeResult:
            yield from self._key_values(parts, response.kvs, answers.KVS)
            parts.append(answers.range_end(response))
        elif type(response) is DeleteResult:
            parts.append(int_field(2, response.deleted))
            yield from self._key_values(parts, response.prevs, answers.PREV_KVS)
        elif type(response) is TxnResult:
            parts.append(answers.txn_head(response))
            for inner in response.responses:
                parts += yield from self._response(inner, response.revision)
        else:
            return [answers.response(response, revision)]
        return [answers.response_head(response, revision, sum(map(len, parts))), *parts]

    def _key_values(
        self, parts: list[bytes], kvs: Sequence[KeyValue], tag: bytes
    ) -> Iterator[None]:
        for at in range(0, len(kvs), RANGE_PIECE_KEYS):
            for portion in portions(list(kvs[at : at + RANGE_PIECE_KEYS])):
                parts.append(answers.key_values(portion, tag=tag))
                yield


class _LargeRange(_Making):
    """A range's answer."""

    def __init__(
        self, store: Store, header: bytes, op: RangeOp, history: Callable[[int], Waiting]
    ) -> None:
        self._op = op
        self._cursor = RangeCursor(store, op.span, op.revision)
        self._history = history
        self._more = False
        super().__init__(header)

    def __call__(self) -> bool:
        try:
            return super().__call__()
        except NeedHistory:
            # An install replaced the store: the same revision, from its beginning.
            self._parts.clear()
            try:
                self.waiting.follow(self._history(self._cursor.revision))
            except ConfigServiceError as error:  # too many ask it already
                self.waiting.complete(error)
            return False

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
