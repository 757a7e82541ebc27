"""Put, delete, compaction, size: wire/behaviour.md sections 4, 5, 7."""

from __future__ import annotations

import pytest
from mvcc_tools import ALL, delete, do, get, keys_of, kv, put, stage, txn

from configsvc.errors import (
    CompactedError,
    FutureRevError,
    InvariantViolationError,
    KeyNotFoundError,
    LeaseNotFoundError,
    LeaseProvidedError,
    ValueProvidedError,
)
from configsvc.mvcc.messages import DeleteResult, PutResult, RangeOp, Row
from configsvc.mvcc.store import LeaseMove, Store
from configsvc.mvcc.window import ROW_BYTES, SAMPLES_MAX, Window


def test_P1_the_same_value_is_a_new_revision() -> None:
    store = Store()
    do(store, put(b"k"), put(b"k"))
    assert store.get(b"k") == kv(b"k", b"v", 2, 3, 2)
    do(store, put(b"k", b""))
    assert store.get(b"k") == kv(b"k", b"", 2, 4, 3)


def test_P2_previous_value() -> None:
    store = Store()
    assert do(store, put(b"k", prev_kv=True)) == PutResult(2, None)
    assert do(store, put(b"k", b"w", prev_kv=True)) == PutResult(3, kv(b"k", b"v", 2, 2, 1))
    assert do(store, put(b"k", b"w")) == PutResult(4, None)


def test_P3_ignore_flags() -> None:
    store = Store()
    for op in (put(b"k", b"", ignore_value=True), put(b"k", ignore_lease=True)):
        with pytest.raises(KeyNotFoundError):
            do(store, op)
    with pytest.raises(ValueProvidedError):
        do(store, put(b"k", b"x", ignore_value=True))
    with pytest.raises(LeaseProvidedError):
        do(store, put(b"k", lease=5, ignore_lease=True))
    do(store, put(b"k", b"v", lease=5), leases={5, 6})
    do(store, put(b"k", b"w", ignore_lease=True))
    assert store.get(b"k") == kv(b"k", b"w", 2, 3, 2, 5)
    do(store, put(b"k", b"", lease=6, ignore_value=True), leases={5, 6})
    assert store.get(b"k") == kv(b"k", b"w", 2, 4, 3, 6)


def test_P4_lease_is_judged_before_the_key() -> None:
    with pytest.raises(LeaseNotFoundError):
        do(Store(), put(b"k", b"", lease=5, ignore_value=True))


def test_P5_L12_lease_moves() -> None:
    store = Store()

    def moves(op: object) -> list[LeaseMove] | None:
        return store.commit(stage(store, op, leases={5, 6}))

    assert moves(put(b"k", lease=5)) == [LeaseMove(b"k", 0, 5)]
    assert moves(put(b"k", lease=5)) is None
    assert moves(put(b"k", lease=6)) == [LeaseMove(b"k", 5, 6)]
    assert moves(put(b"k", ignore_lease=True)) is None
    assert moves(put(b"k")) == [LeaseMove(b"k", 6, 0)]
    assert moves(put(b"k", lease=6)) == [LeaseMove(b"k", 0, 6)]
    assert moves(delete(b"k")) == [LeaseMove(b"k", 6, 0)]


def test_D1_D2_deletes() -> None:
    store = Store()
    do(store, put(b"b", b"1"), put(b"a", b"2"), put(b"c", b"3"))
    assert do(store, delete(b"x")) == DeleteResult(4, 0, ())
    staged = stage(store, delete(b"a", b"c", prev_kv=True))
    assert staged.rows == (
        Row(5, 0, b"a", b"", 0, 0, 0, True),
        Row(5, 1, b"b", b"", 0, 0, 0, True),
    )
    store.commit(staged)
    assert staged.result == DeleteResult(5, 2, (kv(b"a", b"2", 3, 3, 1), kv(b"b", b"1", 2, 2, 1)))
    assert (store.revision, keys_of(store.range(get(b"\0", b"\0")))) == (5, [b"c"])


def test_a_staged_change_is_made_once() -> None:
    store = Store()
    staged = stage(store, put(b"k"))
    store.commit(staged)
    with pytest.raises(InvariantViolationError):
        store.commit(staged)


