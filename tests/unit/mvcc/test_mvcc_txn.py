"""Transactions, wire/behaviour.md section 6 (form: test_mvcc_shape)."""

from __future__ import annotations

from typing import Any

import pytest
from mvcc_tools import (
    CREATE,
    EQUAL,
    GREATER,
    LEASE,
    LESS,
    MOD,
    NOT_EQUAL,
    VALUE,
    VERSION,
    compare,
    delete,
    do,
    get,
    keys_of,
    kv,
    put,
    stage,
    txn,
    values_of,
)

from configsvc.errors import (
    CompactedError,
    FutureRevError,
    InvariantViolationError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from configsvc.mvcc.messages import (
    Compare,
    DeferredRange,
    DeleteResult,
    PutResult,
    RangeResult,
    TxnResult,
)
from configsvc.mvcc.store import Store
from configsvc.mvcc.txn import read_txn


@pytest.fixture
def store() -> Store:
    """a=1 (twice), b=2 with lease 7; at revision 4."""
    made = Store()
    do(made, put(b"a", b"0"), put(b"a", b"1"))
    do(made, put(b"b", b"2", lease=7), leases={7})
    return made


def succeeded(store: Store, *when: Compare) -> bool:
    return read_txn(store, txn(when=when)).succeeded


@pytest.mark.parametrize(
    ("k", "target", "result", "operand", "expected"),
    [
        (b"a", VERSION, EQUAL, 2, True),
        (b"a", CREATE, EQUAL, 2, True),
        (b"a", MOD, EQUAL, 3, True),
        (b"a", VALUE, EQUAL, b"1", True),
        (b"b", LEASE, EQUAL, 7, True),
        (b"a", MOD, GREATER, 2, True),
        (b"a", MOD, GREATER, 3, False),
        (b"a", MOD, LESS, 4, True),
        (b"a", MOD, NOT_EQUAL, 3, False),
        (b"a", VALUE, LESS, b"10", True),
        (b"a", VALUE, GREATER, b"", True),
        pytest.param(b"x", VERSION, EQUAL, 0, True, id="T2-missing-is-zero"),
        pytest.param(b"x", CREATE, EQUAL, 0, True, id="T2-missing-create"),
        pytest.param(b"x", MOD, GREATER, 0, False, id="T2-missing-mod"),
        pytest.param(b"x", LEASE, EQUAL, 0, True, id="T2-missing-lease"),
        pytest.param(b"x", VALUE, EQUAL, b"", False, id="T2-missing-value"),
        pytest.param(b"x", VALUE, NOT_EQUAL, b"1", False, id="T2-missing-value-unequal"),
        pytest.param(b"a", VALUE, NOT_EQUAL, b"", True, id="T4-unset-is-empty"),
        pytest.param(b"a", VERSION, 9, 77, True, id="T5-result-outside-enum"),
        pytest.param(b"x", VALUE, 9, b"", False, id="T5-but-missing-value-fails"),
        pytest.param(b"a", 9, EQUAL, 0, True, id="target-outside-enum-is-equal"),
        pytest.param(b"a", 9, LESS, 0, False, id="target-outside-enum-is-not-less"),
    ],
)
def test_T1_T2_T4_T5_compares(
    store: Store, k: bytes, target: int, result: int, operand: int | bytes, expected: bool
) -> None:
    assert succeeded(store, compare(k, target, result, operand)) is expected


def test_T1_all_must_hold(store: Store) -> None:
    good = compare(b"a", VERSION, EQUAL, 2)
    bad = compare(b"a", VERSION, EQUAL, 3)
    assert succeeded(store)
    assert succeeded(store, good, good)
    assert not succeeded(store, good, bad)


def test_T3_ranges_of_compares(store: Store) -> None:
    assert succeeded(store, compare(b"a", MOD, GREATER, 2, b"c"))
    assert not succeeded(store, compare(b"a", MOD, GREATER, 3, b"c"))
    assert succeeded(store, compare(b"x", VERSION, EQUAL, 0, b"y"))
    assert not succeeded(store, compare(b"x", VALUE, NOT_EQUAL, b"", b"y"))
    assert succeeded(store, compare(b"\0", MOD, GREATER, 2, b"\0"))


def test_T6_nested_compares_see_the_state_before(store: Store) -> None:
    inner = txn(put(b"yes"), when=(compare(b"new", VERSION, EQUAL, 0),), otherwise=(put(b"no"),))
    result: Any = do(store, txn(put(b"new"), inner))
    assert result.responses[1].succeeded
    assert store.get(b"yes") is not None


def test_T7_ops_see_earlier_writes(store: Store) -> None:
    result: Any = do(
        store,
        txn(
            get(b"a"), put(b"c", b"3"), get(b"a", b"z"), delete(b"a", prev_kv=True), get(b"a", b"z")
        ),
    )
    before, _, middle, deleted, after = result.responses
    assert values_of(before) == {b"a": b"1"}
    assert keys_of(middle) == [b"a", b"b", b"c"]
    assert deleted.prevs == (kv(b"a", b"1", 2, 3, 2),)
    assert (keys_of(after), after.count) == ([b"b", b"c"], 2)


def test_H5_revisions_of_sub_responses(store: Store) -> None:
    result: Any = do(store, txn(get(b"a"), delete(b"x"), put(b"c"), get(b"a"), delete(b"x")))
    assert [r.revision for r in result.responses] == [4, 4, 5, 5, 5]
    assert result.revision == 5


def test_T8_one_revision_and_subs_in_op_order(store: Store) -> None:
    staged = stage(store, txn(put(b"z"), txn(put(b"y")), delete(b"a", b"c"), put(b"d")))
    assert [(row.revision, row.sub, row.key, row.tombstone) for row in staged.rows] == [
        (5, 0, b"z", False),
        (5, 1, b"y", False),
        (5, 2, b"a", True),
        (5, 3, b"b", True),
        (5, 4, b"d", False),
    ]
    assert staged.prevs == (None, None, store.get(b"a"), store.get(b"b"), None)


@pytest.mark.parametrize(
    "op", [txn(), txn(get(b"a")), txn(delete(b"x")), txn(txn(delete(b"x")), get(b"a"))]
)
def test_T9_nothing_written_nothing_bumped(store: Store, op: Any) -> None:
    assert do(store, op).revision == 4
    assert store.revision == 4


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (put(b"q", lease=8), LeaseNotFoundError),
        (put(b"new", b"", ignore_value=True), KeyNotFoundError),
        (get(b"a", revision=5), FutureRevError),
        (get(b"a", revision=2), CompactedError),
        (get(b"a", revision=-1), CompactedError),
        (txn(put(b"q", lease=8)), LeaseNotFoundError),
    ],
)
def test_T10_T11_an_error_rejects_the_whole_txn(
    store: Store, op: Any, error: type[Exception]
) -> None:
    store.compact(3)
    with pytest.raises(error):
        stage(store, txn(put(b"new2"), txn(put(b"new3")), op), leases={7})
    assert (store.revision, store.get(b"new2")) == (4, None)


