"""Transactions: choose the path, check it, compute it over an overlay (wire/behaviour.md T1–T18).

Nothing here changes the store: the outcome is a ``Staged`` change that ``Store.commit`` makes at
once, so an error at any operation rejects the whole transaction.

Order of work: all compares, nested ones too, on the state before the transaction (T6); then the
conditions of every operation on the chosen path, on that same state (T10); then the operations in
order, each seeing the writes before it (T7).

Not here: the form of the request (``shape``), who may (``apply.rights``).
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from configsvc.errors import (
    CompactedError,
    FutureRevError,
    KeyNotFoundError,
    LeaseNotFoundError,
    ensure,
)
from configsvc.mvcc.messages import (
    Compare,
    DeferredRange,
    DeleteOp,
    DeleteResult,
    KeyValue,
    OpResult,
    PutOp,
    PutResult,
    RangeOp,
    RangeResult,
    RequestOp,
    Row,
    TxnOp,
    TxnResult,
)
from configsvc.mvcc.ranges import refine
from configsvc.mvcc.store import Staged, Store
from configsvc.types import KeySpan

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor
_MISSING = KeyValue(b"", b"", 0, 0, 0, 0)
_VALUE = 3


class _Path(NamedTuple):
    """The branch that was taken; ``inner`` holds the path of each nested transaction."""

    succeeded: bool
    ops: tuple[RequestOp, ...]
    inner: dict[int, _Path]  # by place in ``ops``


def stage_txn(store: Store, op: TxnOp, leases: Container[int]) -> Staged:
    """Compute a transaction whose form has been checked.

    Reads at an older revision come back as ``DeferredRange``.

    Raises:
        LeaseNotFoundError, KeyNotFoundError: a put on the chosen path cannot be made.
        FutureRevError, CompactedError: a range on it names a revision that cannot be read.
    """
    path = _choose(store, op)
    _check(store, path, leases)
    overlay = _Overlay(store)
    result = _run(overlay, path)
    store.tally.txns += overlay.operations > 1
    return Staged(tuple(overlay.rows), tuple(overlay.prevs), result)


def read_txn(store: Store, op: TxnOp) -> TxnResult:
    """Answer a transaction that only reads (T17); older revisions come back deferred.

    Raises:
        FutureRevError, CompactedError: a range names a revision that cannot be read.
    """
    staged = stage_txn(store, op, ())
    ensure(not staged.rows, "a read-only transaction writes nothing")
    return staged.result  # type: ignore[return-value]


# --- compares ------------------------------------------------------------------------------------


def _choose(store: Store, op: TxnOp) -> _Path:
    succeeded = all(_holds(store, compare) for compare in op.compares)
    ops = op.success if succeeded else op.failure
    inner = {at: _choose(store, o) for at, o in enumerate(ops) if isinstance(o, TxnOp)}
    return _Path(succeeded, ops, inner)


def _holds(store: Store, compare: Compare) -> bool:
    """Whether every key of the span satisfies it; none at all is one missing key (T2, T3)."""
    live = store.live
    found = False
    for key in store.iter_keys(compare.span):
        found = True
        if not _satisfies(compare, live[key]):
            return False
    if found:
        return True
    return compare.target != _VALUE and _satisfies(compare, _MISSING)


def _satisfies(compare: Compare, kv: KeyValue) -> bool:
    target, wanted = compare.target, compare.operand
    have: int | bytes
    if target == 0:
        have = kv.version
    elif target == 1:
        have = kv.create_revision
    elif target == 2:
        have = kv.mod_revision
    elif target == _VALUE:
        have = kv.value
    elif target == 4:
        have = kv.lease
    else:
        have = wanted  # a target outside the enum compares as equal
    result = compare.result
    if result == 0:
        return have == wanted
    if result == 1:
        return have > wanted  # type: ignore[operator]
    if result == 2:
        return have < wanted  # type: ignore[operator]
    if result == 3:
        return have != wanted
    return True  # a result outside the enum counts as true (T5)


# --- conditions ----------------------------------------------------------------------------------


def _check(store: Store, path: _Path, leases: Container[int]) -> None:
    for at, op in enumerate(path.ops):
        if isinstance(op, PutOp):
            if op.lease and op.lease not in leases:
                raise LeaseNotFoundError
            if (op.ignore_value or op.ignore_lease) and op.key not in store.live:
                raise KeyNotFoundError
        elif isinstance(op, RangeOp):
            # Unlike outside a transaction, a negative revision is judged too (T11).
            if op.revision > store.revision:
                raise FutureRevError
            if op.revision and op.revision < store.compact_revision:
                raise CompactedError
        elif isinstance(op, TxnOp):
            _check(store, path.inner[at], leases)


# --- operations ----------------------------------------------------------------------------------


def _run(overlay: _Overlay, path: _Path) -> TxnResult:
    responses: list[OpResult] = []
    for at, op in enumerate(path.ops):
        if isinstance(op, PutOp):
            responses.append(overlay.put(op))
        elif isinstance(op, RangeOp):
            responses.append(overlay.range(op))
        elif isinstance(op, DeleteOp):
            responses.append(overlay.delete(op))
        else:
            responses.append(_run(overlay, path.inner[at]))
    return TxnResult(overlay.revision, path.succeeded, tuple(responses))


class _Overlay:
    """The store with the writes of one transaction on top."""

    __slots__ = ("_new_revision", "_store", "_writes", "operations", "prevs", "rows")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new_revision = store.revision + 1
        self._writes: dict[bytes, KeyValue | None] = {}
        self.rows: list[Row] = []
        self.prevs: list[KeyValue | None] = []
        self.operations = 0

    @property
    def revision(self) -> int:
        """The new revision once something was written, else the present one (T9, H5)."""
        return self._new_revision if self.rows else self._store.revision

    def get(self, key: bytes) -> KeyValue | None:
        if key in self._writes:
            return self._writes[key]
        return self._store.live.get(key)

    def put(self, op: PutOp) -> PutResult:
        key, value, lease, prev_kv, ignore_value, ignore_lease = op
        self.operations += 1
        revision = self._new_revision
        old = self.get(key)
        if old is None:
            if ignore_value or ignore_lease:  # deleted earlier in this very transaction
                raise KeyNotFoundError
            create, version = revision, 1
        else:
            create, version = old.create_revision, old.version + 1
            value = old.value if ignore_value else value
            lease = old.lease if ignore_lease else lease
        row = Row(revision, len(self.rows), key, value, create, version, lease, False)
        self._write(row, KeyValue(key, value, create, revision, version, lease))
        return PutResult(revision, old if prev_kv else None)

    def delete(self, op: DeleteOp) -> DeleteResult:
        self.operations += 1
        self._store.tally.deletes += 1
        kvs = self._select(op.span)
        rows, writes = self.rows, self._writes
        revision, get = self._new_revision, self._store.live.get
        for sub, kv in enumerate(kvs, len(rows)):  # there may be very many
            key = kv[0]
            rows.append(_new(Row, (revision, sub, key, b"", 0, 0, 0, True)))
            self.prevs.append(get(key))
            writes[key] = None
        return DeleteResult(self.revision, len(kvs), tuple(kvs) if op.prev_kv else ())

    def _write(self, row: Row, after: KeyValue | None) -> None:
        self.rows.append(row)
        self.prevs.append(self._store.live.get(row.key))
        self._writes[row.key] = after

    def range(self, op: RangeOp) -> RangeResult | DeferredRange:
        self.operations += 1
        self._store.tally.ranges += 1
        revision = self.revision
        if op.revision > 0 and (self.rows or op.revision < self._store.revision):
            return DeferredRange(op, revision)
        if not self._writes:
            return self._store.range_now(op)._replace(revision=revision)
        kvs = self._select(op.span)
        return refine(op, kvs, len(kvs))._replace(revision=revision)

    def _select(self, span: KeySpan) -> list[KeyValue]:
        """Key values of ``span`` as this transaction sees them, in key order."""
        if not self._writes:
            return list(map(self._store.live.__getitem__, self._store.iter_keys(span)))
        keys = set(self._store.iter_keys(span))
        keys.update(key for key in self._writes if span.holds(key))
        return [kv for key in sorted(keys) if (kv := self.get(key)) is not None]
