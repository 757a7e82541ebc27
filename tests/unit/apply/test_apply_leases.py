"""Leases through apply: wire/behaviour.md section 9; reliability.md X1, X3."""

from __future__ import annotations

import pytest
from apply_world import ADA, ROOT, SYSTEM, World, delete, put

from configsvc.apply import commands as c
from configsvc.audit.leaf import decode_leaf
from configsvc.errors import (
    ConflictError,
    InvalidArgumentError,
    LeaseExistError,
    LeaseNotFoundError,
    LeaseTTLTooLargeError,
)
from configsvc.mvcc.messages import TxnOp


@pytest.fixture
def world() -> World:
    made = World()
    made.ok(ROOT, c.LeaseGrantOp(10, 1))
    made.ok(ROOT, c.LeaseGrantOp(20, 2))
    return made


def row(lease: int, *values: object) -> c.TableChange:
    return c.TableChange("leases", (lease,), values or None)


def test_L1_L2_L3_grant(world: World) -> None:
    effects = world.ok(ROOT, c.LeaseGrantOp(1, -9))
    assert effects.result == c.Granted(-9, 2)
    assert effects.tables == (row(-9, 2, "00ff", 0),)
    assert (effects.revision, decode_leaf(effects.leaf)["lease"]) == (1, -9)
    assert isinstance(world.refused(ROOT, c.LeaseGrantOp(1, -9)), LeaseExistError)
    assert isinstance(world.refused(ROOT, c.LeaseGrantOp(9 * 10**9 + 1, 5)), LeaseTTLTooLargeError)
    assert isinstance(world.refused(ROOT, c.LeaseGrantOp(1, 0)), InvalidArgumentError)


def test_L4_W18_revoke_deletes_all_keys_in_one_revision_in_key_order(world: World) -> None:
    for key in (b"/b", b"/a", b"/c"):
        world.ok(ROOT, put(key, lease=1))
    effects = world.ok(ROOT, c.LeaseRevokeOp((1,)))
    assert [(r.revision, r.sub, r.key) for r in effects.rows] == [
        (5, 0, b"/a"),
        (5, 1, b"/b"),
        (5, 2, b"/c"),
    ]
    assert (effects.result, effects.tables) == (c.Done(), (row(1),))
    assert effects.commit is not None
    assert effects.commit.event == "lease.revoke"
    assert isinstance(world.refused(ROOT, c.LeaseRevokeOp((1,))), LeaseNotFoundError)
    assert world.ok(ROOT, c.LeaseRevokeOp((2,))).revision == 5  # no keys, no revision


def test_X1_expiry_counts_in_the_term_it_was_decided_in_only(world: World) -> None:
    world.ok(ROOT, put(b"/a", lease=1))
    world.ok(ROOT, put(b"/b", lease=2))
    op = c.LeaseRevokeOp((2, 99, 1, 2), decided_term=1)
    world.term = 2
    assert isinstance(world.refused(SYSTEM, op), ConflictError)
    world.term = 1
    effects = world.ok(SYSTEM, op)
    assert [r.key for r in effects.rows] == [b"/a", b"/b"]
    assert effects.tables == (row(1), row(2))
    assert effects.commit is not None
    assert (effects.commit.event, decode_leaf(effects.leaf)["count"]) == ("lease.expire", 2)
    assert world.ok(SYSTEM, op).rows == ()


def test_X3_checkpoints_leave_rows_but_no_leaf(world: World) -> None:
    effects = world.ok(SYSTEM, c.LeaseCheckpointOp(((1, 4), (99, 5))))
    assert effects.tables == (row(1, 10, "00ff", 4),)
    assert (effects.leaf, effects.commit) == (b"", None)
    assert world.state.lessor.get(1).remaining_s == 4
    refused = world.do(ADA, c.LeaseCheckpointOp(((1, 1),)))
    assert (refused.leaf, refused.commit) == (b"", None)


def test_keys_follow_their_lease(world: World) -> None:
    def attached() -> tuple[list[bytes], list[bytes]]:
        lessor = world.state.lessor
        return lessor.get(1).sorted_keys(), lessor.get(2).sorted_keys()

    world.ok(ROOT, put(b"/a", lease=1))
    world.ok(ROOT, TxnOp((), (put(b"/b", lease=1), put(b"/c", lease=2)), ()))
    assert attached() == ([b"/a", b"/b"], [b"/c"])
    world.ok(ROOT, put(b"/a", lease=2))
    assert attached() == ([b"/b"], [b"/a", b"/c"])
    world.ok(ROOT, put(b"/b", ignore_lease=True))
    assert attached() == ([b"/b"], [b"/a", b"/c"])
    world.ok(ROOT, put(b"/b"))
    world.ok(ROOT, TxnOp((), (delete(b"/a"), put(b"/d", lease=1), delete(b"/d", b"\0")), ()))
    assert attached() == ([], [b"/c"])
