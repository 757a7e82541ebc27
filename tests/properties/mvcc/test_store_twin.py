"""The store against a slow and obvious model: every state of the past as a whole dictionary."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.errors import (
    CompactedError,
    DuplicateKeyError,
    EtcdError,
    FutureRevError,
    KeyNotFoundError,
)
from configsvc.mvcc.messages import (
    Compare,
    DeferredRange,
    DeleteOp,
    DeleteResult,
    KeyValue,
    PutOp,
    PutResult,
    RangeOp,
    RangeResult,
    TxnOp,
    TxnResult,
)
from configsvc.mvcc.shape import check_request
from configsvc.mvcc.store import NeedHistory, Store
from configsvc.mvcc.txn import stage_txn
from configsvc.types import KeySpan

State = dict[bytes, KeyValue]


class Model:
    """Keeps every revision; computes each answer from the definition."""

    def __init__(self) -> None:
        self.states: list[State] = [{}, {}]  # by revision; 0 is never asked for
        self.floor = -1

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def apply(self, op: Any) -> Any:
        before = self.states[-1]
        work = dict(before)
        wrote = [False]
        result = self._run(op, before, work, wrote, check=True)
        if wrote[0]:
            self.states.append(work)
        return result

    def _run(self, op: Any, before: State, work: State, wrote: list[bool], check: bool) -> Any:
        now = self.revision + 1
        if isinstance(op, PutOp):
            if check and op.ignore_value and op.key not in before:
                raise KeyNotFoundError
            old = work.get(op.key)
            if op.ignore_value and old is None:
                raise KeyNotFoundError
            value = old.value if op.ignore_value and old else op.value
            create, version = (old.create_revision, old.version + 1) if old else (now, 1)
            work[op.key] = KeyValue(op.key, value, create, now, version, 0)
            wrote[0] = True
            return PutResult(now, old if op.prev_kv else None)
        if isinstance(op, DeleteOp):
            gone = [work.pop(k) for k in sorted(work) if op.span.holds(k)]
            wrote[0] = wrote[0] or bool(gone)
            revision = now if wrote[0] else now - 1
            return DeleteResult(revision, len(gone), tuple(gone) if op.prev_kv else ())
        if isinstance(op, RangeOp):
            step = now if wrote[0] else now - 1
            if op.revision > 0 and (wrote[0] or op.revision < now - 1):
                return DeferredRange(op, step)
            return self.answer(work, op)._replace(revision=step)
        self._check(op, before)
        chosen = self._chosen(op, before)
        results = tuple(self._run(o, before, work, wrote, check=False) for o in chosen)
        revision = now if wrote[0] else now - 1
        return TxnResult(revision, self._holds(op, before), results)

    def _chosen(self, op: TxnOp, state: State) -> tuple[Any, ...]:
        return op.success if self._holds(op, state) else op.failure

    def _check(self, op: TxnOp, before: State) -> None:
        for o in self._chosen(op, before):
            if isinstance(o, PutOp) and o.ignore_value and o.key not in before:
                raise KeyNotFoundError
            if isinstance(o, RangeOp) and o.revision > self.revision:
                raise FutureRevError
            if isinstance(o, RangeOp) and o.revision and o.revision < self.floor:
                raise CompactedError
            if isinstance(o, TxnOp):
                self._check(o, before)

    def _holds(self, op: TxnOp, state: State) -> bool:
        return all(self._one(c, state) for c in op.compares)

    def _one(self, c: Compare, state: State) -> bool:
        field = ("version", "create_revision", "mod_revision", "value")[c.target]
        kvs = [state[k] for k in sorted(state) if c.span.holds(k)]
        if not kvs:
            if c.target == 3:
                return False
            kvs = [KeyValue(b"", b"", 0, 0, 0, 0)]
        test: Any = (
            lambda a, b: a == b,
            lambda a, b: a > b,
            lambda a, b: a < b,
            lambda a, b: a != b,
        )[c.result]
        return all(bool(test(getattr(kv, field), c.operand)) for kv in kvs)

    def answer(self, state: State, op: RangeOp) -> RangeResult:
        inside = [state[k] for k in sorted(state) if op.span.holds(k)]
        if op.count_only:
            return RangeResult((), len(inside), False)
        kvs = [
            kv
            for kv in inside
            if (not op.min_mod_revision or kv.mod_revision >= op.min_mod_revision)
            and (not op.max_create_revision or kv.create_revision <= op.max_create_revision)
        ]
        filtered = bool(op.min_mod_revision or op.max_create_revision)
        field = ("key", "version", "create_revision", "mod_revision", "value")[op.sort_target]
        order = op.sort_order
        more = bool(op.limit and len(kvs) > op.limit)
        if order == 0 and op.sort_target and op.limit and not filtered:
            kvs = kvs[: op.limit + 1]
        if op.sort_target and order == 0:
            order = 1
        if order:
            kvs = sorted(kvs, key=lambda kv: getattr(kv, field), reverse=order == 2)
        kvs = kvs[: op.limit] if op.limit else kvs
        if op.keys_only:
            kvs = [kv._replace(value=b"") for kv in kvs]
        return RangeResult(tuple(kvs), len(inside), more)

    def read(self, op: RangeOp) -> RangeResult:
        if op.revision > self.revision:
            raise FutureRevError
        if 0 < op.revision < self.floor:
            raise CompactedError
        return self.answer(self.states[op.revision or self.revision], op)


KEYS = st.sampled_from([b"a", b"ab", b"b", b"b\0", b"c", b"d"])
ENDS = st.one_of(st.none(), KEYS)
SPANS = st.one_of(KEYS.map(lambda k: KeySpan(k, k + b"\0")), st.builds(KeySpan, KEYS, ENDS))
VALUES = st.binary(max_size=1)
PUTS = st.one_of(
    st.tuples(KEYS, VALUES, st.booleans()).map(lambda t: PutOp(t[0], t[1], prev_kv=t[2])),
    KEYS.map(lambda k: PutOp(k, b"", ignore_value=True)),
)
DELETES = st.builds(DeleteOp, SPANS, st.booleans())
# Ties of a sort come in no fixed order (R10), but both sides sort stably.
_RANGE_FIELDS: Any = st.fixed_dictionaries(
    {
        "span": SPANS,
        "limit": st.integers(0, 3),
        "revision": st.integers(0, 14),
        "sort_order": st.integers(0, 2),
        "sort_target": st.integers(0, 4),
        "keys_only": st.booleans(),
        "count_only": st.booleans(),
        "min_mod_revision": st.sampled_from([0, 0, 3, 5]),
        "max_create_revision": st.sampled_from([0, 0, 4]),
    }
)
RANGES = _RANGE_FIELDS.map(lambda fields: RangeOp(**fields))
COMPARES = st.one_of(
    st.builds(
        Compare, SPANS, st.just(False), st.integers(0, 3), st.integers(0, 2), st.integers(0, 6)
    ),
    st.builds(Compare, SPANS, st.just(False), st.integers(0, 3), st.just(3), VALUES),
)
FLAT = st.one_of(PUTS, DELETES, RANGES)


def txns(ops: Any) -> Any:
    few = st.lists(ops, max_size=4).map(tuple)
    return st.builds(TxnOp, st.lists(COMPARES, max_size=2).map(tuple), few, few)


TXNS = txns(st.one_of(FLAT, txns(FLAT)))
ENTRIES = st.one_of(PUTS, DELETES, TXNS, st.integers(0, 14))  # a number compacts


def staged(store: Store, op: Any) -> Any:
    check_request(op)
    if isinstance(op, PutOp):
        return store.stage_put(op, ())
    return store.stage_delete(op) if isinstance(op, DeleteOp) else stage_txn(store, op, ())


@settings(max_examples=150, deadline=None)
@given(
    entries=st.lists(ENTRIES, max_size=14), reads=st.lists(RANGES, max_size=6), trim=st.booleans()
)
def test_store_agrees_with_the_model(entries: list[Any], reads: list[RangeOp], trim: bool) -> None:
    store, model = Store(), Model()
    for entry in entries:
        if isinstance(entry, int):
            _compact(store, model, entry)
            continue
        got: Any
        try:
            change = staged(store, entry)
            store.commit(change)
            got = change.result
        except DuplicateKeyError:
            continue  # form, checked elsewhere: the model has no opinion
        except EtcdError as error:
            got = type(error)
        wanted: Any
        try:
            wanted = model.apply(entry)
        except EtcdError as error:
            wanted = type(error)
        assert got == wanted
        assert store.revision == model.revision
        assert list(store.keys) == sorted(model.states[-1])
        assert store.live == model.states[-1]
    if trim:
        store.trim_tail(store.revision)
    for op in reads:
        _compare_read(store, model, op)


def _compact(store: Store, model: Model, revision: int) -> None:
    try:
        store.compact(revision)
    except CompactedError:
        assert revision <= model.floor
    except FutureRevError:
        assert revision > model.revision
    else:
        assert model.floor < revision <= model.revision
        model.floor = revision


def _compare_read(store: Store, model: Model, op: RangeOp) -> None:
    got: Any
    wanted: Any
    try:
        got = store.range(op)
    except NeedHistory:
        assert 0 < op.revision < store.tail_floor
        return
    except EtcdError as error:
        got = type(error)
    try:
        wanted = model.read(op)
    except EtcdError as error:
        wanted = type(error)
    assert got == wanted


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(st.one_of(PUTS, DELETES, TXNS), max_size=12), start=st.integers(2, 14))
def test_events_rebuild_every_state(entries: list[Any], start: int) -> None:
    """Events from any revision on, applied to the state before it, give the present (W9, W20)."""
    store, model = Store(), Model()
    for entry in entries:
        try:
            store.commit(staged(store, entry))
        except EtcdError:
            continue
        model.apply(entry)
    if start > store.revision:
        return
    state = dict(model.states[start - 1])
    for revision, events in store.events_since(start, 1_000).batches:
        for event in events:
            row = event.row
            assert row.revision == revision
            before = model.states[revision - 1].get(row.key)
            created = row.version == 1 and not row.tombstone
            assert event.prev == (None if created else before)
            if row.tombstone:
                state.pop(row.key, None)
            else:
                state[row.key] = KeyValue(
                    row.key, row.value, row.create_revision, revision, row.version, row.lease
                )
    assert state == store.live
