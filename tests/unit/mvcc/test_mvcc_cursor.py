"""Ranges in slices: one revision, whatever is written in between (RangeStream S3, S4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mvcc_tools import ALL, delete, do, put

from configsvc.errors import CompactedError, FutureRevError
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import KeyValue, RangeOp, Row, TxnOp
from configsvc.mvcc.store import NeedHistory, Store
from configsvc.mvcc.txn import stage_txn
from configsvc.types import KeySpan


def drain(cursor: RangeCursor, chunk: int) -> list[KeyValue]:
    found: list[KeyValue] = []
    while not cursor.done:
        found += cursor.next_chunk(chunk)
    return found


KEYS = st.sampled_from([b"a", b"b", b"bb", b"c", b"d"])
WRITES = st.lists(st.tuples(KEYS, st.booleans()), max_size=8)


@given(before=WRITES, since=WRITES, during=st.lists(WRITES, max_size=4), chunk=st.integers(1, 4))
def test_slices_are_of_one_revision(
    before: list[tuple[bytes, bool]],
    since: list[tuple[bytes, bool]],
    during: list[list[tuple[bytes, bool]]],
    chunk: int,
) -> None:
    store = Store()

    def write(ops: list[tuple[bytes, bool]]) -> None:
        for k, alive in ops:
            do(store, put(k, b"%d" % store.revision) if alive else delete(k))

    write(before)
    revision = store.revision
    write(since)
    span = KeySpan(b"a", b"d")
    wanted = store.range_at(RangeOp(span), revision)
    cursor = RangeCursor(store, span, revision)
    assert cursor.count == wanted.count
    found: list[KeyValue] = []
    for ops in during:
        found += cursor.next_chunk(chunk)
        write(ops)
        store.trim_tail(store.revision)
    found += drain(cursor, chunk)
    assert tuple(found) == wanted.kvs
    assert store.tail._pins == {}


def test_revision_zero_pins_the_present() -> None:
    store = Store()
    do(store, put(b"a"), put(b"b"))
    cursor = RangeCursor(store, ALL)
    assert [kv.key for kv in cursor.next_chunk(1)] == [b"a"]
    do(store, put(b"c"), delete(b"b"))
    assert [kv.key for kv in drain(cursor, 5)] == [b"b"]
    assert (cursor.revision, cursor.count, cursor.next_chunk(1)) == (3, 2, [])


def test_S4_compaction_ends_a_stream_but_not_a_range() -> None:
    store = Store()
    do(store, *(put(b"%d" % i) for i in range(5)))
    stream = RangeCursor(store, ALL, follow_floor=True)
    plain = RangeCursor(store, ALL)
    stream.next_chunk(1)
    plain.next_chunk(1)
    do(store, put(b"0"))
    store.compact(7)
    with pytest.raises(CompactedError):
        stream.next_chunk(1)
    assert len(drain(plain, 1)) == 4
    assert store.tail._pins == {}


def test_what_cannot_be_read_is_refused_at_once() -> None:
    store = Store()
    store.load((), revision=10, compact_revision=4)
    for revision, error in ((11, FutureRevError), (3, CompactedError), (5, NeedHistory)):
        with pytest.raises(error):
            RangeCursor(store, ALL, revision)
    assert store.tail._pins == {}


def test_empty_spans_and_early_close_hold_nothing() -> None:
    store = Store()
    do(store, put(b"a"))
    empty = RangeCursor(store, KeySpan(b"b", b"a"))
    assert (empty.done, empty.count) == (True, 0)
    cursor = RangeCursor(store, ALL)
    cursor.close()
    cursor.close()
    assert (store.tail._pins, cursor.next_chunk(3)) == ({}, [])


def test_an_install_under_an_open_cursor_sends_it_to_history() -> None:
    store = Store()
    do(store, put(b"a"), put(b"b"))
    cursor, idle = RangeCursor(store, ALL), RangeCursor(store, ALL)
    cursor.next_chunk(1)
    store.load((), revision=9, compact_revision=-1)
    with pytest.raises(NeedHistory):
        cursor.next_chunk(1)
    assert cursor.position == b"a\0"
    idle.close()


def test_rows_may_come_in_slices_and_any_order() -> None:
    rows = [Row(i + 2, 0, b"%03d" % i, b"v", i + 2, 1, 0, False) for i in range(300)]
    loaded = LiveRows()
    for at in (200, 0, 100):
        loaded.add(rows[at : at + 100])
    sliced, whole = Store(), Store()
    sliced.adopt(loaded, 400, 5)
    whole.load(rows, 400, 5)
    assert sliced.live == whole.live
    assert list(sliced.keys) == list(whole.keys) == sorted(whole.live)
    assert (sliced.db_bytes, sliced.tail_floor) == (whole.db_bytes, 400)


def test_the_count_is_of_the_revision_whatever_a_transaction_did_since() -> None:
    store = Store()
    do(store, put(b"a"), put(b"b"), put(b"c"))
    revision = store.revision
    txn = TxnOp((), (delete(b"a", b"c"), put(b"a"), put(b"d")), ())
    store.commit(stage_txn(store, txn, ()))
    do(store, put(b"c"), delete(b"d"), put(b"e"), put(b"e"))
    cursor = RangeCursor(store, ALL, revision)
    assert cursor.count == 3
    assert [kv.key for kv in drain(cursor, 2)] == [b"a", b"b", b"c"]
    assert store.count(ALL) == 3  # a, c, e: as many, and others


def test_a_span_that_was_deleted_comes_in_chunks_no_larger_than_asked_for() -> None:
    store = Store()
    do(store, *(put(b"%02d" % n) for n in range(20)))
    cursor = RangeCursor(store, ALL)
    do(store, delete(b"\0", b"\xff"))
    sizes = []
    while not cursor.done:
        sizes.append(len(cursor.next_chunk(5)))
    assert (sum(sizes), max(sizes)) == (20, 5)
