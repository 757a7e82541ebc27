"""The form of requests, and the one walk over what a request touches.

``check_request`` refuses what cannot be meant, before anything is proposed and again in apply.
``walk`` lists every operation of a request with its span, in both branches and at every depth;
rights, quota, sizes and audit all read that list, so none of them can overlook a nested operation.

Not here: conditions that need the state (``store``, ``txn``), who may (``apply.rights``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from configsvc.errors import (
    DuplicateKeyError,
    EmptyKeyError,
    InvalidArgumentError,
    InvalidSortOptionError,
    KeyNotFoundError,
    LeaseProvidedError,
    TooManyOpsError,
    ValueProvidedError,
)
from configsvc.limits import KEY_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX
from configsvc.mvcc.messages import Compare, DeleteOp, PutOp, RangeOp, RequestOp, TxnOp
from configsvc.types import KeySpan

RANGE: Final = 0
PUT: Final = 1
DELETE: Final = 2
COMPARE: Final = 3

PUT_OVERHEAD_BYTES: Final = 256  # what etcd charges a put beside key and value (N2)
LEASE_GRANT_BYTES: Final = 64

_SORT_ORDER_MAX: Final = 2
_SORT_TARGET_MAX: Final = 4


class Visit(NamedTuple):
    """One operation or compare of a request, wherever it stands."""

    kind: int  # RANGE, PUT, DELETE or COMPARE
    span: KeySpan  # the very object that is executed (N4); of a put, its single key
    op: RequestOp | Compare
    depth: int  # 1: the request itself or an operation of the outermost transaction


def walk(op: RequestOp) -> list[Visit]:
    """Every operation of ``op``: compares, then success, then failure, depth first."""
    visits: list[Visit] = []
    _visit(op, 1, visits)
    return visits


def _visit(op: RequestOp, depth: int, visits: list[Visit]) -> None:
    if isinstance(op, PutOp):
        visits.append(Visit(PUT, KeySpan(op.key, op.key + b"\0"), op, depth))
    elif isinstance(op, RangeOp):
        visits.append(Visit(RANGE, op.span, op, depth))
    elif isinstance(op, DeleteOp):
        visits.append(Visit(DELETE, op.span, op, depth))
    else:
        visits += [Visit(COMPARE, c.span, c, depth) for c in op.compares]
        for branch in (op.success, op.failure):
            for inner in branch:
                _visit(inner, depth + isinstance(inner, TxnOp), visits)


def quota_cost(op: RequestOp) -> int:
    """Bytes the quota is charged for; 0: always allowed (N2).

    A transaction is charged for the puts of both branches at every depth.
    """
    if isinstance(op, PutOp):  # most requests: no list of one visit
        return PUT_OVERHEAD_BYTES + len(op.key) + len(op.value)
    cost = 0
    for visit in walk(op):
        put = visit.op
        if isinstance(put, PutOp):
            cost += PUT_OVERHEAD_BYTES + len(put.key) + len(put.value)
    return cost


def is_write(op: RequestOp) -> bool:
    """Whether ``op`` goes through the log: any put, delete or nested transaction (T16)."""
    if isinstance(op, TxnOp):
        return any(not isinstance(inner, RangeOp) for inner in (*op.success, *op.failure))
    return not isinstance(op, RangeOp)


def all_serializable(op: TxnOp) -> bool:
    """Whether a read-only transaction is answered from local state; no ops at all: yes (T17)."""
    ops = (*op.success, *op.failure)
    return all(isinstance(inner, RangeOp) and inner.serializable for inner in ops)


def check_request(op: RequestOp | None) -> None:
    """Refuse a request whose form is wrong, whatever the state (T12–T15).

    Raises:
        EmptyKeyError: a key of length zero.
        InvalidArgumentError: a key or range end above ``KEY_BYTES_MAX``.
        ValueProvidedError, LeaseProvidedError: given along with the flag that ignores it.
        InvalidSortOptionError: sort order or target outside the enum.
        TooManyOpsError: more than ``TXN_OPS_MAX`` operations or compares in all, or nested deeper
            than ``TXN_DEPTH_MAX``.
        DuplicateKeyError: one branch writes a key twice in a way that has no order.
        KeyNotFoundError: an operation whose kind was left unset (None).
    """
    if type(op) is PutOp and not (op[4] or op[5]) and 0 < len(op[0]) <= KEY_BYTES_MAX:
        return  # most requests
    if isinstance(op, TxnOp):
        _count(op)
        _check_txn(op)
    else:
        _check_op(op)


def _check_key(key: bytes) -> None:
    if not key:
        raise EmptyKeyError
    if len(key) > KEY_BYTES_MAX:
        raise InvalidArgumentError(f"key is longer than {KEY_BYTES_MAX} bytes")


def _check_span(span: KeySpan) -> None:
    start, end = span
    # An empty start with an open end is the whole key space; with a closed one, a missing key.
    if not start and end is not None:
        raise EmptyKeyError
    if len(start) > KEY_BYTES_MAX or (end is not None and len(end) > KEY_BYTES_MAX + 1):
        raise InvalidArgumentError(f"key or range_end is longer than {KEY_BYTES_MAX} bytes")


def _check_op(op: RequestOp | None) -> None:
    if isinstance(op, PutOp):
        _check_key(op.key)
        if op.ignore_value and op.value:
            raise ValueProvidedError
        if op.ignore_lease and op.lease:
            raise LeaseProvidedError
    elif isinstance(op, RangeOp):
        _check_span(op.span)
        if not (0 <= op.sort_order <= _SORT_ORDER_MAX and 0 <= op.sort_target <= _SORT_TARGET_MAX):
            raise InvalidSortOptionError
    elif isinstance(op, DeleteOp):
        _check_span(op.span)
    else:
        raise KeyNotFoundError


def _count(outer: TxnOp) -> None:
    """Bound size and depth first, so that what follows is bounded too."""
    ops = compares = 0
    level = [outer]
    for _ in range(TXN_DEPTH_MAX):
        inner: list[TxnOp] = []
        for txn in level:
            compares += len(txn.compares)
            ops += len(txn.success) + len(txn.failure)
            if ops > TXN_OPS_MAX or compares > TXN_OPS_MAX:
                raise TooManyOpsError
            inner += [op for op in (*txn.success, *txn.failure) if isinstance(op, TxnOp)]
        if not inner:
            return
        level = inner
    raise TooManyOpsError


def _check_txn(op: TxnOp) -> None:
    _check_forms(op)
    _check_branch(op.success)
    _check_branch(op.failure)


def _check_forms(op: TxnOp) -> None:
    for compare in op.compares:
        _check_span(compare.span)
    for branch in (op.success, op.failure):
        for inner in branch:
            if isinstance(inner, TxnOp):
                _check_forms(inner)
            else:
                _check_op(inner)


def _check_branch(ops: tuple[RequestOp, ...]) -> tuple[set[bytes], list[KeySpan]]:
    """Refuse a branch that puts a key twice, or puts one that a delete covers (T14).

    Two combinations pass on purpose, as in etcd (T15): an open-ended delete conflicts with
    nothing, and a nested transaction's deletes are seen only by what comes after it.

    Returns:
        The keys put and the spans deleted, nested ones included.
    """
    deletes = [op.span for op in ops if isinstance(op, DeleteOp) and op.span.end is not None]
    puts: set[bytes] = set()
    for op in ops:
        if not isinstance(op, TxnOp):
            continue
        then_puts, then_deletes = _check_branch(op.success)
        else_puts, else_deletes = _check_branch(op.failure)
        # Only one of the two branches runs: they may put the same key.
        for key in then_puts | else_puts:
            if key in puts or _covered(key, deletes):
                raise DuplicateKeyError
        puts |= then_puts | else_puts
        deletes += then_deletes
        deletes += else_deletes
    for op in ops:
        if isinstance(op, PutOp):
            if op.key in puts or _covered(op.key, deletes):
                raise DuplicateKeyError
            puts.add(op.key)
    return puts, deletes


def _covered(key: bytes, spans: list[KeySpan]) -> bool:
    return any(span.holds(key) for span in spans)
