"""Range, wire/behaviour.md section 2."""

from __future__ import annotations

from typing import Any

import pytest
from mvcc_tools import ALL, delete, do, get, key, keys_of, kv, put, txn, values_of

from configsvc.errors import CompactedError, FutureRevError
from configsvc.mvcc.messages import RangeOp, RangeResult
from configsvc.mvcc.store import NeedHistory, Store
from configsvc.types import KeySpan


@pytest.fixture
def store() -> Store:
    """a..e at revisions 2-6, then c again at 7."""
    made = Store()
    do(made, *(put(k, v) for k, v in ((b"a", b"5"), (b"b", b"4"), (b"c", b"3"))))
    do(made, put(b"d", b"2", lease=9), leases={9})
    do(made, put(b"e", b"1"), put(b"c", b"33"))
    return made


def test_H2_an_empty_store_is_at_revision_1() -> None:
    store = Store()
    assert (store.revision, store.compact_revision) == (1, -1)
    assert do(store, put(b"k")).revision == 2


@pytest.mark.parametrize(
    ("k", "end", "expected"),
    [
        pytest.param(b"b", b"", [b"b"], id="R1-single"),
        pytest.param(b"x", b"", [], id="R1-single-absent"),
        pytest.param(b"b", b"d", [b"b", b"c"], id="R1-half-open"),
        pytest.param(b"c", b"\0", [b"c", b"d", b"e"], id="R1-from-key-on"),
        pytest.param(b"\0", b"\0", [b"a", b"b", b"c", b"d", b"e"], id="R1-everything"),
        pytest.param(b"c", b"c", [], id="R2-end-equals-key"),
        pytest.param(b"d", b"b", [], id="R2-end-below-key"),
        pytest.param(b"b\0", b"d", [b"c"], id="R3-bytewise"),
    ],
)
def test_R1_R2_R3_spans(store: Store, k: bytes, end: bytes, expected: list[bytes]) -> None:
    result = store.range(get(k, end))
    assert keys_of(result) == expected
    assert result.count == len(expected)
    assert not result.more


def test_R4_revisions(store: Store) -> None:
    assert values_of(store.range(get(b"c", revision=6)))[b"c"] == b"3"
    assert values_of(store.range(get(b"c", revision=0)))[b"c"] == b"33"
    assert values_of(store.range(get(b"c", revision=-7)))[b"c"] == b"33"
    assert keys_of(store.range(RangeOp(ALL, revision=3))) == [b"a", b"b"]
    with pytest.raises(FutureRevError):
        store.range(get(b"c", revision=8))
    store.compact(5)
    assert keys_of(store.range(RangeOp(ALL, revision=5))) == [b"a", b"b", b"c", b"d"]
    with pytest.raises(CompactedError):
        store.range(get(b"c", revision=4))


@pytest.mark.parametrize(
    ("options", "expected", "count", "more"),
    [
        ({"limit": 2}, b"ab", 5, True),
        ({"limit": 5}, b"abcde", 5, False),
        ({"limit": -1}, b"abcde", 5, False),
        ({"count_only": True, "limit": 1, "min_mod_revision": 6}, b"", 5, False),
        ({"min_mod_revision": 4}, b"cde", 5, False),
        ({"max_mod_revision": 6}, b"abde", 5, False),
        ({"min_create_revision": 3, "max_create_revision": 5}, b"bcd", 5, False),
        ({"min_mod_revision": 4, "max_mod_revision": 6, "limit": 1}, b"d", 5, True),
        ({"max_create_revision": 2, "limit": 1}, b"a", 5, False),
        ({"sort_order": 2}, b"edcba", 5, False),
        ({"sort_order": 2, "limit": 2}, b"ed", 5, True),
        ({"sort_order": 1, "sort_target": 4}, b"edcba", 5, False),
        ({"sort_order": 1, "sort_target": 3}, b"abdec", 5, False),
        ({"sort_order": 2, "sort_target": 1, "limit": 1}, b"c", 5, True),
        ({"sort_order": 2, "sort_target": 2}, b"edcba", 5, False),
        ({"sort_target": 4}, b"edcba", 5, False),
        ({"sort_target": 4, "limit": 2}, b"cb", 5, True),  # R11: of a, b, c only
        ({"sort_target": 4, "limit": 2, "min_mod_revision": 1}, b"ed", 5, True),
    ],
)
def test_R5_R6_R7_R9_R10_R11_R13(
    store: Store, options: dict[str, Any], expected: bytes, count: int, more: bool
) -> None:
    result = store.range(get(b"\0", b"\0", **options))
    assert b"".join(keys_of(result)) == expected
    assert (result.count, result.more) == (count, more)


def test_R8_keys_only_leaves_out_value_and_lease(store: Store) -> None:
    assert store.range(get(b"d", keys_only=True)).kvs == (kv(b"d", b"", 5, 5, 1),)
    by_value = get(b"d", b"e", keys_only=True, sort_target=4)
    assert store.range(by_value).kvs == (kv(b"d", b"", 5, 5, 1, lease=9),)


def test_R15_revisions_of_an_incarnation(store: Store) -> None:
    assert store.get(b"c") == kv(b"c", b"33", 4, 7, 2)
    do(store, delete(b"c"), put(b"c"))
    assert store.get(b"c") == kv(b"c", b"v", 9, 9, 1)
    do(store, txn(put(b"x"), put(b"y")))
    assert {store.get(k).mod_revision for k in (b"x", b"y")} == {10}  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{}, {"limit": 2}, {"sort_order": 2}, {"count_only": True}])
def test_old_reads_answer_from_the_tail(store: Store, options: dict[str, Any]) -> None:
    def at(revision: int) -> RangeResult:
        return store.range(RangeOp(ALL, revision=revision, **options))

    before = at(7)
    do(store, delete(b"a", b"d"), put(b"bb"), put(b"e"), delete(b"e"))
    assert at(7) == before
    assert at(8).count == 2


def test_reads_below_the_tail_are_asked_of_history(store: Store) -> None:
    store.load((), revision=10, compact_revision=3)
    do(store, put(b"k"))
    assert store.range(RangeOp(ALL, revision=10)).count == 0
    with pytest.raises(NeedHistory) as caught:
        store.range(RangeOp(ALL, revision=9))
    assert caught.value.revision == 9
    with pytest.raises(CompactedError):  # the floor is judged first
        store.range(RangeOp(ALL, revision=2))


def test_count_of_a_span_without_keys() -> None:
    store = Store()
    assert store.range(RangeOp(ALL, count_only=True)) == RangeResult((), 0, False)
    assert store.count(KeySpan(b"b", b"a")) == 0
    assert store.count(key(b"a")) == 0
