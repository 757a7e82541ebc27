"""What goes into the key space and what comes out: operations, key values, events, results.

These are our own messages; ``codec`` is where they meet protobuf. Named tuples, because they are
built several times per request on the hot path.
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc.types import KeySpan


class KeyValue(NamedTuple):
    """One version of one key (etcd's ``mvccpb.KeyValue``)."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int  # 0: none


class Row(NamedTuple):
    """One change of one key, as it is stored: ``sub`` orders the changes of one revision from 0.

    A tombstone has an empty value, version 0, lease 0 and the create revision 0.
    """

    revision: int
    sub: int
    key: bytes
    value: bytes
    create_revision: int
    version: int
    lease: int
    tombstone: bool


class Event(NamedTuple):
    """A change as a watcher sees it."""

    row: Row
    prev: KeyValue | None  # value before this revision; None for a creation


class RangeOp(NamedTuple):
    """Read ``span``; fields are ``RangeRequest``'s. ``limit`` 0: all, ``revision`` 0: now."""

    span: KeySpan
    limit: int = 0
    revision: int = 0
    sort_order: int = 0  # 0 none, 1 ascend, 2 descend
    sort_target: int = 0  # 0 key, 1 version, 2 create, 3 mod, 4 value
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class PutOp(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteOp(NamedTuple):
    span: KeySpan
    prev_kv: bool = False


class Compare(NamedTuple):
    """``target``: 0 version, 1 create, 2 mod, 3 value, 4 lease; ``result``: 0 =, 1 >, 2 <, 3 !=."""

    span: KeySpan
    single: bool  # no range_end was given
    result: int
    target: int
    operand: int | bytes  # bytes only for VALUE


class TxnOp(NamedTuple):
    compares: tuple[Compare, ...]
    success: tuple[RequestOp, ...]
    failure: tuple[RequestOp, ...]


RequestOp = RangeOp | PutOp | DeleteOp | TxnOp


class RangeResult(NamedTuple):
    kvs: tuple[KeyValue, ...]
    count: int  # type: ignore[assignment]  # a field named as etcd names it
    more: bool
    revision: int = 0  # inside a transaction: the store's revision at that step (H5)


class DeferredRange(NamedTuple):
    """A read inside a write transaction at an old revision: filled in before answering.

    It cannot change state or outcome (architecture.md 2).
    """

    op: RangeOp
    revision: int = 0  # of the store at that step, for the filled RangeResult (H5)


class PutResult(NamedTuple):
    revision: int
    prev: KeyValue | None  # filled when prev_kv was asked for


class DeleteResult(NamedTuple):
    revision: int
    deleted: int
    prevs: tuple[KeyValue, ...]


class TxnResult(NamedTuple):
    revision: int
    succeeded: bool
    responses: tuple[OpResult, ...]


OpResult = RangeResult | DeferredRange | PutResult | DeleteResult | TxnResult
