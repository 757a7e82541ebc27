"""Form of requests and the walk: wire/behaviour.md R1, R12, T12-T17; security.md N2, N27."""

from __future__ import annotations

from typing import Any

import pytest
from mvcc_tools import EQUAL, VERSION, compare, delete, get, put, txn

from configsvc.errors import (
    DuplicateKeyError,
    EmptyKeyError,
    InvalidArgumentError,
    InvalidSortOptionError,
    KeyNotFoundError,
    TooManyOpsError,
)
from configsvc.limits import KEY_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX
from configsvc.mvcc.messages import TxnOp
from configsvc.mvcc.shape import (
    COMPARE,
    DELETE,
    PUT,
    RANGE,
    all_serializable,
    check_request,
    is_write,
    quota_cost,
    walk,
)
from configsvc.types import KeySpan

LONG = b"k" * (KEY_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (put(b""), EmptyKeyError),
        (get(b""), EmptyKeyError),
        (get(b"", b"x"), EmptyKeyError),
        (delete(b""), EmptyKeyError),
        (txn(when=(compare(b"", VERSION, EQUAL, 0),)), EmptyKeyError),
        (put(LONG), InvalidArgumentError),
        (get(LONG), InvalidArgumentError),
        (delete(b"a", LONG + b"x"), InvalidArgumentError),
        (get(b"k", sort_order=3), InvalidSortOptionError),
        (get(b"k", sort_target=5), InvalidSortOptionError),
        (get(b"k", sort_target=-1), InvalidSortOptionError),
        (None, KeyNotFoundError),
    ],
)
def test_R1_R12_T12_refused_alone_and_in_either_branch(op: Any, error: type[Exception]) -> None:
    for request in (op, txn(op), txn(otherwise=(op,)), txn(txn(otherwise=(txn(op),)))):
        with pytest.raises(error):
            check_request(request)


@pytest.mark.parametrize("op", [put(LONG[1:]), get(LONG[1:]), get(b"\0", b"\0"), get(b"b", b"a")])
def test_at_the_bound_passes(op: Any) -> None:
    check_request(txn(op))


def nested(depth: int) -> TxnOp:
    op = txn(put(b"k"))
    for _ in range(depth - 1):
        op = txn(op)
    return op


@pytest.mark.parametrize(
    ("op", "allowed"),
    [
        (txn(*(put(b"%d" % i) for i in range(TXN_OPS_MAX))), True),
        (txn(*(put(b"%d" % i) for i in range(TXN_OPS_MAX + 1))), False),
        (txn(*[get(b"k")] * 100, otherwise=tuple([get(b"k")] * 29)), False),
        (txn(txn(*[get(b"k")] * 100), *[get(b"k")] * 27), True),
        (txn(txn(*[get(b"k")] * 100), *[get(b"k")] * 28), False),
        (txn(when=tuple([compare(b"k", VERSION, EQUAL, 0)] * TXN_OPS_MAX)), True),
        (txn(when=tuple([compare(b"k", VERSION, EQUAL, 0)] * (TXN_OPS_MAX + 1))), False),
        (nested(TXN_DEPTH_MAX), True),
        (nested(TXN_DEPTH_MAX + 1), False),
    ],
)
def test_T13_LIM12_operations_and_depth_are_counted_in_all(op: TxnOp, allowed: bool) -> None:
    if allowed:
        check_request(op)
    else:
        with pytest.raises(TooManyOpsError):
            check_request(op)


@pytest.mark.parametrize(
    ("ops", "allowed"),
    [
        ((put(b"k"), put(b"k")), False),
        ((put(b"k"), delete(b"k")), False),
        ((delete(b"k"), put(b"k")), False),
        ((delete(b"a", b"z"), put(b"k")), False),
        ((put(b"k"), delete(b"a", b"k")), True),
        ((delete(b"k"), delete(b"a", b"z")), True),
        ((get(b"k"), put(b"k"), get(b"a", b"z")), True),
        ((txn(put(b"k")), put(b"k")), False),
        ((put(b"k"), txn(put(b"k"))), False),
        ((txn(put(b"k"), otherwise=(put(b"k"),)),), True),
        ((txn(put(b"k")), txn(otherwise=(put(b"k"),))), False),
        ((txn(txn(put(b"k"))), put(b"k")), False),
        ((delete(b"k"), txn(put(b"k"))), False),
        ((txn(put(b"k")), delete(b"k")), False),
        # the gaps (T15)
        ((put(b"k"), delete(b"k", b"\0")), True),
        ((txn(put(b"k")), txn(delete(b"k"))), True),
        ((txn(delete(b"k")), txn(put(b"k"))), False),
        ((put(b"k"), delete(b"k", b"a")), True),
    ],
)
def test_T14_T15_duplicates(ops: tuple[Any, ...], allowed: bool) -> None:
    for request in (txn(*ops), txn(otherwise=ops), txn(txn(*ops))):
        if allowed:
            check_request(request)
        else:
            with pytest.raises(DuplicateKeyError):
                check_request(request)


def test_T14_branches_do_not_conflict() -> None:
    check_request(txn(put(b"k"), otherwise=(put(b"k"),)))


def test_N2_the_walk_sees_every_operation() -> None:
    inner = txn(
        delete(b"d", b"e"), when=(compare(b"c2", VERSION, EQUAL, 0),), otherwise=(get(b"g"),)
    )
    request = txn(
        put(b"p"), inner, when=(compare(b"c1", VERSION, EQUAL, 0),), otherwise=(put(b"q"),)
    )
    assert [(v.kind, v.span.start, v.depth) for v in walk(request)] == [
        (COMPARE, b"c1", 1),
        (PUT, b"p", 1),
        (COMPARE, b"c2", 2),
        (DELETE, b"d", 2),
        (RANGE, b"g", 2),
        (PUT, b"q", 1),
    ]


def test_N4_what_is_judged_is_the_object_that_runs() -> None:
    op = delete(b"k", b"\0")
    (visit,) = walk(op)
    assert visit.span is op.span
    assert visit.span == KeySpan(b"k", None)
    assert walk(put(b"k"))[0].span == KeySpan(b"k", b"k\0")


def test_N27_quota_charges_nested_puts_of_both_branches() -> None:
    one = put(b"k", b"x" * 10)
    assert quota_cost(one) == 256 + 1 + 10
    assert quota_cost(txn(one, txn(one, otherwise=(one,)), delete(b"k"))) == 3 * 267
    assert quota_cost(delete(b"k")) == quota_cost(txn(get(b"k"))) == 0


def test_T16_T17_classes() -> None:
    assert is_write(txn(get(b"k"), otherwise=(delete(b"k"),)))
    assert is_write(txn(txn()))
    assert is_write(put(b"k"))
    assert not is_write(txn(get(b"k")))
    assert not is_write(get(b"k"))
    assert all_serializable(txn())
    assert all_serializable(txn(get(b"k", serializable=True)))
    assert not all_serializable(txn(get(b"k", serializable=True), get(b"k")))
