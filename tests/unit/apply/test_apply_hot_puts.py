"""The hot way of a put and the general one are twins: equal effects, leaves, digests and state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from apply_world import ADA, AGENT, BOB, POLICY, ROOT, SYSTEM, World, delete, put
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.apply import digest
from configsvc.apply.applier import Applier
from configsvc.apply.commands import Command, Effects, Refused
from configsvc.apply.operations import OPERATIONS, Context
from configsvc.apply.rights import Rights
from configsvc.errors import InvariantViolationError, RequestError
from configsvc.limits import KEY_BYTES_MAX
from configsvc.mvcc.messages import PutOp, Row
from configsvc.raft.messages import Entry, EntryKind
from configsvc.types import LogIndex, Term

DENY = """
schema = "configsvc.policy/v1"
bundle = "base"
version = 1

[[rule]]
id = "deny-frozen"
effect = "deny"
actions = ["kv.put"]
keys = { prefix = "a/2" }
"""


class General(Applier):
    """Applies puts like any other operation."""

    __slots__ = ()

    def puts(self, entries: Sequence[Entry], commands: Sequence[Command]) -> list[Effects]:
        return [self._one(*each) for each in zip(entries, commands, strict=True)]

    def _one(self, entry: Entry, command: Command) -> Effects:
        term, index, op = entry.term, entry.index, command.op
        env = self._enter(index, term, command)
        self.state.rights.forget()
        context = Context(self.state, self.state.rights, index, term)
        try:
            change = OPERATIONS[PutOp](env, op, context)
        except RequestError as error:
            return self._refused(index, term, env, op, error)
        done = self._done(index, term, env, op, change)
        assert isinstance(done, Effects)
        return done


def comparable(effects: Effects) -> tuple[Any, ...]:
    result: Any = effects.result
    if isinstance(result, Refused):
        result = (type(result.error), str(result.error))
    return (*effects._replace(result=None), result)


def worlds(policy: str) -> tuple[World, World]:
    hot, general = World(policy=policy), World(policy=policy)
    general.applier = General(general.state)
    for world in (hot, general):
        world.user(ADA, (2, b"a/", b"a0"))
        world.user(BOB, (1, b"a/1", b""))
        world.ok(ROOT, c.LeaseGrantOp(600, 7))
    return hot, general


def in_runs(
    world: World, steps: list[tuple[Any, Any, dict[str, Any]]], length: int
) -> list[Effects]:
    """Apply ``steps``, puts that follow each other at most ``length`` at a time."""
    effects: list[Effects] = []
    entries: list[Entry] = []
    commands: list[Command] = []
    index = world.state.applied
    for who, op, more in steps:
        index += 1
        command = world.command(index, who, op, **more)
        is_put = isinstance(op, PutOp)
        if entries and not (is_put and len(entries) < length):
            effects += world.applier.puts(entries, commands)
            entries, commands = [], []
        if is_put:
            entries.append(Entry(Term(1), LogIndex(index), EntryKind.NORMAL, b""))
            commands.append(command)
        else:
            effects.append(world.applier.apply(index, 1, command))
    if entries:
        effects += world.applier.puts(entries, commands)
    return effects


def compare(steps: list[tuple[Any, Any, dict[str, Any]]], policy: str, length: int = 1) -> World:
    hot, general = worlds(policy)
    did = in_runs(hot, steps, length)
    for effects, (who, op, more) in zip(did, steps, strict=True):
        assert comparable(effects) == comparable(general.do(who, op, **more))
    assert hot.state.last_time_ns == general.state.last_time_ns
    assert (hot.state.applied, hot.state.term) == (general.state.applied, general.state.term)
    assert hot.store.live == general.store.live
    assert list(hot.store.keys) == list(general.store.keys)
    assert hot.store.db_bytes == general.store.db_bytes
    assert hot.store.tail.byte_count == general.store.tail.byte_count
    assert hot.store.tail.rows_from(0) == general.store.tail.rows_from(0)
    assert hot.state.snapshot_tables() == general.state.snapshot_tables()
    assert {i: dict(x.keys) for i, x in hot.state.lessor.leases.items()} == {
        i: dict(x.keys) for i, x in general.state.lessor.leases.items()
    }
    assert hot.state.recorder.frontier.root() == general.state.recorder.frontier.root()
    return hot


KEYS = st.sampled_from([b"a/1", b"a/2", b"a/22", b"a/3", b"b", b"", b"k" * (KEY_BYTES_MAX + 1)])
PUTS = st.builds(
    PutOp,
    KEYS,
    st.sampled_from([b"", b"v", b"w" * 300]),
    st.sampled_from([0, 0, 0, 7, 8]),
    st.sampled_from([False, False, True]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([False, False, False, True]),
)
PLAIN = st.builds(put, KEYS, st.sampled_from([b"", b"v", b"w" * 300]))
ANYONE = st.sampled_from([ROOT, ADA, BOB, AGENT, SYSTEM])
MORE = st.sampled_from(
    [{}, {}, {"reason": "because"}, {"ticket": "T-1"}, {"time_suspect": True}, {"salt": b"short"}]
)
BETWEEN = st.sampled_from(
    [
        delete(b"a/", b"a0"),
        c.LeaseRevokeOp((7,)),
        c.LeaseGrantOp(600, 7),
        c.UserRevokeRoleOp("ada", "ada-role"),
        c.UserGrantRoleOp("ada", "ada-role"),
        c.UserDeleteOp("bob"),
        c.RevokeOp("user", "ada", 0),
        c.RevokeOp("identity", ADA.cert_uri, 30_000),
        c.UnrevokeOp("identity", ADA.cert_uri),
        c.AlarmOp(True, 0x11, 1),
        c.AlarmOp(False, 0x11, 1),
    ]
)
Steps = list[tuple[Any, Any, dict[str, Any]]]
STEPS: st.SearchStrategy[Steps] = st.lists(
    st.one_of(
        st.tuples(ANYONE, PLAIN, MORE),
        st.tuples(ANYONE, PLAIN, MORE),
        st.tuples(ANYONE, PUTS, MORE),
        st.tuples(st.just(ROOT), BETWEEN, st.just({})),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(steps=STEPS, policy=st.sampled_from([POLICY, DENY]), length=st.sampled_from([1, 2, 5, 99]))
def test_hot_and_general_are_twins(steps: Steps, policy: str, length: int) -> None:
    compare(steps, policy, length)


def test_authors_take_turns_in_a_run() -> None:
    """The shared parts of a leaf are those of its own author, also where one is new."""
    turns = [ADA, BOB, ADA, ADA, AGENT, ROOT, BOB, BOB, ADA]
    steps: Steps = [
        (who, put(b"a/%d" % at), {"accepted_by": 0x11 + at % 2}) for at, who in enumerate(turns)
    ]
    compare(steps * 3, POLICY, 99)


def test_an_alarm_ends_what_is_plain() -> None:
    put_one: tuple[Any, Any, dict[str, Any]] = (ROOT, put(b"a/1"), {})
    compare([put_one, put_one, (ROOT, c.AlarmOp(True, 0x11, 1), {}), put_one], POLICY, 99)


@pytest.mark.parametrize("indices", [(2,), (1, 3), (1, 1)])
def test_runs_follow_the_log(indices: tuple[int, ...]) -> None:
    world = World()
    before = world.state.applied
    commands = [world.command(1, ROOT, put(b"a")) for _ in indices]
    entries = [Entry(Term(1), LogIndex(before + i), EntryKind.NORMAL, b"") for i in indices]
    with pytest.raises(InvariantViolationError):
        world.applier.puts(entries, commands)
    assert world.state.applied == before


def test_most_puts_go_the_hot_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the twins above would be the same one."""
    world = World()
    world.user(ADA, (2, b"a/", b"a0"))
    world.ok(ADA, put(b"a/1"))  # its rights are worked out once

    def general(*_: Any) -> None:
        raise AssertionError("took the general way")

    monkeypatch.setattr(Rights, "put", general)
    monkeypatch.setattr(Applier, "_put", general)
    world.ok(ADA, put(b"a/1", b"new"))
    world.ok(ADA, put(b"a/2", b""))


