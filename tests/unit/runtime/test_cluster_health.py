"""One wrong clock does not stamp; the cluster speaks what all members speak (A1, V1)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from configsvc.apply.members import Member
from configsvc.codec.command import OP_CLUSTER_VERSION
from configsvc.errors import DecodeError, ExitCode
from configsvc.proto import command_pb2
from configsvc.runtime.cluster_health import FRAME_CLOCK, TOLD_S, ClusterHealth
from configsvc.runtime.disk_health import DiskState
from configsvc.runtime.housekeeping import PeerReport
from configsvc.types import NodeId
from tests.unit.runtime.runtime_fakes import FakeMember

S = 1_000_000_000


def look(member: FakeMember, seconds: float = 1.1) -> ClusterHealth:
    faked: Any = member
    health = ClusterHealth(faked)
    member.clock.now += seconds
    health.tick(member.clock.now)
    return health


def clocks(member: FakeMember, *offsets_s: float) -> None:
    member.housekeeping.peers = {
        who: PeerReport(1, int(offset * S), 0, DiskState.OK, 0)
        for who, offset in enumerate(offsets_s, 2)
    }


def version(member: FakeMember, *versions: str) -> None:
    member.state.members.by_id = {
        who: Member(who, f"m{who}" if spoken else "", (), (), False, b"", spoken)
        for who, spoken in enumerate(versions, 1)
    }


@pytest.mark.parametrize(
    ("offsets", "handed"),
    [
        pytest.param((0.1, -0.2), 0, id="all-agree"),
        pytest.param((9.0, 9.2), 1, id="ours-is-behind"),
        pytest.param((-9.0, -9.2), 1, id="ours-is-ahead"),
        pytest.param((0.1, 3600.0), 0, id="one-other-is-wrong"),
        pytest.param((4.9, 4.9), 0, id="within-bounds"),
        pytest.param((60.0,), 0, id="two-clocks-prove-nothing"),
    ],
)
def test_a_leader_off_the_median_hands_over(offsets: tuple[float, ...], handed: int) -> None:
    member = FakeMember()
    clocks(member, *offsets)
    look(member)
    assert member.handed_over == handed


def test_hand_overs_for_the_clock_are_rare() -> None:
    member = FakeMember()
    clocks(member, 60.0, 60.0)
    health = look(member)
    for _ in range(8):
        member.clock.now += 1.1
        health.tick(member.clock.now)
    assert member.handed_over == 1


def test_A1_a_leader_with_a_wrong_clock_says_so_until_it_is_right_again() -> None:
    member = FakeMember()
    clocks(member, 9.0, 9.2)
    health = look(member)
    assert (health.clock_off, health.clock_ahead_ns) == (True, -9 * S)
    for offset, off in ((4.5, True), (3.9, False), (4.5, False), (-5.1, True)):
        clocks(member, offset, offset)
        member.clock.now += 1.1
        health.tick(member.clock.now)
        assert health.clock_off is off
    assert member.report.lines.count("this member's clock is far from the others'") == 2
    assert member.report.lines.count("this member's clock is right again") == 1


def test_A1_who_handed_over_for_its_clock_knows_it_until_the_next_leader_has_looked() -> None:
    member = FakeMember()
    clocks(member, 9.0, 9.2)
    health = look(member)
    member.is_leader, member.lead = False, NodeId(2)
    for seconds, off in ((1.1, True), (TOLD_S - 2.5, True), (1.5, False)):
        member.clock.now += seconds
        health.tick(member.clock.now)
        assert health.clock_off is off


def test_A1_who_is_off_is_told_by_the_leader_and_nobody_else() -> None:
    member = FakeMember()
    clocks(member, 0.1, -60.0)
    health = look(member)
    assert member.frames == [], "one look may be at what was told before our clock was set"
    assert not health.is_off(NodeId(3))
    member.clock.now += 1.1
    health.tick(member.clock.now)
    assert member.frames == [(3, FRAME_CLOCK, struct.pack("<q", -60 * S))]
    assert [health.is_off(NodeId(who)) for who in (2, 3, 4)] == [False, True, False]
    assert not health.clock_off
    for offset in (0.0, -60.0):
        clocks(member, 0.1, offset)
        member.clock.now += 1.1
        health.tick(member.clock.now)
    assert len(member.frames) == 1
    member.is_leader = False
    member.clock.now += 1.1
    health.tick(member.clock.now)
    assert len(member.frames) == 1


def test_A1_a_follower_believes_its_leader_for_a_while() -> None:
    member = FakeMember()
    member.is_leader, member.lead = False, NodeId(2)
    health = look(member)
    for peer, off in ((3, False), (2, True)):
        health.on_frame(NodeId(peer), struct.pack("<q", 60 * S))
        member.clock.now += 1.1
        health.tick(member.clock.now)
        assert health.clock_off is off
    assert health.clock_ahead_ns == 60 * S
    member.clock.now += TOLD_S
    health.tick(member.clock.now)
    assert not health.clock_off
    with pytest.raises(DecodeError):
        health.on_frame(NodeId(2), b"1234567")


@pytest.mark.parametrize(
    ("spoken", "present", "raised"),
    [
        pytest.param(("3.7.1", "3.7.0", "3.7.4"), "", "3.7.0", id="first"),
        pytest.param(("3.8.0", "3.7.1", "3.8.0"), "", "3.7.0", id="lowest"),
        pytest.param(("3.7.1", "3.7.1", ""), "", None, id="one-has-not-started"),
        pytest.param(("3.7.1", "3.7.1"), "3.7.0", None, id="it-stands"),
        pytest.param(("3.6.9", "3.7.1"), "3.7.0", None, id="never-lowered"),
        pytest.param(("3.7.1", "nonsense"), "", None, id="unreadable"),
        pytest.param(("3.10.0", "3.9.0"), "3.8.0", "3.9.0", id="numbers-not-text"),
    ],
)
def test_the_cluster_version_is_raised_to_the_lowest(
    spoken: tuple[str, ...], present: str, raised: str | None
) -> None:
    member = FakeMember()
    member.config.advertised_etcd_version = "3.10.0"
    version(member, *spoken)
    member.state.cluster_version = present
    look(member)
    found = [
        command_pb2.ClusterVersion.FromString(op).version
        for field, op in member.submitted
        if field == OP_CLUSTER_VERSION
    ]
    assert found == ([raised] if raised else [])


def test_a_program_that_speaks_less_ends() -> None:
    member = FakeMember()
    member.is_leader = False
    member.state.cluster_version = "3.7.0"
    look(member)
    assert member.died is None
    member.state.cluster_version = "3.8.0"
    look(member)
    assert member.died is not None
    assert member.died.code == ExitCode.TOO_NEW
