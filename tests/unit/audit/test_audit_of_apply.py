"""What apply writes is what the verifier accepts: the two sides of the record meet here."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.audit.binding import RevisionRow
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.merkle import leaf_hash
from configsvc.audit.verify import ActorRow, Columns, Entry, Opening, Verdict, verify_log
from configsvc.mvcc.messages import Compare, TxnOp
from configsvc.types import Principal, span_of
from tests.unit.apply.apply_world import ADA, AGENT, BOB, ROOT, SYSTEM, World, delete, get, put

KEYS = st.sampled_from([b"/a/1", b"/a/2", b"/b/1", b"/long" * 300])
VALUES = st.binary(max_size=6)
PEOPLE = st.sampled_from([ROOT, ADA, BOB, AGENT])

puts = st.builds(
    lambda key, value, lease: put(key, value, lease=lease), KEYS, VALUES, st.sampled_from([0, 0, 7])
)
deletes = st.one_of(
    st.builds(delete, KEYS), st.just(delete(b"/a/", b"/a0")), st.just(delete(b"\0", b"\0"))
)
inner = st.lists(st.one_of(puts, deletes, st.builds(get, KEYS)), max_size=3).map(tuple)
txns = st.builds(
    lambda key, version, then, otherwise: TxnOp(
        (Compare(span_of(key, b""), True, 0, 0, version),), then, otherwise
    ),
    KEYS,
    st.integers(0, 2),
    inner,
    inner,
)
others = st.sampled_from(
    [
        c.LeaseGrantOp(60, 7),
        c.LeaseRevokeOp((7,)),
        c.CompactOp(3),
        c.UserAddOp("eve", "", True),
        c.UserDeleteOp("eve"),
        c.RoleGrantPermissionOp("ada-role", 1, b"/b/", b"/b0"),
        c.AuthDisableOp(),
        c.RevokeOp("jti", "aa", 0),
        c.UnrevokeOp("jti", "aa"),
        c.AuditAnchorOp(0x11, "corp/local/17", 1, bytes(32)),
        c.AlarmOp(True, 0x11, 1),
        c.AlarmOp(False, 0x11, 1),
        c.LeaseCheckpointOp(((7, 5),)),
    ]
)
entries = st.tuples(
    PEOPLE,
    st.one_of(puts, deletes, txns, others),
    st.sampled_from([{}, {"reason": "because"}, {"ticket": "CHG-1"}, {"time_suspect": True}]),
)


def held(world: World) -> tuple[list[Entry], dict[bytes, ActorRow], Checkpoint]:
    """What storage keeps of the effects."""
    found: list[Entry] = []
    actors: dict[bytes, ActorRow] = {}
    for effects in world.effects:
        assert effects.leaf_hash == (leaf_hash(effects.leaf) if effects.leaf else b"")
        row = effects.commit
        if row is None:
            continue
        if row.actor_record:
            actors[row.actor] = ActorRow(row.actor_salt, row.actor_record)
        rows = [
            RevisionRow(r.revision, r.sub, r.key, r.value, r.lease, r.tombstone)
            for r in effects.rows
        ]
        columns = Columns(
            row.raft_index,
            row.raft_term,
            row.revision,
            row.time_ns,
            row.event,
            row.actor,
            row.outcome,
        )
        opening = Opening(row.salt, row.reason, row.ticket)
        found.append(Entry(row.seq, effects.leaf, row.changes, opening, rows, columns))
    frontier = world.state.recorder.frontier
    return found, actors, Checkpoint("corp/1/audit/1", frontier.size, frontier.root())


@settings(deadline=None, max_examples=60)
@given(plan=st.lists(entries, max_size=25))
def test_whatever_is_applied_verifies(plan: list[tuple[Principal, Any, dict[str, Any]]]) -> None:
    world = World()
    world.user(ADA, (2, b"/a/", b"/a0"))
    world.entry(None)
    for who, op, more in plan:
        world.do(who, op, **more)
    world.do(SYSTEM, c.LeaseRevokeOp((7,), world.term))
    found, actors, head = held(world)
    report = verify_log(found, actors, head)
    assert (report.problem, report.verdict) == ("", Verdict.INTACT)
    assert report.leaves == len(found) == head.size
    assert report.revisions == world.store.revision - 1
