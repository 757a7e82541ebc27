"""Matching of watchers: wire/behaviour.md W13-W18; catch-up from the tail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mvcc_tools import ALL, delete, do, kv, put, stage, txn

from configsvc.errors import InvariantViolationError
from configsvc.mvcc.messages import Event
from configsvc.mvcc.store import NeedHistory, Store
from configsvc.mvcc.watch import NO_DELETE, NO_PUT, Batch, WatchIndex
from configsvc.types import KeySpan, span_of


def told(batches: Sequence[Batch]) -> dict[int, list[tuple[int, list[bytes]]]]:
    """Watcher -> (revision, keys)."""
    return {
        watcher: [(revision, [e.row.key for e in events]) for revision, events in batch.revisions]
        for batch in batches
        for watcher in batch.group.watchers
    }


def feed(index: WatchIndex, store: Store, op: object) -> Sequence[Batch]:
    staged = stage(store, op, leases={5})
    store.commit(staged)
    return index.match(staged.rows, staged.prevs)


def test_every_kind_of_span_is_found() -> None:
    index, store = WatchIndex(), Store()
    index.register(1, span_of(b"/a/k", b""))
    index.register(2, span_of(b"/a/", b"/a0"))
    index.register(3, span_of(b"/a/j", b"/a/m"))
    index.register(4, span_of(b"/a/k", b"\0"))
    index.register(5, ALL)
    index.register(6, span_of(b"/b/", b"/b0"))
    index.register(7, span_of(b"\xff", b"\0"))
    assert told(feed(index, store, put(b"/a/k"))) == {w: [(2, [b"/a/k"])] for w in (1, 2, 3, 4, 5)}
    assert set(told(feed(index, store, put(b"/a/")))) == {2, 5}
    assert set(told(feed(index, store, put(b"\xff\xff")))) == {4, 5, 7}
    for watcher in range(1, 8):
        assert index.unregister(watcher)
    assert not index.unregister(1)
    assert feed(index, store, put(b"/a/k")) == []
    assert len(index) == 0


def test_equal_watchers_share_one_batch() -> None:
    index, store = WatchIndex(), Store()
    groups = [index.register(i, span_of(b"p", b"q")) for i in range(50)]
    assert len({id(group) for group in groups}) == 1
    other = index.register(50, span_of(b"p", b"q"), prev_kv=True)
    batches = feed(index, store, put(b"pp"))
    assert [b.group for b in batches] == [groups[0], other]
    assert batches[0].revisions[0][1][0] is batches[1].revisions[0][1][0]
    with pytest.raises(InvariantViolationError):
        index.register(50, ALL)
    with pytest.raises(InvariantViolationError):
        index.register(51, span_of(b"b", b"a"))


def test_W13_W20_whole_revisions_in_order() -> None:
    index, store = WatchIndex(), Store()
    index.register(1, ALL)
    first = stage(store, txn(put(b"b"), put(b"a")))
    store.commit(first)
    second = stage(store, delete(b"a", b"c"))
    store.commit(second)
    batches = index.match(first.rows + second.rows, first.prevs + second.prevs)
    assert told(batches) == {1: [(2, [b"b", b"a"]), (3, [b"a", b"b"])]}


def test_W15_W16_previous_values() -> None:
    index, store = WatchIndex(), Store()
    index.register(1, ALL, prev_kv=True)

    def prev(op: object) -> object:
        (batch,) = feed(index, store, op)
        return [event.prev for event in batch.revisions[0][1]]

    first = kv(b"k", b"v", 2, 2, 1)
    assert prev(put(b"k")) == [None]
    assert prev(put(b"k", b"w")) == [first]
    assert prev(txn(delete(b"k", b"\0"), put(b"k"))) == [kv(b"k", b"w", 2, 3, 2), None]


def test_W17_filters() -> None:
    index, store = WatchIndex(), Store()
    index.register(1, ALL, NO_PUT)
    index.register(2, ALL, NO_DELETE)
    index.register(3, ALL, NO_PUT | NO_DELETE)
    assert set(told(feed(index, store, put(b"k")))) == {2}
    assert set(told(feed(index, store, delete(b"k")))) == {1}
    assert told(feed(index, store, txn(put(b"a"), delete(b"k"), put(b"b")))) == {
        2: [(4, [b"a", b"b"])]
    }


def test_many_prefix_lengths_spill_into_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.mvcc.watch.PREFIX_LENGTHS_MAX", 3)
    index, store = WatchIndex(), Store()
    spans = [span_of(b"x" * n, b"x" * (n - 1) + b"y") for n in range(1, 8)]
    for watcher, span in enumerate(spans):
        index.register(watcher, span)
    assert set(told(feed(index, store, put(b"xxxx")))) == {0, 1, 2, 3}
    for watcher in (0, 5, 6):
        index.unregister(watcher)
    assert set(told(feed(index, store, put(b"x" * 9)))) == {1, 2, 3, 4}
    for watcher in (1, 2, 3, 4):
        index.unregister(watcher)
    assert len(index) == 0


KEYS = st.binary(max_size=3).map(lambda b: bytes(x % 3 + 0xFD for x in b) if b else b"a")
SPANS = st.tuples(KEYS, st.one_of(KEYS, st.none())).map(lambda t: KeySpan(*t))


@given(
    spans=st.lists(SPANS.filter(lambda s: not s.is_empty()), max_size=12),
    gone=st.sets(st.integers(0, 11)),
    keys=st.lists(KEYS, min_size=1, max_size=6),
)
def test_index_agrees_with_looking_at_every_watcher(
    spans: list[KeySpan], gone: set[int], keys: list[bytes]
) -> None:
    index, store = WatchIndex(), Store()
    for watcher, span in enumerate(spans):
        index.register(watcher, span)
    kept = {w: s for w, s in enumerate(spans) if w not in gone}
    for watcher in gone:
        index.unregister(watcher)
    for k in keys:
        found = told(feed(index, store, put(k)))
        assert set(found) == {w for w, span in kept.items() if span.holds(k)}


# --- catch-up ------------------------------------------------------------------------------------


def test_W9_W14_catch_up_in_whole_revisions() -> None:
    store = Store()
    do(store, put(b"a"), txn(put(b"a"), put(b"b"), put(b"z")), put(b"b"), delete(b"a"))
    found = store.events_since(2, 2, span_of(b"a", b"c"))
    assert [(r, [e.row.key for e in events]) for r, events in found.batches] == [
        (2, [b"a"]),
        (3, [b"a", b"b"]),
    ]
    assert found.next_revision == 4
    rest = store.events_since(4, 1000, span_of(b"a", b"c"))
    assert [r for r, _ in rest.batches] == [4, 5]
    assert rest.next_revision == 6
    assert store.events_since(6, 1000).batches == []
    assert store.events_since(2, 1000, span_of(b"x", b"")).batches == []


def test_W16_catch_up_has_no_previous_value_from_below_the_floor() -> None:
    store = Store()
    do(store, put(b"k"), put(b"k"), put(b"k"))
    store.compact(3)

    def prevs() -> list[object]:
        return [e.prev for _, events in store.events_since(3, 9).batches for e in events]

    assert prevs() == [None, kv(b"k", b"v", 2, 3, 2)]


def test_catch_up_below_the_tail_is_asked_of_history() -> None:
    store = Store()
    store.load((), revision=10, compact_revision=-1)
    with pytest.raises(NeedHistory):
        store.events_since(10, 9)
    assert store.events_since(11, 9).batches == []
    do(store, put(b"k"))
    (batch,) = store.events_since(11, 9).batches
    assert batch == (11, [Event(store.tail.rows_from(11)[0][0], None)])