def test_T10_only_the_chosen_path_is_checked(store: Store) -> None:
    do(store, txn(put(b"c"), otherwise=(put(b"c", lease=99),)))
    assert store.get(b"c") is not None


def test_T11_minus_one_is_fine_before_any_compaction(store: Store) -> None:
    result: Any = do(store, txn(get(b"a", revision=-1)))
    assert values_of(result.responses[0]) == {b"a": b"1"}
    with pytest.raises(CompactedError):
        do(store, txn(get(b"a", revision=-2)))


def test_ranges_at_older_revisions_are_deferred(store: Store) -> None:
    old = get(b"a", revision=2)
    now = get(b"a", revision=4)
    result: Any = do(store, txn(now, old, put(b"a", b"9"), now))
    assert result.responses[0] == RangeResult((kv(b"a", b"1", 2, 3, 2),), 1, False, 4)
    assert result.responses[1] == DeferredRange(old, 4)
    assert result.responses[3] == DeferredRange(now, 5)


def test_T15_accepted_combinations_run_in_order(store: Store) -> None:
    do(store, txn(put(b"k", b"1"), delete(b"k", b"\0")))
    assert store.get(b"k") is None
    do(store, txn(delete(b"a", b"\0"), put(b"b", b"again")))
    assert store.get(b"b") == kv(b"b", b"again", 6, 6, 1)
    assert store.range_at(get(b"b"), 5).kvs == (kv(b"b", b"2", 4, 4, 1, 7),)
    with pytest.raises(KeyNotFoundError):
        do(store, txn(delete(b"b", b"\0"), put(b"b", b"", ignore_value=True)))


def test_T18_responses_match_the_branch(store: Store) -> None:
    op = txn(
        put(b"c"),
        when=(compare(b"a", VERSION, EQUAL, 1),),
        otherwise=(delete(b"a"), txn(get(b"a")), put(b"c", prev_kv=True)),
    )
    assert do(store, op) == TxnResult(
        5,
        False,
        (
            DeleteResult(5, 1, ()),
            TxnResult(5, True, (RangeResult((), 0, False, 5),)),
            PutResult(5, None),
        ),
    )


def test_read_txn_refuses_to_have_written(store: Store) -> None:
    with pytest.raises(InvariantViolationError):
        read_txn(store, txn(put(b"c")))


def test_W16_each_row_carries_the_value_before_the_revision(store: Store) -> None:
    before = store.get(b"a")
    staged = stage(store, txn(put(b"a", b"9"), delete(b"a", b"\0"), put(b"z")))
    assert [row.key for row in staged.rows] == [b"a", b"a", b"b", b"z"]
    assert staged.prevs == (before, before, store.get(b"b"), None)
