"""Members that computed something else: who is told, who raises the alarm, who ends (A3, L6)."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest
from runtime_fakes import FakeMember

from configsvc.apply.state import CORRUPT
from configsvc.errors import DecodeError, ExitCode, OverloadedError
from configsvc.raft.messages import ConfState
from configsvc.runtime.disk_health import DiskState
from configsvc.runtime.housekeeping import (
    DIGESTS_KEPT,
    FRAME_DIVERGED,
    FRAME_ENVELOPE,
    Housekeeping,
)
from configsvc.types import NodeId

GOOD, BAD = b"g" * 16, b"b" * 16
ENVELOPE = struct.Struct("<Q16sQIBI")


class World:
    """One member's housekeeping, and the frames that it sends."""

    def __init__(self, voters: int = 3) -> None:
        self.member = cast(Any, FakeMember())
        self.sent: list[tuple[int, int, bytes]] = []
        self.member.net.send_frame = self._send
        self.member.machine.conf_state = ConfState(
            voters=tuple(NodeId(n) for n in range(1, voters + 1))
        )
        self.member.time_ns = self.member.clock.time_ns
        self.keeping = Housekeeping(self.member)
        self.keeping.note_digest(10, GOOD)

    def _send(self, peer: int, kind: int, body: bytes) -> bool:
        self.sent.append((peer, kind, body))
        return True

    def hears(self, peer: int, index: int, digest: bytes, **more: int) -> None:
        wall = self.member.time_ns() + more.get("ahead_ns", 0)
        disk = more.get("disk", 0)
        body = ENVELOPE.pack(index, digest, wall, more.get("lag", 0), disk, more.get("age", 0))
        assert self.keeping.on_frame(NodeId(peer), FRAME_ENVELOPE, body)


def test_equal_digests_are_silent() -> None:
    world = World()
    for peer in (2, 3):
        world.hears(peer, 10, GOOD)
    assert (world.sent, world.member.alarms, world.member.report.lines) == ([], [], [])


def test_who_differs_from_a_majority_is_told() -> None:
    world = World()
    world.hears(3, 10, BAD)
    assert world.sent == [(3, FRAME_DIVERGED, struct.pack("<Q16s", 10, GOOD))]
    assert world.member.alarms == []


def test_without_a_majority_that_agrees_the_alarm_is_raised() -> None:
    world = World()
    world.hears(3, 10, BAD)
    world.sent.clear()
    world.hears(2, 10, BAD)
    assert world.member.alarms == [2]
    assert world.sent == [], "nobody knows who is right"


def test_of_five_two_may_differ() -> None:
    world = World(voters=5)
    world.hears(2, 10, BAD)
    world.hears(3, 10, BAD)
    assert [peer for peer, _, _ in world.sent] == [2, 3]
    world.hears(4, 10, BAD)
    assert world.member.alarms == [2]


def test_who_agrees_again_counts_again() -> None:
    """An install put it right."""
    world = World()
    world.hears(3, 10, BAD)
    world.hears(3, 10, GOOD)
    world.hears(2, 10, BAD)
    assert [peer for peer, _, _ in world.sent] == [3, 2]
    assert world.member.alarms == []


def test_only_the_leader_judges_and_only_what_it_remembers() -> None:
    world = World()
    world.hears(3, 11, BAD)
    world.member.is_leader = False
    world.hears(3, 10, BAD)
    assert world.sent == []


def test_the_last_digests_are_kept_and_no_more() -> None:
    world = World()
    for index in range(11, 11 + DIGESTS_KEPT):
        world.keeping.note_digest(index, GOOD)
    world.hears(3, 10, BAD)
    assert world.sent == [], "forgotten"
    world.hears(3, 11, BAD)
    assert len(world.sent) == 1
    assert len(world.keeping._by_index) == DIGESTS_KEPT


def test_after_an_install_nothing_older_is_compared() -> None:
    world = World()
    world.keeping.installed(20, GOOD)
    world.hears(3, 10, BAD)
    assert world.sent == []
    world.hears(3, 20, BAD)
    assert len(world.sent) == 1


# --- the member that is told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "digest", "code"),
    [(10, BAD, ExitCode.DIVERGED), (10, GOOD, None), (9, BAD, None)],
    ids=["differs", "agrees-after-all", "not-remembered"],
)
def test_who_is_told_looks_itself(index: int, digest: bytes, code: ExitCode | None) -> None:
    world = World()
    world.keeping.on_frame(NodeId(1), FRAME_DIVERGED, struct.pack("<Q16s", index, digest))
    died = world.member.died
    assert (died and died.code) == code


def test_what_an_envelope_says_is_kept() -> None:
    world = World()
    world.hears(2, 7, GOOD, ahead_ns=5, lag=3, disk=int(DiskState.SLOW), age=9)
    assert world.keeping.peers[2] == (7, 5, 3, DiskState.SLOW, 9)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FRAME_ENVELOPE, b""),
        (FRAME_ENVELOPE, bytes(ENVELOPE.size + 1)),
        (FRAME_ENVELOPE, ENVELOPE.pack(1, GOOD, 1, 0, 4, 0)),
        (FRAME_DIVERGED, bytes(23)),
    ],
    ids=["empty", "too-long", "unknown-disk", "short-notice"],
)
def test_malformed_frames_are_refused(kind: int, body: bytes) -> None:
    with pytest.raises(DecodeError):
        World().keeping.on_frame(NodeId(2), kind, body)


def test_an_alarm_that_finds_no_room_costs_nobody_a_connection() -> None:
    world = World()

    def full(_: int) -> None:
        raise OverloadedError

    raised, world.member.raise_alarm = world.member.raise_alarm, full
    for peer in (2, 3):
        world.hears(peer, 10, BAD)
    world.member.raise_alarm = raised
    world.hears(3, 10, BAD)
    assert world.member.alarms == [CORRUPT]
