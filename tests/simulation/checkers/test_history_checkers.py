"""The checkers themselves: good histories pass, planted lies do not, both oracles agree."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from configsvc.types import KeySpan
from tests.simulation.checkers.history import BrokenHistory, Change, Operation, WatchHistory
from tests.simulation.checkers.revision_checker import check, check_watch
from tests.simulation.checkers.wgl import linearizable

SPAN = KeySpan(b"k", b"l")


def history(seed: int, *, length: int = 60) -> tuple[list[Operation], list[Change]]:
    """A true history of overlapping calls on a few keys."""
    rng = random.Random(seed)
    values: dict[bytes, tuple[int, bytes | None]] = {}
    changes: list[Change] = []
    operations: list[Operation] = []
    revision, now = 1, 0
    for number in range(length):
        now += 10
        key = b"k%d" % rng.randrange(2)
        kind = rng.choice(("put", "put", "delete", "read", "read"))
        _, value = values.get(key, (0, None))
        op = Operation(kind, key, called=now - rng.randrange(9), returned=now + rng.randrange(9))
        op.acknowledged = rng.random() < 0.85 or kind == "read"
        if kind == "put":
            revision += 1
            op.value = b"%d" % number
            values[key] = (revision, op.value)
            changes.append(Change(revision, key, op.value))
        elif kind == "delete":
            op.succeeded = value is not None
            if value is not None:
                revision += 1
                values[key] = (revision, None)
                changes.append(Change(revision, key, None))
        else:
            op.seen = value
        op.revision = revision if op.acknowledged else 0
        if not op.acknowledged:
            op.returned = 2**63
        operations.append(op)
    return operations, changes


@pytest.mark.parametrize("seed", range(30))
def test_true_histories_pass_both_oracles(seed: int) -> None:
    operations, changes = history(seed)
    assert check(operations, changes) == len(operations)
    for key in (b"k0", b"k1"):
        assert linearizable([op for op in operations if op.key == key][:25])


def first(operations: list[Operation], kind: str, since: int = 5) -> int:
    return next(
        i
        for i, op in enumerate(operations)
        if i >= since and op.kind == kind and op.acknowledged and (kind != "read" or op.seen)
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_write_is_found(seed: int) -> None:
    operations, changes = history(seed)
    lost = operations[first(operations, "put")].value
    with pytest.raises(BrokenHistory, match="I19"):
        check(operations, [c for c in changes if c.value != lost])


@pytest.mark.parametrize("seed", range(10))
def test_a_read_stale_by_one_revision_is_found(seed: int) -> None:
    """Its value and its revision agree, but somebody had been told more before it began."""
    operations, changes = history(seed)
    at = first(operations, "put")
    put = operations[at]
    stale = Operation(
        "read",
        put.key,
        called=put.returned + 1,
        returned=put.returned + 2,
        acknowledged=True,
        revision=put.revision - 1,
    )
    past = [c for c in changes if c.key == put.key and c.revision < put.revision]
    stale.seen = past[-1].value if past else None
    with pytest.raises(BrokenHistory, match="I12"):
        check([*operations, stale], changes)


def test_the_search_finds_a_stale_read_too() -> None:
    put = Operation("put", b"k", b"1", called=1, returned=2, acknowledged=True)
    again = Operation("put", b"k", b"2", called=3, returned=4, acknowledged=True)
    read = Operation("read", b"k", called=5, returned=6, acknowledged=True, seen=b"1")
    assert linearizable([put, again, replace(read, called=3)])
    assert not linearizable([put, again, read])
    unknown = replace(again, acknowledged=False, returned=2**63)
    assert linearizable([put, unknown, read])
    assert linearizable([put, unknown, replace(read, seen=b"2")])


def test_a_wrong_value_is_found() -> None:
    operations, changes = history(1)
    operations[first(operations, "read")].seen = b"never written"
    with pytest.raises(BrokenHistory, match="I19 read"):
        check(operations, changes)


def test_two_calls_on_one_revision_are_found() -> None:
    operations, changes = history(2)
    op = operations[first(operations, "put")]
    with pytest.raises(BrokenHistory, match="two calls"):
        check([*operations, replace(op)], changes)


def test_a_write_that_nobody_asked_for_is_found() -> None:
    operations, changes = history(3)
    made = operations[first(operations, "put")]
    with pytest.raises(BrokenHistory, match="nobody wrote"):
        check([op for op in operations if op is not made], changes)


def test_a_deletion_that_nobody_asked_for_is_found_where_there_are_no_leases() -> None:
    operations, changes = history(4)
    extra = [*changes, Change(changes[-1].revision + 1, b"k0", None)]
    check(operations, extra)
    with pytest.raises(BrokenHistory, match="nobody deleted"):
        check(operations, extra, others_may_delete=False)


def test_a_swap_must_have_seen_what_it_compared() -> None:
    changes = [Change(2, b"k", b"a"), Change(3, b"k", b"b"), Change(4, b"k", b"c")]
    swap = Operation(
        "swap", b"k", b"c", expected=3, called=1, returned=2, acknowledged=True, revision=4
    )
    others = [Operation("put", b"k", v, called=0) for v in (b"a", b"b")]
    check([*others, swap], changes)
    with pytest.raises(BrokenHistory, match="another revision"):
        check([*others, replace(swap, expected=2)], changes)
    failed = replace(swap, value=b"x", succeeded=False, seen=b"c", expected=2)
    check([*others, swap, failed], changes)
    with pytest.raises(BrokenHistory, match="without reason"):
        check([*others, swap, replace(failed, expected=4)], changes)


# --- watches --------------------------------------------------------------------------------------


def watched(changes: list[Change]) -> WatchHistory:
    watch = WatchHistory(SPAN, start=2)
    before: dict[bytes, bytes | None] = {}
    for c in changes:
        watch.batch(c.revision, [(c.revision, c.key, c.value, before.get(c.key))])
        before[c.key] = c.value
    return watch


def test_a_whole_stream_passes() -> None:
    _, changes = history(5)
    assert check_watch(watched(changes), changes, complete_to=changes[-1].revision) == len(changes)


def test_a_dropped_event_is_found() -> None:
    _, changes = history(5)
    watch = watched(changes)
    del watch.events[3]
    with pytest.raises(BrokenHistory, match="I17"):
        check_watch(watch, changes)


def test_a_swapped_order_is_found() -> None:
    _, changes = history(5)
    watch = watched(changes)
    watch.events[3], watch.events[4] = watch.events[4], watch.events[3]
    with pytest.raises(BrokenHistory, match="I17"):
        check_watch(watch, changes)


def test_a_wrong_previous_value_is_found_unless_compacted() -> None:
    _, changes = history(5)
    watch = watched(changes)
    at = next(i for i, e in enumerate(watch.events) if e[3] is not None)
    watch.events[at] = (*watch.events[at][:3], None)
    with pytest.raises(BrokenHistory, match="value before"):
        check_watch(watch, changes)
    check_watch(watch, changes, compacted=watch.events[at][0])


def test_an_event_twice_and_out_of_order_are_refused_at_once() -> None:
    watch = WatchHistory(SPAN, start=2)
    watch.batch(5, [(4, b"k", b"a", None)])
    with pytest.raises(BrokenHistory, match="again"):
        watch.batch(6, [(4, b"k", b"a", None)])
    with pytest.raises(BrokenHistory, match="out of order"):
        watch.batch(9, [(7, b"k", b"a", None), (6, b"k", b"b", None)])
    with pytest.raises(BrokenHistory, match="above"):
        watch.batch(9, [(10, b"k", b"a", None)])


def test_an_event_that_progress_had_skipped_is_found() -> None:
    """A bookmark promises that nothing below it is missing."""
    _, changes = history(5)
    watch = WatchHistory(SPAN, start=2)
    watch.progress(changes[2].revision)
    with pytest.raises(BrokenHistory, match="I17"):
        check_watch(watch, changes)


def test_what_compaction_took_is_not_missed() -> None:
    _, changes = history(6)
    watch = WatchHistory(SPAN, start=2)
    floor = changes[10].revision
    watch.compacted(floor)
    before: dict[bytes, bytes | None] = {}
    for c in changes:
        if c.revision >= floor:
            watch.batch(c.revision, [(c.revision, c.key, c.value, before.get(c.key))])
        before[c.key] = c.value
    check_watch(watch, changes, complete_to=changes[-1].revision)
