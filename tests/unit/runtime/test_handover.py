"""Who gets the leadership, how long writes wait for it, and when it is called off (D2, E2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.errors import (
    ConfigServiceError,
    ConflictError,
    LeaderChangedError,
    RequestTimeoutError,
)
from configsvc.limits import SQL_LAG_ENTRIES_MAX
from configsvc.runtime.disk_health import DiskState
from configsvc.runtime.handover import Handover
from configsvc.runtime.housekeeping import PeerReport
from configsvc.types import NodeId
from tests.unit.runtime.runtime_fakes import FakeMember, peer


class World:
    def __init__(self, *matches: int) -> None:
        self.member = FakeMember()
        self.asked: list[int] = []
        self.promotable: list[bool] = []
        self.refused: list[ConfigServiceError] = []
        self.answers: list[bytes | ConfigServiceError] = []
        raft: Any = self.member.machine.raft
        raft.last_index = 5_000
        raft.progress = {who: peer(match) for who, match in enumerate((5_000, *matches), 1)}
        raft.transfer_leader = self._ask
        raft.set_promotable = self.promotable.append
        self.transferable: list[bool] = []
        raft.set_transferable = self.transferable.append
        self.off: set[int] = set()  # whose clock is wrong
        member: Any = self.member
        member.wake = lambda: None
        member.stopping = False
        member.membership = SimpleNamespace(leaving=False)
        member.disk = SimpleNamespace(state=DiskState.OK, age_s=0.0)
        member.cluster_health = SimpleNamespace(clock_off=False, is_off=self.off.__contains__)
        member.housekeeping.hold_writes = lambda: False
        member.proposals = SimpleNamespace(fail_queued=self.refused.append)
        self.handover = Handover(member)

    def _ask(self, target: int) -> None:
        self.asked.append(target)
        raft: Any = self.member.machine.raft
        raft.transferee = NodeId(0 if target == self.member.self_id else target)

    def declined(self) -> None:
        """The core has the target's word."""
        self.member.machine.raft.transferee = NodeId(0)
        self.after(0.05)

    def after(self, seconds: float) -> None:
        self.member.clock.now += seconds
        self.handover.tick()


@pytest.mark.parametrize(
    ("matches", "bad", "caught_up", "target"),
    [
        pytest.param((4_000, 4_900), {}, False, 3, id="highest-match"),
        pytest.param((4_900, 4_900), {}, False, 2, id="lowest-id-of-equals"),
        pytest.param((4_000, 4_900), {3: DiskState.HUNG}, False, 2, id="not-a-hung-disk"),
        pytest.param((4_900, 4_900), {2: DiskState.FULL}, False, 3, id="not-a-full-disk"),
        pytest.param((4_900, 100), {2: DiskState.SLOW}, False, 3, id="well-before-slow"),
        pytest.param(
            (4_900, 100), {2: DiskState.SLOW, 3: DiskState.SLOW}, False, 2, id="slow-before-nobody"
        ),
        pytest.param((4_900, 100), {2: DiskState.SLOW}, True, 2, id="slow-before-far-behind"),
        pytest.param((100, 200), {}, True, 0, id="nobody-is-caught-up"),
        pytest.param((100, 4_000), {}, True, 3, id="caught-up-enough"),
    ],
)
def test_the_best_voter_gets_it(
    matches: tuple[int, ...], bad: dict[int, DiskState], caught_up: bool, target: int
) -> None:
    world = World(*matches)
    world.member.housekeeping.peers = {
        who: PeerReport(1, 0, 0, state, 0) for who, state in bad.items()
    }
    assert world.handover.begin(caught_up=caught_up) == bool(target)
    assert world.asked == ([target] if target else [])


@pytest.mark.parametrize(("slow", "target"), [({}, 2), ({2}, 3), ({2, 3}, 0)])
def test_E3_a_slow_leader_hands_over_to_a_healthy_voter_or_to_nobody(
    slow: set[int], target: int
) -> None:
    world = World(4_950, 4_900)
    world.member.housekeeping.peers = {who: PeerReport(1, 0, 0, DiskState.SLOW, 0) for who in slow}
    assert world.handover.begin(caught_up=True, healthy=True) == bool(target)
    assert world.asked == ([target] if target else [])


@pytest.mark.parametrize("disk", [DiskState.SLOW, DiskState.HUNG, DiskState.FULL])
def test_E3_a_member_with_an_unwell_disk_declines_what_an_operator_asks(disk: DiskState) -> None:
    world = World(4_900, 4_900)
    world.member.housekeeping.peers = {2: PeerReport(1, 0, 0, disk, 0)}
    with pytest.raises(ConflictError, match="declines leadership"):
        world.handover.ask(2)
    assert (world.asked, world.handover.under_way) == ([], None)
    world.handover.ask(3)
    assert world.asked == [3]


