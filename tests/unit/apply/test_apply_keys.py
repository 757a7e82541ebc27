"""Keys through apply: effects, leaves, alarms, refusals (AUD-3, AUD-4, N3, N4, N26)."""

from __future__ import annotations

from typing import Any

import pytest
from apply_world import ADA, MEMBERS, ROOT, World, delete, get, put

from configsvc.apply import commands as c
from configsvc.apply.commands import Refused
from configsvc.audit.changes import split_records
from configsvc.audit.leaf import decode_leaf
from configsvc.audit.merkle import Frontier
from configsvc.errors import (
    CompactedError,
    CorruptError,
    DuplicateKeyError,
    EmptyKeyError,
    FutureRevError,
    InvariantViolationError,
    KeyNotFoundError,
    LeaseNotFoundError,
    NoSpaceError,
    PermissionDeniedError,
    TooManyOpsError,
)
from configsvc.mvcc.messages import DeleteResult, KeyValue, PutResult, Row, TxnOp, TxnResult
from configsvc.types import KeySpan

UNSET: Any = None  # an operation whose oneof was not set


@pytest.fixture
def world() -> World:
    return World()


def test_a_put(world: World) -> None:
    effects = world.ok(ROOT, put(b"/k", b"one"))
    assert effects.result == PutResult(2, None)
    assert effects.rows == (Row(2, 0, b"/k", b"one", 2, 1, 0, False),)
    assert (effects.prevs, effects.tables, effects.revision) == ((None,), (), 2)
    assert effects.request_id == effects.index == world.state.applied
    commit = effects.commit
    assert commit is not None
    assert (commit.event, commit.outcome, commit.revision) == ("kv.put", "OK", 2)
    leaf = decode_leaf(effects.leaf)
    assert (leaf["key"], leaf["rule"], leaf["length"]) == (b"/k", "root", 3)
    assert (leaf["seq"], leaf["raft_index"], leaf["revision"]) == (commit.seq, effects.index, 2)
    assert "prev_commit" not in leaf
    again = world.ok(ROOT, put(b"/k", b"two", prev_kv=True))
    assert again.result == PutResult(3, KeyValue(b"/k", b"one", 2, 2, 1, 0))
    assert decode_leaf(again.leaf)["prev_mod_rev"] == 2
    assert len(again.leaf) <= 350


def test_an_empty_entry_has_no_leaf_but_a_digest(world: World) -> None:
    before = world.state.digest
    effects = world.entry(None)
    assert (effects.result, effects.leaf, effects.commit) == (None, b"", None)
    assert effects.digest == world.state.digest != before
    assert effects.request_id == 0


def test_entries_come_in_order(world: World) -> None:
    with pytest.raises(InvariantViolationError):
        world.applier.apply(world.state.applied + 2, 1, None)
    with pytest.raises(InvariantViolationError):
        world.applier.apply(world.state.applied, 1, None)


def test_the_general_way_makes_the_bytes_of_the_hot_one() -> None:
    """A put with a ticket takes the long way; without it, the short one: same fields."""
    plain, ticketed = World(), World()
    for op in (put(b"/k", b"1"), put(b"/k", b"2"), put(b"/j")):
        a = plain.ok(ROOT, op)
        b = ticketed.ok(ROOT, op, ticket="CHG-1")
        assert a[:9] == (*b[:8], a.leaf)
        left, right = decode_leaf(a.leaf), decode_leaf(b.leaf)
        assert right.pop("ticket_commit")
        assert left == right


def test_put_with_the_stored_value_commits_to_it(world: World) -> None:
    world.ok(ROOT, put(b"/k", b"kept"))
    effects = world.ok(ROOT, put(b"/k", b"", ignore_value=True))
    assert effects.rows[0].value == b"kept"
    assert decode_leaf(effects.leaf)["length"] == 4


@pytest.mark.parametrize(
    ("op", "count"),
    [
        (delete(b"/a"), None),
        (delete(b"/x"), 0),
        (delete(b"/", b"0"), 2),
        (TxnOp((), (put(b"/c"),), ()), 1),
        (TxnOp((), (get(b"/a"),), ()), 0),
        (TxnOp((), (put(b"/c"), delete(b"/a"), put(b"/b")), ()), 3),
    ],
)
def test_AUD4_several_changes_lie_beside_the_leaf(world: World, op: Any, count: int | None) -> None:
    world.ok(ROOT, put(b"/a", b"1"))
    world.ok(ROOT, put(b"/b", b"2"))
    effects = world.ok(ROOT, op)
    leaf = decode_leaf(effects.leaf)
    assert effects.commit is not None
    records = list(split_records(effects.commit.changes))
    if count is None:
        assert (leaf["key"], leaf["prev_mod_rev"], records) == (b"/a", 2, [])
    else:
        assert leaf["count"] == count == len(records) == len(effects.rows)
    assert effects.revision == effects.commit.revision == world.store.revision


def test_delete_results(world: World) -> None:
    world.ok(ROOT, put(b"/a", b"1"))
    assert world.ok(ROOT, delete(b"/x")).result == DeleteResult(2, 0, ())
    effects = world.ok(ROOT, delete(b"/", b"0", prev_kv=True))
    assert effects.result == DeleteResult(3, 1, (KeyValue(b"/a", b"1", 2, 2, 1, 0),))
    assert effects.rows == (Row(3, 0, b"/a", b"", 0, 0, 0, True),)
    assert effects.prevs == (KeyValue(b"/a", b"1", 2, 2, 1, 0),)


