"""An entry of very many rows: told in pieces, made in one, and the same as if made at once."""

from __future__ import annotations

from typing import Any

import pytest
from apply_world import ROOT, World, delete, put

from configsvc.apply import applier as module
from configsvc.apply import commands as c
from configsvc.apply.commands import Command, Effects
from configsvc.mvcc.messages import TxnOp

PIECE = 4
LEASE = 7
OPS = {
    "delete": delete(b"/k", b"/l", prev_kv=True),
    "txn": TxnOp((), (put(b"/a"), delete(b"/k", b"/l")), ()),
    "lease": c.LeaseRevokeOp((LEASE,), 0),
}


def filled() -> World:
    world = World()
    world.ok(ROOT, c.LeaseGrantOp(60, LEASE))
    for number in range(11):
        world.ok(ROOT, put(b"/k%02d" % number, b"v" * number, lease=LEASE))
    return world


def told(world: World) -> tuple[Any, ...]:
    state = world.state
    return (
        state.store.revision,
        dict(state.store.live),
        list(state.store.keys),
        state.snapshot_tables(),
        state.recorder.frontier.state(),
        state.digest,
        sorted(state.lessor.leases),
    )


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_pieces_and_all_at_once_are_twins(monkeypatch: pytest.MonkeyPatch, op: Any) -> None:
    whole, slow = filled(), filled()
    expected = whole.ok(ROOT, op)
    monkeypatch.setattr(module, "APPLY_PIECE_ROWS", PIECE)
    command = whole.log[-1]
    pieces = slow.applier.begin(slow.state.applied + 1, slow.term, command)
    assert not isinstance(pieces, Effects)
    before, steps = told(slow), 0
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found = done.value
            break
        steps += 1
        assert told(slow) == before, "readers see nothing of it before it is whole"
        # What a reader's own rights were decides nothing about the entry.
        slow.state.rights.rule, slow.state.rights.roles = "a reader's", ("reader",)
    assert steps == -(-len(expected.rows) // PIECE)
    assert found == expected
    assert told(slow) == told(whole)
    assert slow.ok(ROOT, put(b"/z")) == whole.ok(ROOT, put(b"/z"))


def test_a_small_change_comes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPLY_PIECE_ROWS", 11)
    world = filled()
    world.ok(ROOT, OPS["delete"])
    again = filled()
    command: Command | None = world.log[-1]
    outcome = again.applier.begin(again.state.applied + 1, again.term, command)
    assert outcome == world.effects[-1]
