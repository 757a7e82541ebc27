"""Same entries, same everything; and a restart in between changes nothing (A1-A3, Q3)."""

from __future__ import annotations

import json
from typing import Any

from apply_world import (
    ADA,
    BOB,
    MEMBERS,
    POLICY,
    ROOT,
    ROOT_UID,
    SYSTEM,
    World,
    compiled,
    delete,
    genesis,
    get,
    put,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.apply import digest
from configsvc.apply.applier import Applier
from configsvc.apply.commands import Effects
from configsvc.apply.state import ApplyState
from configsvc.mvcc.messages import Compare, Row, TxnOp
from configsvc.types import span_of


class Sql:
    """Does with effects what the history's tables do, and hands back what a start reads."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {}
        self.live: dict[bytes, Row] = {}
        self.actors: list[tuple[bytes, bytes]] = []
        self.last: Effects | None = None
        self.time_ns = 0

    def write(self, effects: Effects) -> None:
        for change in effects.tables:
            table = self.tables.setdefault(change.table, {})
            if change.row is None:
                del table[change.key]
            else:
                table[change.key] = change.row
        for row in effects.rows:
            if row.tombstone:
                del self.live[row.key]
            else:
                self.live[row.key] = row
        if effects.commit is not None:
            self.time_ns = effects.commit.time_ns
            if effects.commit.actor_record:
                self.actors.append((effects.commit.actor_record, effects.commit.actor))
        self.last = effects

    def restart(self, tree: tuple[int, tuple[bytes, ...]]) -> ApplyState:
        assert self.last is not None
        state = ApplyState()
        state.load(
            {name: [(*k, *row) for k, row in rows.items()] for name, rows in self.tables.items()},
            live=self.live.values(),
            revision=self.last.revision,
            applied=self.last.index,
            term=self.last.term,
            digest=self.last.digest,
            time_ns=self.time_ns,
            tree=tree,
            actors=self.actors,
        )
        return state


SPANS = st.sampled_from([(b"/a/1", b""), (b"/a/", b"/a0"), (b"/b/1", b""), (b"\0", b"\0")])
KEYS = st.sampled_from([b"/a/1", b"/a/2", b"/b/1", b"/c"])
LEASES = st.sampled_from([0, 0, 1, 2])
PUTS = st.builds(lambda k, v, lease: put(k, v, lease=lease), KEYS, st.binary(max_size=2), LEASES)
DELETES = SPANS.map(lambda s: delete(*s))
READS = SPANS.map(lambda s: get(*s))
FLAT = st.one_of(PUTS, DELETES, READS)
WHEN = st.builds(lambda s, n: Compare(span_of(*s), False, 1, 2, n), SPANS, st.integers(0, 9))
TXNS = st.builds(
    TxnOp,
    st.lists(WHEN, max_size=1).map(tuple),
    st.lists(FLAT, max_size=3).map(tuple),
    st.lists(FLAT, max_size=2).map(tuple),
)
POLICY_2 = POLICY.replace("version = 1", "version = 2") + (
    '[[rule]]\nid = "d"\neffect = "deny"\nactions = ["kv.put"]\nkeys = { prefix = "/c" }\n'
)
RARE = st.sampled_from(
    [
        c.CompactOp(3),
        c.CompactOp(5),
        c.LeaseGrantOp(10, 1),
        c.LeaseGrantOp(10, 2),
        c.LeaseRevokeOp((1,)),
        c.LeaseRevokeOp((1, 2), decided_term=1),
        c.LeaseCheckpointOp(((1, 5), (2, 6))),
        c.UserAddOp("bob", "", True),
        c.UserDeleteOp("bob"),
        c.UserGrantRoleOp("bob", "ada-role"),
        c.RoleDeleteOp("ada-role"),
        c.RoleAddOp("r"),
        c.RoleRevokePermissionOp("ada-role", b"/a/", b"/a0"),
        c.AlarmOp(True, MEMBERS[0], 1),
        c.AlarmOp(False, MEMBERS[0], 1),
        c.RevokeOp("identity", ADA.cert_uri, 0),
        c.UnrevokeOp("identity", ADA.cert_uri),
        c.RevokeOp("user", "ada", 0),
        c.RevokeOp("all", "", 0),
        c.MemberAttributesOp(0x11, "m1", (), b"s", "1.0.0"),
        c.MemberChangeOp("add", 0x44, ("https://h:1",), True),
        c.MemberChangeOp("remove", 0x33, (), False),
        c.SigningKeyOp("kid-0001", "token", 0x11, b"k" * 32, "active"),
        c.AuditAnchorOp(0x11, "o", 3, b"r" * 32),
        c.CheckpointSignatureOp(0x11, 2, b"r" * 32, b"s" * 64),
        c.ClusterVersionOp("1.1.0"),
        c.PolicyLoadOp(POLICY_2, compiled(POLICY_2), 2, "base"),
        genesis(),
        None,
    ]
)
PEOPLE = st.sampled_from([ROOT, ROOT, SYSTEM, ADA, BOB])
ENTRIES = st.tuples(PEOPLE, st.one_of(PUTS, DELETES, TXNS, RARE))


def play(world: World, entries: list[tuple[Any, Any]]) -> None:
    for who, op in entries:
        if op is None:
            world.entry(None)
        else:
            world.do(who, op, new_uid=BOB.uid)


def with_ada() -> World:
    world = World()
    world.user(ADA, (2, b"/a/", b"/a0"))
    return world


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(ENTRIES, max_size=15), more=st.lists(ENTRIES, max_size=10))
def test_a_restart_changes_nothing(
    entries: list[tuple[Any, Any]], more: list[tuple[Any, Any]]
) -> None:
    world = with_ada()
    play(world, entries)
    sql = Sql()
    for effects in world.effects:
        sql.write(effects)
    state = sql.restart(world.state.recorder.frontier.state())
    assert state.snapshot_tables() == world.state.snapshot_tables()
    again = World.__new__(World)
    again.state, again.applier, again.log, again.effects = state, Applier(state), [], []
    again.term = 1
    done = len(world.effects)
    play(world, more)
    play(again, more)
    assert _told(again.effects) == _told(world.effects[done:])
    assert again.state.snapshot_tables() == world.state.snapshot_tables()
    assert again.store.live == world.store.live


def _told(effects: list[Effects]) -> list[Any]:
    """Effects with errors by type and text: two error objects are never equal."""
    return [
        e._replace(result=(type(e.result.error), str(e.result.error)))  # type: ignore[arg-type]
        if isinstance(e.result, c.Refused)
        else e
        for e in effects
    ]


@settings(max_examples=30, deadline=None)
@given(entries=st.lists(ENTRIES, max_size=15))
def test_two_members_agree(entries: list[tuple[Any, Any]]) -> None:
    one, two = with_ada(), with_ada()
    play(one, entries)
    for command in one.log[len(two.log) :]:
        two.entry(command)
        two.state.store.trim_tail(two.state.store.revision)  # physical progress is no input (#54)
    assert _told(one.effects) == _told(two.effects)
    assert one.state.digest == two.state.digest
    assert one.state.recorder.frontier.root() == two.state.recorder.frontier.root()


def test_the_digest_notices_each_part() -> None:
    row = Row(2, 0, b"k", b"v", 2, 1, 0, False)
    change = c.TableChange("t", ("k", 1), (b"x", None, True, ("a",)))

    def changed_row(field: str, value: Any) -> Row:
        return row._replace(**{field: value})

    base = digest.step(digest.GENESIS, 1, 2, 0, (row,), (change,))
    variants = [
        digest.step(b"\1" * 16, 1, 2, 0, (row,), (change,)),
        digest.step(digest.GENESIS, 2, 2, 0, (row,), (change,)),
        digest.step(digest.GENESIS, 1, 3, 0, (row,), (change,)),
        digest.step(digest.GENESIS, 1, 2, 7, (row,), (change,)),
        digest.step(digest.GENESIS, 1, 2, 0, (), (change,)),
        digest.step(digest.GENESIS, 1, 2, 0, (row,), ()),
        *(
            digest.step(digest.GENESIS, 1, 2, 0, (changed_row(field, value),), (change,))
            for field, value in (
                ("revision", 3),
                ("sub", 1),
                ("key", b"j"),
                ("value", b"w"),
                ("create_revision", 1),
                ("version", 2),
                ("lease", -1),
                ("tombstone", True),
            )
        ),
        *(
            digest.step(digest.GENESIS, 1, 2, 0, (row,), (changed,))
            for changed in (
                change._replace(table="u"),
                change._replace(key=("k", 2)),
                change._replace(row=None),
                change._replace(row=(b"x", None, True, ("a", "b"))),
                change._replace(row=("x", None, True, ("a",))),
            )
        ),
    ]
    assert len({base, *variants}) == len(variants) + 1


def test_A4_golden_digest() -> None:
    """Stored logs must replay to the digests they had. A change here breaks every store."""
    world = World()
    world.ok(ROOT, put(b"/k", b"v"))
    world.ok(ROOT, TxnOp((), (put(b"/j"), delete(b"/k")), ()))
    assert world.effects[0].request_id == 1
    assert ROOT_UID == "00ff"
    assert json.loads(world.effects[0].tables[0].row[1]) == ["https://10.0.0.17:2380"]  # type: ignore[index]
    assert world.state.digest.hex() == "3907a70dbde61232fafd644b077c623a"