@pytest.mark.parametrize("wrong", ["clock", "history"])
def test_E3_so_does_one_with_a_wrong_clock_or_far_behind_in_sql(wrong: str) -> None:
    world = World(4_900, 4_000)
    lag = SQL_LAG_ENTRIES_MAX // 2 if wrong == "history" else 0
    world.member.housekeeping.peers = {2: PeerReport(1, 0, lag, DiskState.OK, 0)}
    world.off.update({2} if wrong == "clock" else ())
    with pytest.raises(ConflictError, match=wrong):
        world.handover.ask(2)
    assert world.handover.begin()
    assert world.asked == [3]


@pytest.mark.parametrize(
    ("room", "name", "value"),
    [
        ("", "stopping", True),
        ("membership", "leaving", True),
        ("disk", "state", DiskState.SLOW),
        ("disk", "state", DiskState.HUNG),
        ("disk", "state", DiskState.FULL),
        ("disk", "age_s", 0.6),
        ("housekeeping", "hold_writes", lambda: True),
        ("cluster_health", "clock_off", True),
    ],
)
def test_E3_this_member_declines_while_something_is_wrong_with_it(
    room: str, name: str, value: object
) -> None:
    world = World(4_900, 4_900)
    where: Any = getattr(world.member, room) if room else world.member
    well = getattr(where, name)
    for now in (well, value, value, well):
        setattr(where, name, now)
        world.after(0.05)
    assert world.transferable == [False, True]
    assert world.promotable == [], "it may campaign all the same"


def test_E3_when_one_declines_the_next_best_is_asked_and_then_writes_go_on() -> None:
    world = World(4_950, 4_900)
    assert world.handover.begin()
    waiting = world.handover.under_way
    assert waiting is not None
    waiting.bind(world.answers.append)
    world.declined()
    assert (world.asked, world.answers) == ([2, 3], [])
    world.declined()
    assert [str(a) for a in world.answers] == ["the member declines leadership"]
    assert world.handover.under_way is None
    assert not world.handover.begin(), "neither is asked again at once"
    world.after(1.0)
    assert world.handover.begin()
    assert world.asked == [2, 3, 2]


def test_E3_an_operator_hears_that_the_member_of_their_choice_declines() -> None:
    world = World(4_950, 4_900)
    world.handover.ask(2).bind(world.answers.append)
    world.declined()
    assert [type(a) for a in world.answers] == [ConflictError]
    assert world.asked == [2]
    assert world.refused == []


def test_learners_and_the_silent_are_no_successors() -> None:
    world = World(4_900, 4_000)
    world.member.machine.raft.progress[2] = peer(4_900, active=False)
    world.member.machine.raft.progress[4] = peer(5_000)  # no voter
    assert world.handover.begin()
    assert world.asked == [3]


def test_writes_wait_a_moment_only() -> None:
    world = World(4_900, 4_900)
    world.handover.begin()
    world.after(0.2)
    assert world.refused == []
    world.after(0.1)
    assert [type(e) for e in world.refused] == [LeaderChangedError]


@pytest.mark.parametrize(
    ("lead", "answer"),
    [
        pytest.param(2, bytes, id="it-leads"),
        pytest.param(3, LeaderChangedError, id="another-one-leads"),
    ],
)
def test_the_caller_hears_who_leads(lead: int, answer: type) -> None:
    world = World(4_900, 4_000)
    world.handover.transfer_to(2).bind(world.answers.append)
    world.handover.leadership(NodeId(0))
    world.handover.leadership(NodeId(1))
    assert world.answers == []
    world.handover.leadership(NodeId(lead))
    assert [type(a) for a in world.answers] == [answer]
    assert world.handover.under_way is None


def test_called_off_after_an_election_timeout() -> None:
    world = World(4_900, 4_000)
    world.handover.transfer_to(2).bind(world.answers.append)
    world.after(1.0)
    assert [type(a) for a in world.answers] == [RequestTimeoutError]
    world.after(1.0)
    assert len(world.answers) == 1


def test_a_second_transfer_ends_the_first() -> None:
    world = World(4_900, 4_000)
    world.handover.transfer_to(2).bind(world.answers.append)
    world.handover.transfer_to(3)
    assert [type(a) for a in world.answers] == [LeaderChangedError]
    assert world.asked == [2, 3]


def test_leading_already_is_done_at_once() -> None:
    world = World(4_900, 4_000)
    world.handover.transfer_to(1).bind(world.answers.append)
    assert world.answers == [b""]
    assert world.asked == []


def test_every_reason_must_go_before_it_campaigns_again() -> None:
    world = World(4_900, 4_000)
    assert world.handover.set_fit("disk", fit=False)
    assert world.handover.set_fit("space", fit=False)
    assert not world.handover.set_fit("space", fit=False)  # no news
    assert world.handover.set_fit("disk", fit=True)
    assert world.promotable[-1] is False
    assert world.handover.set_fit("space", fit=True)
    assert world.promotable[-1] is True
