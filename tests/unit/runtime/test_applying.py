"""Entries on their way through apply: large ones in pieces, others behind them, held ones later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from configsvc.apply.commands import Effects
from configsvc.codec import command
from configsvc.limits import (
    APPEND_BYTES_MAX,
    APPLY_LAG_BYTES_MAX,
    APPLY_LAG_ENTRIES_MAX,
    APPLY_WAITING_BYTES_MAX,
    APPLY_WAITING_ENTRIES_MAX,
    MIB,
    READY_ENTRIES_MAX,
    UNCOMMITTED_BYTES_MAX,
)
from configsvc.mvcc.messages import PutOp
from configsvc.proto import rpc_pb2
from configsvc.raft.confchange_codec import encode_conf_change
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    Entry,
    EntryKind,
)
from configsvc.raft.sizes import ENTRY_OVERHEAD
from configsvc.runtime.applying import Applying
from configsvc.types import LogIndex, NodeId, Term

PIECES = 3


def effects(index: int) -> Effects:
    return Effects(index, 1, 0, None, index, (), (), (), b"", None, b"", b"")


class World:
    """An applier to which the entries in ``large`` are large, and a listener."""

    def __init__(self, *large: int) -> None:
        self.large = large
        self.begun: list[int | list[int]] = []
        self.told: list[list[int]] = []
        self.applied = 0
        self.conf_state: Any = None
        self.conf_index = 0
        self.raft = self
        me: Any = self
        self.applying = Applying(me, me, me)

    def begin(self, index: int, _term: int, _command: Any) -> Any:
        self.begun.append(index)
        return self._pieces(index) if index in self.large else effects(index)

    def apply(self, index: int, term: int, command: Any) -> Any:
        return self.begin(index, term, command)

    def puts(self, entries: Sequence[Entry], commands: Sequence[Any]) -> list[Effects]:
        assert all(type(each.op) is PutOp for each in commands)
        assert len(entries) == len(commands)
        self.begun.append([each.index for each in entries])
        return [effects(each.index) for each in entries]

    def _pieces(self, index: int) -> Iterator[None]:
        for _ in range(PIECES):
            yield
        return effects(index)  # type: ignore[return-value]

    def on_applied(self, found: list[Effects], commands: list[Any]) -> None:
        assert len(found) == len(commands)
        assert self.applied == found[-1].index
        self.told.append([each.index for each in found])

    def apply_conf_change(self, change: ConfChange) -> Any:
        return change

    def on_configuration(self, _: Any, index: int) -> None:
        self.told.append([-index])

    def take(self, first: int, end: int, *conf: int) -> None:
        self.applying.take(tuple(entry(index, index in conf) for index in range(first, end)))


def entry(index: int, conf: bool) -> Entry:
    one = ConfChangeSingle(ConfChangeType.ADD_NODE, NodeId(7))
    data = encode_conf_change(ConfChange((one,))) if conf else b""
    kind = EntryKind.CONF_CHANGE_V2 if conf else EntryKind.NORMAL
    return Entry(Term(1), LogIndex(index), kind, data)


def put(index: int) -> Entry:
    body = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    data = command.build(index, command.SYSTEM_ACTOR, bytes(32), command.OP_PUT, body)
    return Entry(Term(1), LogIndex(index), EntryKind.NORMAL, data + command.stamp(1, 2))


def test_puts_that_follow_each_other_are_done_together() -> None:
    world = World(6)
    entries = [put(index) for index in range(1, 10)]
    entries[2] = entry(3, conf=False)
    entries[5] = entry(6, conf=False)
    entries[7] = entry(8, conf=True)
    world.applying.take(tuple(entries))
    assert world.begun == [[1, 2], 3, [4, 5], 6]
    assert world.told == [[1, 2, 3, 4, 5]]
    for _ in range(PIECES + 1):
        world.applying.go_on()
    world.applying.go_on()
    assert world.begun[4:] == [[7], 8, [9]]
    assert world.told[1:] == [[6], [7, 8], [-8], [9]]


def test_small_entries_are_told_at_once() -> None:
    world = World()
    world.take(1, 4)
    assert world.told == [[1, 2, 3]]
    assert not world.applying.busy


def test_what_follows_a_large_entry_waits_for_it() -> None:
    world = World(2)
    world.take(1, 4)
    world.take(4, 6)
    for _ in range(PIECES):
        assert (world.told, world.applied) == ([[1]], 1)
        assert world.applying.in_pieces
        world.applying.go_on()
    world.applying.go_on()
    assert world.told == [[1], [2]]
    assert (world.applying.in_pieces, world.applying.busy) == (False, True)
    world.applying.go_on()
    assert world.told == [[1], [2], [3, 4, 5]]
    assert world.begun == [1, 2, 3, 4, 5]
    assert not world.applying.busy


def test_a_configuration_takes_effect_in_its_place() -> None:
    world = World(1)
    world.take(1, 5, 3)
    assert world.applying.holds_configuration
    while world.applying.busy:
        world.applying.go_on()
    assert world.told == [[1], [2, 3], [-3], [4]]
    assert world.conf_index == 3
    assert not world.applying.holds_configuration


@pytest.mark.parametrize("large", [(), (2,)], ids=["small", "large"])
def test_what_is_held_waits_and_asks_for_no_pass(large: tuple[int, ...]) -> None:
    world = World(*large)
    world.applying.held = True
    world.take(1, READY_ENTRIES_MAX + 2)
    assert (world.begun, world.applying.busy, world.applying.can_go_on) == ([], True, False)
    world.applying.held = False
    assert world.applying.can_go_on
    world.applying.go_on()
    assert len(world.begun) == (2 if large else READY_ENTRIES_MAX)
    while world.applying.busy:
        world.applying.go_on()
    assert [index for run in world.told for index in run] == list(range(1, READY_ENTRIES_MAX + 2))


def test_an_install_takes_the_place_of_what_waits() -> None:
    world = World(1)
    world.take(1, 5, 3)
    world.applying.go_on()
    world.applying.drop()
    assert not world.applying.busy
    assert not world.applying.holds_configuration
    world.take(10, 11)
    assert world.told == [[10]]


def test_writes_are_held_before_the_log_has_to_wait() -> None:
    assert APPLY_LAG_ENTRIES_MAX + READY_ENTRIES_MAX < APPLY_WAITING_ENTRIES_MAX
    world = World()
    world.applying.held = True
    world.take(1, APPLY_WAITING_ENTRIES_MAX)
    assert not world.applying.full
    world.take(APPLY_WAITING_ENTRIES_MAX, APPLY_WAITING_ENTRIES_MAX + 1)
    assert world.applying.full


def test_writes_are_held_before_bytes_make_the_log_wait() -> None:
    """Urgent ones have twice the room, and what is not committed yet may come on top."""
    most = 2 * APPLY_LAG_BYTES_MAX + UNCOMMITTED_BYTES_MAX + APPEND_BYTES_MAX
    assert most < APPLY_WAITING_BYTES_MAX
    world = World()
    world.applying.held = True
    large = entry(1, conf=False)._replace(data=bytes(MIB))
    count = APPLY_WAITING_BYTES_MAX // (MIB + ENTRY_OVERHEAD)
    world.applying.take((large,) * count)
    assert not world.applying.full
    world.applying.take((large,))
    assert world.applying.full


@pytest.mark.parametrize("large", [(), (2,)], ids=["small", "large"])
def test_bytes_that_wait_are_counted_until_they_are_applied(large: tuple[int, ...]) -> None:
    world = World(*large)
    sizes = (10, 200, 3_000)
    entries = [entry(at, conf=False) for at in (1, 2, 3)]
    payloads = zip(entries, map(bytes, sizes), strict=True)
    world.applying.held = True
    world.applying.take(tuple(each._replace(data=data) for each, data in payloads))
    assert world.applying.waiting_bytes == sum(sizes) + 3 * ENTRY_OVERHEAD
    world.applying.held = False
    world.applying.go_on()
    assert world.applying.waiting_bytes == (3_000 + ENTRY_OVERHEAD if large else 0)
    while world.applying.busy:
        world.applying.go_on()
    assert world.applying.waiting_bytes == 0


def test_an_install_takes_the_bytes_that_wait_along() -> None:
    world = World(1)
    world.take(1, 5, 3)
    assert world.applying.waiting_bytes
    world.applying.drop()
    assert world.applying.waiting_bytes == 0
