"""Short ways to say what a test does to a store."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from configsvc.mvcc.messages import (
    Compare,
    DeleteOp,
    KeyValue,
    PutOp,
    RangeOp,
    RangeResult,
    TxnOp,
)
from configsvc.mvcc.shape import check_request
from configsvc.mvcc.store import Staged, Store
from configsvc.mvcc.txn import stage_txn
from configsvc.types import KeySpan, span_of

VERSION, CREATE, MOD, VALUE, LEASE = range(5)
EQUAL, GREATER, LESS, NOT_EQUAL = range(4)
ALL = KeySpan(b"", None)


def key(k: bytes) -> KeySpan:
    return span_of(k, b"")


def get(k: bytes, end: bytes = b"", **options: Any) -> RangeOp:
    return RangeOp(span_of(k, end), **options)


def put(k: bytes, value: bytes = b"v", **options: Any) -> PutOp:
    return PutOp(k, value, **options)


def delete(k: bytes, end: bytes = b"", **options: Any) -> DeleteOp:
    return DeleteOp(span_of(k, end), **options)


def compare(k: bytes, target: int, result: int, operand: int | bytes, end: bytes = b"") -> Compare:
    return Compare(span_of(k, end), not end, result, target, operand)


def txn(*ops: Any, when: tuple[Compare, ...] = (), otherwise: tuple[Any, ...] = ()) -> TxnOp:
    return TxnOp(when, ops, otherwise)


def do(store: Store, *ops: Any, leases: Container[int] = ()) -> Any:
    """Make each op as an entry of its own; the last one's result."""
    result: Any = None
    for op in ops:
        staged = stage(store, op, leases)
        store.commit(staged)
        result = staged.result
    return result


def stage(store: Store, op: Any, leases: Container[int] = ()) -> Staged:
    check_request(op)
    if isinstance(op, PutOp):
        return store.stage_put(op, leases)
    if isinstance(op, DeleteOp):
        return store.stage_delete(op)
    return stage_txn(store, op, leases)


def keys_of(result: RangeResult) -> list[bytes]:
    return [kv.key for kv in result.kvs]


def values_of(result: RangeResult) -> dict[bytes, bytes]:
    return {kv.key: kv.value for kv in result.kvs}


def kv(k: bytes, value: bytes, create: int, mod: int, version: int, lease: int = 0) -> KeyValue:
    return KeyValue(k, value, create, mod, version, lease)