@pytest.mark.parametrize(
    ("op", "error", "code"),
    [
        (put(b""), EmptyKeyError, "INVALID_ARGUMENT"),
        (put(b"/k", lease=5), LeaseNotFoundError, "NOT_FOUND"),
        (put(b"/k", b"", ignore_value=True), KeyNotFoundError, "INVALID_ARGUMENT"),
        (TxnOp((), (put(b"/k"), put(b"/k")), ()), DuplicateKeyError, "INVALID_ARGUMENT"),
        (TxnOp((), (UNSET,), ()), KeyNotFoundError, "INVALID_ARGUMENT"),
        (TxnOp((), (get(b"/k"),) * 129, ()), TooManyOpsError, "INVALID_ARGUMENT"),
        (TxnOp((), (put(b"/k"), get(b"/k", revision=9)), ()), FutureRevError, "OUT_OF_RANGE"),
        (c.CompactOp(9), FutureRevError, "OUT_OF_RANGE"),
        (c.CompactOp(-1), CompactedError, "OUT_OF_RANGE"),
    ],
)
def test_A2_AUD4_a_refusal_leaves_only_its_leaf(
    world: World, op: Any, error: type[Exception], code: str
) -> None:
    assert isinstance(world.refused(ROOT, op), error)
    effects = world.effects[-1]
    assert effects.commit is not None
    assert effects.commit.outcome == code
    assert decode_leaf(effects.leaf)["detail"] == str(effects.result.error)  # type: ignore[union-attr]


def test_compaction(world: World) -> None:
    for _ in range(3):
        world.ok(ROOT, put(b"/k"))
    effects = world.ok(ROOT, c.CompactOp(3, physical=True))
    assert effects.tables == (c.TableChange("meta", ("compact_revision",), (b"3",)),)
    assert (effects.revision, world.store.compact_revision) == (4, 3)
    assert isinstance(world.refused(ROOT, c.CompactOp(3)), CompactedError)


GROWING = (put(b"/a/k"), TxnOp((), (TxnOp((), (), (put(b"/a/k"),)),), ()), c.LeaseGrantOp(10, 7))
SHRINKING = (delete(b"/a/k"), TxnOp((), (delete(b"/a/k"),), ()), c.CompactOp(2))


@pytest.mark.parametrize(("alarm", "stopped"), [(1, GROWING), (2, GROWING + SHRINKING)])
def test_N3_N4_alarms(world: World, alarm: int, stopped: tuple[Any, ...]) -> None:
    world.ok(ROOT, put(b"/a/k"))
    world.ok(ROOT, c.AlarmOp(True, MEMBERS[1], alarm))
    error = {1: NoSpaceError, 2: CorruptError}[alarm]
    for op in stopped:
        assert isinstance(world.refused(ROOT, op), error)
    world.ok(ROOT, TxnOp((), (get(b"/a/k"),), ()))
    world.ok(ROOT, c.RoleAddOp("still-works"))
    for op in () if alarm == 2 else SHRINKING:
        world.ok(ROOT, op)
    world.ok(ROOT, c.AlarmOp(False, MEMBERS[1], alarm))
    world.ok(ROOT, put(b"/a/k"))


@pytest.mark.parametrize("alarm", [1, 2])
def test_N26_denied_stays_denied_under_alarms(world: World, alarm: int) -> None:
    world.user(ADA, (2, b"/a/", b"/a0"))
    world.ok(ROOT, c.AlarmOp(True, MEMBERS[0], alarm))
    for op in (put(b"/b"), delete(b"/b"), TxnOp((), (put(b"/b"),), ()), c.CompactOp(1)):
        assert isinstance(world.refused(ADA, op), PermissionDeniedError)
    assert isinstance(
        world.refused(ADA, c.AlarmOp(False, MEMBERS[0], alarm)), PermissionDeniedError
    )
    assert isinstance(world.refused(ADA, c.AuthDisableOp()), PermissionDeniedError)


def test_the_tree_grows_by_exactly_the_leaves(world: World) -> None:
    world.ok(ROOT, put(b"/k"))
    world.refused(ROOT, put(b""))
    world.entry(None)
    world.ok(ROOT, TxnOp((), (put(b"/k"),), ()))
    tree = Frontier()
    for effects in world.effects:
        assert (effects.commit is None) == (effects.leaf == b"")
        if effects.commit is not None:
            assert effects.commit.seq == tree.size
            tree.append(effects.leaf)
    assert tree.root() == world.state.recorder.frontier.root()


def test_nested_results_and_deferred_reads_come_through(world: World) -> None:
    world.ok(ROOT, put(b"/k"))
    world.ok(ROOT, put(b"/k"))
    old = get(b"/k", revision=2)
    result = world.ok(ROOT, TxnOp((), (put(b"/j"), TxnOp((), (old,), ())), ())).result
    assert isinstance(result, TxnResult)
    assert result.responses[1].responses[0].op is old  # type: ignore[union-attr]
    read = world.state.read_txn(TxnOp((), (get(b"/k"),), ()))
    assert read.responses[0].count == 1


def test_a_key_of_the_full_length_is_written(world: World) -> None:
    effects = world.ok(ROOT, put(b"k" * 2048))
    assert "key_digest" in decode_leaf(effects.leaf)
    assert isinstance(world.do(ROOT, put(b"k" * 2049)).result, Refused)
    assert world.store.count(KeySpan(b"", None)) == 1


@pytest.mark.parametrize("salt", [b"", b"short", b"x" * 33])
def test_a_bad_salt_stops_nobody(world: World, salt: bytes) -> None:
    effects = world.ok(ROOT, put(b"/k"), salt=salt)
    assert effects.commit is not None
    assert len(effects.commit.salt) == 32
    assert world.do(ROOT, put(b""), salt=salt).leaf