def test_C1_C2_C3_compaction() -> None:
    store = Store()
    do(store, put(b"k", b"1"), put(b"k", b"2"), put(b"j"))
    with pytest.raises(FutureRevError):
        store.compact(5)
    store.compact(3)
    assert store.revision == 4
    assert store.range(get(b"k", revision=3)).kvs[0].value == b"2"
    with pytest.raises(CompactedError):
        store.compact(3)


def test_C2_compact_zero_works_once() -> None:
    store = Store()
    store.compact(0)
    assert store.compact_revision == 0
    with pytest.raises(CompactedError):
        store.compact(0)


def test_D6_size_counts_the_window_and_comes_down() -> None:
    store = Store()
    row = ROW_BYTES + 1 + 100
    do(store, *(put(b"k", b"x" * 100) for _ in range(10)))
    assert store.db_bytes == 10 * row
    store.compact(5)
    assert abs(store.db_bytes - 7 * row) < row  # between samples: approximate
    store.compact(11)
    assert store.db_bytes == row
    do(store, delete(b"k"))
    assert store.db_bytes == row + ROW_BYTES + 1
    store.compact(12)
    assert store.db_bytes == 0


def test_size_after_a_start_is_exact_at_the_present() -> None:
    store = Store()
    store.load([Row(50, 0, b"k", b"abc", 50, 1, 0, False)], 50, 10, superseded_bytes=4_000)
    assert store.db_bytes == 4_000 + ROW_BYTES + 4
    store.compact(30)
    assert store.db_bytes == 2_000 + ROW_BYTES + 4
    store.compact(50)
    assert store.db_bytes == ROW_BYTES + 4


def test_size_samples_stay_bounded_and_close() -> None:
    window = Window(0, 0, 1, 1)
    last = 400_000
    for revision in range(2, last + 1):
        window.change(revision, 10, 10)
    assert len(window._samples) < SAMPLES_MAX
    window.compact(last // 2, last)
    assert abs(window.total - 10 * (last // 2)) < 10 * 300


def test_tail_gives_back_only_what_sql_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.mvcc.tail.TAIL_ROWS_MAX", 3)
    store = Store()
    do(store, *(put(b"k%d" % i) for i in range(8)))  # revisions 2-9
    assert store.trim_tail(1) == 0
    assert (store.trim_tail(4), store.tail_floor, len(store.tail)) == (3, 4, 5)
    assert (store.trim_tail(9), store.tail_floor, len(store.tail)) == (2, 6, 3)
    assert store.trim_tail(9) == 0
    assert store.range_at(RangeOp(ALL, count_only=True), 6).count == 5


def test_tail_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.mvcc.tail.TAIL_BYTES_MAX", 10_000)
    store = Store()
    do(store, *(put(b"k", b"x" * 1_000) for _ in range(20)))
    store.trim_tail(21)
    assert 0 < store.tail.byte_count <= 10_000


def test_tail_keeps_what_is_pinned_and_whole_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.mvcc.tail.TAIL_ROWS_MAX", 0)
    store = Store()
    do(store, put(b"a"), txn(put(b"a"), put(b"b"), put(b"c")), put(b"d"))  # 2, 3, 4
    store.tail.pin(3)
    store.tail.pin(3)
    assert (store.trim_tail(4), store.tail_floor) == (4, 3)
    store.tail.unpin(3)
    assert store.trim_tail(4) == 0
    store.tail.unpin(3)
    assert (store.trim_tail(4), len(store.tail)) == (1, 0)
    with pytest.raises(InvariantViolationError):
        store.tail.unpin(3)


def test_compaction_frees_the_tail_below_the_floor() -> None:
    store = Store()
    do(store, *(put(b"k") for _ in range(8)))
    store.compact(6)
    assert store.trim_tail(9) == 4  # revisions 2-5
    assert store.range(get(b"k", revision=6)).kvs[0].mod_revision == 6


def test_tail_never_splits_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.mvcc.tail.TAIL_ROWS_MAX", 3)
    store = Store()
    do(store, put(b"a"), txn(put(b"b"), put(b"c"), put(b"d")))
    assert (store.trim_tail(3), store.tail_floor, len(store.tail)) == (1, 2, 3)
    assert store.range_at(RangeOp(ALL), 2).count == 1
    do(store, put(b"e"))
    assert (store.trim_tail(4), store.tail_floor, len(store.tail)) == (3, 3, 1)
