"""Options of a Range: filters, order, limit, keys only (wire/behaviour.md R5–R13).

Pure functions over lists of key values that are already cut to the span and in key order.

Not here: finding the keys (``store``, ``txn``), checking the request's form (``shape``).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from configsvc.mvcc.messages import KeyValue, RangeOp, RangeResult

NONE: Final = 0
ASCEND: Final = 1
DESCEND: Final = 2
KEY: Final = 0
VALUE: Final = 4

# Place in a KeyValue that a sort target names.
_SORT_FIELD: Final[tuple[Callable[[KeyValue], Any], ...]] = (
    itemgetter(0),
    itemgetter(4),
    itemgetter(2),
    itemgetter(3),
    itemgetter(1),
)


def is_plain(op: RangeOp) -> bool:
    """Whether natural order and limit are all there is, so that a range may stop early."""
    return not (
        op.sort_order == DESCEND
        or op.sort_target
        or op.min_mod_revision
        or op.max_mod_revision
        or op.min_create_revision
        or op.max_create_revision
    )


def has_filters(op: RangeOp) -> bool:
    """Whether any revision bound is set."""
    return bool(
        op.min_mod_revision
        or op.max_mod_revision
        or op.min_create_revision
        or op.max_create_revision
    )


def fetch_limit(op: RangeOp) -> int:
    """How many keys in key order decide the answer; 0: all.

    Order or filters need the whole range. A target without an order does not: the first
    ``limit + 1`` keys are taken, then sorted (R11).
    """
    if op.limit <= 0 or op.sort_order != NONE or has_filters(op):
        return 0
    return op.limit + 1


def refine(op: RangeOp, kvs: list[KeyValue], count: int) -> RangeResult:
    """The answer to ``op``.

    Args:
        op: The request.
        kvs: The range in key order, whole or at least ``fetch_limit`` keys of it.
        count: Keys in the whole range.
    """
    if op.count_only:
        return RangeResult((), count, False)
    kvs = filtered(op, kvs)
    order = sort_key(op)
    if order is not None:
        kvs = sorted(kvs, key=order[0], reverse=order[1])
    more = False
    if 0 < op.limit < len(kvs):
        kvs = kvs[: op.limit]
        more = True
    if op.keys_only:
        return RangeResult(tuple(keys_only(op, kvs)), count, more)
    return RangeResult(tuple(kvs), count, more)


def filtered(op: RangeOp, kvs: list[KeyValue]) -> list[KeyValue]:
    """Those within the revision bounds."""
    return _filtered(op, kvs) if has_filters(op) else kvs


def sort_key(op: RangeOp) -> tuple[Callable[[KeyValue], Any], bool] | None:
    """By what the answer is ordered, and whether downwards; None: key order as it is."""
    order, target = op.sort_order, op.sort_target
    if order == DESCEND or target != KEY:
        return _SORT_FIELD[target], order == DESCEND
    return None


def keys_only(op: RangeOp, kvs: list[KeyValue]) -> list[KeyValue]:
    """Without values; the lease goes too unless values were needed for the order (R8)."""
    if op.sort_target == VALUE:
        return [kv._replace(value=b"") for kv in kvs]
    return [kv._replace(value=b"", lease=0) for kv in kvs]


def _filtered(op: RangeOp, kvs: list[KeyValue]) -> list[KeyValue]:
    low_mod, high_mod = op.min_mod_revision, op.max_mod_revision
    low_create, high_create = op.min_create_revision, op.max_create_revision
    return [
        kv
        for kv in kvs
        if (not low_mod or kv.mod_revision >= low_mod)
        and (not high_mod or kv.mod_revision <= high_mod)
        and (not low_create or kv.create_revision >= low_create)
        and (not high_create or kv.create_revision <= high_create)
    ]
