"""Whatever decodes is applied or refused: no entry may end a member, or it would end them all."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from apply_world import ADA, AGENT, MEMBERS, NOBODY, ROOT, SYSTEM, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.apply.operations import OPERATIONS
from configsvc.audit.leaf import decode_leaf
from configsvc.mvcc.messages import Compare, DeleteOp, PutOp, RangeOp, TxnOp
from configsvc.types import span_of

I64 = st.one_of(st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]), st.integers(-3, 12))
U64 = st.one_of(st.sampled_from([0, 1, 2**64 - 1, *MEMBERS]), st.integers(0, 12))
I32 = st.sampled_from([0, 1, 2, 3, 7, -1, 2**31 - 1, -(2**31)])
TEXT = st.one_of(
    st.sampled_from(["", "root", "ada", "ada-role", "add", "remove", "token", "serial", "all"]),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.just("x" * 5_000),
)
BYTES = st.one_of(st.binary(max_size=4), st.sampled_from([b"\0", b"k" * 1_500, b"k" * 4_000]))
SIZED = st.one_of(BYTES, st.just(bytes(32)), st.just(bytes(64)))
SPANS = st.builds(span_of, BYTES, BYTES)

UNSIGNED = {"member", "size", "decided_term"}
PUTS = st.tuples(BYTES, BYTES, I64, st.booleans(), st.booleans(), st.booleans()).map(
    lambda t: PutOp(*t)
)
DELETES = st.tuples(SPANS, st.booleans()).map(lambda t: DeleteOp(*t))
RANGES = st.tuples(SPANS, I64, I64, I32, I32, *[st.booleans()] * 3, I64, I64, I64, I64).map(
    lambda t: RangeOp(*t)
)
COMPARES = st.one_of(
    st.tuples(SPANS, st.booleans(), I32, st.sampled_from([0, 1, 2, 4, 9]), I64),
    st.tuples(SPANS, st.booleans(), I32, st.just(3), BYTES),
).map(lambda t: Compare(*t))


def branch(ops: Any) -> Any:
    return st.lists(ops, max_size=3).map(tuple)


FLAT = st.one_of(st.none(), PUTS, DELETES, RANGES)
TXNS = st.recursive(
    FLAT,
    lambda inner: st.tuples(branch(COMPARES), branch(inner), branch(inner)).map(
        lambda t: TxnOp(*t)
    ),
    max_leaves=6,
).map(lambda op: op if isinstance(op, TxnOp) else TxnOp((), (op,), ()))  # type: ignore[arg-type]

SPECIAL = {
    PutOp: PUTS,
    DeleteOp: DELETES,
    TxnOp: TXNS,
    c.LeaseRevokeOp: st.builds(
        c.LeaseRevokeOp, st.lists(I64, max_size=3).map(tuple), st.integers(0, 2)
    ),
    c.LeaseCheckpointOp: st.builds(
        c.LeaseCheckpointOp, st.lists(st.tuples(I64, I64), max_size=3).map(tuple)
    ),
}


def field(name: str, hint: Any) -> Any:
    if hint is int:
        return U64 if name in UNSIGNED else I32 if name in ("alarm", "perm_type") else I64
    if hint is str:
        return TEXT
    if hint is bytes:
        return SIZED
    if hint is bool:
        return st.booleans()
    if hint == tuple[str, ...]:
        return st.lists(TEXT, max_size=2).map(tuple)
    assert hint == tuple[c.MemberChangeOp, ...], (name, hint)
    return st.lists(operation(c.MemberChangeOp), max_size=2).map(tuple)


def operation(kind: Any) -> Any:
    if kind in SPECIAL:
        return SPECIAL[kind]
    hints = typing.get_type_hints(kind)
    return st.tuples(*(field(n, hints[n]) for n in kind._fields)).map(lambda t: kind(*t))


@pytest.mark.parametrize("kind", list(OPERATIONS), ids=lambda kind: kind.__name__)
def test_no_entry_stops_a_member(kind: Any) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        ops=st.lists(operation(kind), min_size=1, max_size=4),
        who=st.sampled_from([ROOT, SYSTEM, ADA, AGENT, NOBODY]),
        uid=st.sampled_from(["", "a1"]),
        accepted_by=U64,
        insecure=st.booleans(),
    )
    def run(ops: list[Any], who: Any, uid: str, accepted_by: int, insecure: bool) -> None:
        world = World(insecure=insecure)
        world.do(ROOT, c.UserAddOp("ada", "", True), new_uid="a1")
        world.do(SYSTEM, c.LeaseGrantOp(10, 1))
        for op in ops:
            before = world.state.snapshot_tables()
            effects = world.do(who, op, new_uid=uid, accepted_by=accepted_by)
            if effects.leaf:
                assert len(effects.leaf) <= 8 * 1024
                decode_leaf(effects.leaf)
            if isinstance(effects.result, c.Refused):
                assert world.state.snapshot_tables() == before

    run()