def test_a_plain_put_takes_its_key_off_a_lease() -> None:
    hot = compare([(ROOT, put(b"a/1", lease=7), {}), (ROOT, put(b"a/1"), {})], DENY)
    assert hot.state.lessor.leases[7].keys == {}
    assert hot.store.live[b"a/1"].lease == 0


def test_rights_end_with_the_entry_that_takes_them() -> None:
    world = World()
    world.user(ADA, (2, b"a/", b"a0"))
    world.ok(ADA, put(b"a/1"))
    world.ok(ADA, put(b"a/1"))
    world.ok(ROOT, c.UserRevokeRoleOp("ada", "ada-role"))
    world.refused(ADA, put(b"a/1"))
    world.ok(ROOT, c.UserGrantRoleOp("ada", "ada-role"))
    world.ok(ADA, put(b"a/1"))
    world.ok(ROOT, c.RevokeOp("serial", ADA.cert_serial, 0))
    world.refused(ADA, put(b"a/1"))


@given(
    before=st.binary(min_size=16, max_size=16),
    index=st.integers(0, 2**64 - 1),
    row=st.builds(
        Row,
        st.integers(0, 2**63 - 1),
        st.integers(0, 9),
        st.binary(max_size=40),
        st.binary(max_size=40),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**63 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
    ),
)
def test_the_short_digest_is_the_long_one(before: bytes, index: int, row: Row) -> None:
    assert digest.step_put(before, index, row[0], row) == digest.step(
        before, index, row[0], 0, (row,), ()
    )


@given(
    before=st.binary(min_size=16, max_size=16),
    values=st.lists(st.binary(max_size=9), max_size=9),
)
def test_digests_of_a_run_are_chained(before: bytes, values: list[bytes]) -> None:
    rows = [Row(5 + at, 0, b"k", value, 1, 2, 0, False) for at, value in enumerate(values)]
    expected = []
    after = before
    for at, row in enumerate(rows):
        after = digest.step(after, 7 + at, row.revision, 0, (row,), ())
        expected.append(after)
    assert digest.step_puts(before, 7, rows) == expected
