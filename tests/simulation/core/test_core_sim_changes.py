"""Every change of the configuration, with every member lost at every step (M3).

For one to five voters: each simple change, and joint ones; while it is under way one member
crashes, at each point at which it may, and comes back or never does. The rest must have a leader
and commit (I24), unless whoever is lost for good was needed by the voters before the change or by
those after: that is left over, and listed here by name.

Not here: two members lost inside one change, and the shell's part of it (lingering, transfers
before a leader goes), which the whole members of ``simulation/node`` have.

A sample in every run; ``CHANGES=1`` takes every case.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from core_sim_member import Crash, Machine, Member
from core_sim_world import CALM, ELECTION_TICKS, World

from configsvc.raft import dispatch, election
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    Message,
    MessageType,
)
from configsvc.raft.state import Raft
from configsvc.types import NodeId

ADD = ConfChangeType.ADD_NODE
REMOVE = ConfChangeType.REMOVE_NODE
LEARNER = ConfChangeType.ADD_LEARNER

Singles = tuple[tuple[ConfChangeType, int], ...]  # what, and with whom: a place

PROGRESS_TICKS = 20 * ELECTION_TICKS
UNDER_WAY_TICKS = 3 * ELECTION_TICKS
BACK_TICKS = 2 * ELECTION_TICKS
STEPS_LIKELY = 24
FOR_GOOD = 10**9
ALL = bool(os.environ.get("CHANGES"))
SAMPLE = 60  # cases for each number of voters


class Change(NamedTuple):
    """Places: 0 is the leader, up to n-1 the other voters, n and n+1 members to be added."""

    name: str
    what: Singles
    before: Singles = ()  # done and settled first


class Case(NamedTuple):
    change: Change
    lost: int  # a place
    step: int  # of the lost member's own, since the change was proposed
    back: bool


def changes(voters: int) -> Iterator[Change]:
    """Of a leader that stays; one that goes hands over first (5.5 c)."""
    last, new, newer = voters - 1, voters, voters + 1
    yield Change("add", ((ADD, new),))
    yield Change("add a learner", ((LEARNER, new),))
    yield Change("promote", ((ADD, new),), ((LEARNER, new),))
    yield Change("add two", ((ADD, new), (ADD, newer)))
    if voters > 1:
        yield Change("remove", ((REMOVE, last),))
        yield Change("demote", ((LEARNER, last),))
        yield Change("replace", ((ADD, new), (REMOVE, last)))
    if voters > 2:
        yield Change("remove two", ((REMOVE, last), (REMOVE, last - 1)))


# (voters, change) -> places that the voters before or after cannot do without.
LEFT_OVER = {
    (1, "add"): {0, 1},
    (1, "add a learner"): {0},
    (1, "promote"): {0, 1},
    (1, "add two"): {0},
    (2, "add"): {0, 1},
    (2, "add a learner"): {0, 1},
    (2, "promote"): {0, 1},
    (2, "add two"): {0, 1},
    (2, "remove"): {0, 1},
    (2, "demote"): {0, 1},
    (2, "replace"): {0, 1, 2},
    (3, "remove"): {0, 1},
    (3, "demote"): {0, 1},
    (3, "remove two"): {0},
    (4, "remove two"): {0, 1},
}


def needed(change: Change, voters: int) -> set[int]:
    """Who is in every majority of the voters before the change, or of those after it."""
    old = set(range(voters))
    new = old | {who for what, who in change.what if what is ADD}
    new -= {who for what, who in change.what if what is not ADD}
    return {
        lost
        for lost in range(voters + 2)
        if any(2 * len(group - {lost}) <= len(group) for group in (old, new))
    }


@pytest.mark.parametrize("voters", range(1, 6))
def test_what_is_left_over(voters: int) -> None:
    found = {(voters, c.name): needed(c, voters) for c in changes(voters)}
    listed = {key: LEFT_OVER.get(key, set()) for key in found}
    assert found == listed


class Group(World):
    """A calm group of synchronous members; one of them crashes at its moment."""

    def __init__(self, voters: int) -> None:
        super().__init__(voters, members=voters, faults=replace(CALM, changes=1.0))  # with spares
        self.faults = CALM
        self.crashed = False
        self._until = 0  # how long the crashed one stays down

    def _member(self, member: NodeId, start: Machine) -> Member:
        made = super()._member(member, start)
        config = replace(made.config, async_storage_writes=False)
        return Member(config, start, self.rng, self.checks)

    def lose(self, who: NodeId, step: int, *, back: bool) -> None:
        """Crash at its ``step``-th point from now on; 0 is at once."""
        member = self.members[who]
        self._until = BACK_TICKS if back else FOR_GOOD
        if not step:
            self._crash(member)
            return
        meanwhile, left = member._meanwhile, [step]

        def point() -> None:
            left[0] -= 1
            if not left[0]:
                raise Crash
            meanwhile()

        member._meanwhile = point  # type: ignore[method-assign]

    def _crash(self, member: Member) -> None:
        self.crashed = True
        self.down[member.id] = self.now + self._until

    def settled(self) -> Member | None:
        """The leader, once all voters are where it is."""
        leader = self.leader()
        if leader is None:
            return None
        group = [self.members[who] for who in leader.machine.conf.voters]
        same = len({member.machine for member in group}) == 1
        return leader if same and leader.core.raft.committed_in_term() else None


def happens(case: Case, voters: int) -> bool:
    """One case; False: the change was over before the member had come to that step."""
    world = Group(voters)
    leader = _settle(world)
    others = [who for who in sorted(world.members) if who != leader.id]
    places = [leader.id, *others]
    if case.change.before:
        _propose(world, leader, case.change.before, places)
        world.run(UNDER_WAY_TICKS)
    if case.step:
        world.lose(places[case.lost], case.step, back=case.back)
    _propose(world, leader, case.change.what, places)
    if not case.step:
        world.lose(places[case.lost], 0, back=case.back)
    world.run(UNDER_WAY_TICKS)
    if not world.crashed:
        return False
    if case.back or case.lost not in needed(case.change, voters):
        _commit(world, b"afterwards")
    return True


def _settle(world: Group) -> Member:
    for _ in range(20):
        world.run(ELECTION_TICKS)
        leader = world.settled()
        if leader is not None:
            return leader
    raise AssertionError("no leader on a whole network")


def _propose(world: Group, leader: Member, what: Singles, places: list[NodeId]) -> None:
    singles = tuple(ConfChangeSingle(kind, places[place]) for kind, place in what)
    change = ConfChange(singles, ConfChangeTransition.AUTO)
    world._on(leader, leader.core.propose_conf_change, change)


def _commit(world: Group, payload: bytes) -> None:
    """A leader takes a write, and it is committed; the barrier of 5.5 a holds."""
    for _ in range(PROGRESS_TICKS // 5):
        leader = world.leader()
        up = leader is not None and leader.id not in world.down
        if leader is not None and up and not leader.core.conf_change_unapplied:
            world._on(leader, leader.core.propose, [payload])
        world.run(5)
        if payload in {data for _, data in world.checks.committed.values()}:
            return
    roles = {m.id: (m.core.role.name, m.machine.conf) for m in world.members.values()}
    raise AssertionError(f"I24 no write afterwards: {roles}")


def judged(case: Case, voters: int) -> bool:
    try:
        return happens(case, voters)
    except BaseException as error:
        error.add_note(f"{case} of {voters} voters")
        raise


def every(voters: int) -> Iterator[tuple[Change, int, bool]]:
    for change in changes(voters):
        for lost in range(voters + 2):
            for back in (True, False):
                yield change, lost, back


@pytest.mark.parametrize("voters", range(1, 6))
def test_a_change_survives_the_loss_of_a_member_at_any_step(voters: int) -> None:
    happened = 0
    if ALL:
        for change, lost, back in every(voters):
            step = 0
            while judged(Case(change, lost, step, back), voters):
                step += 1
                happened += 1
    else:
        rng = random.Random(voters)
        kinds = list(every(voters))
        while happened < SAMPLE:
            change, lost, back = rng.choice(kinds)
            happened += judged(Case(change, lost, rng.randrange(STEPS_LIKELY), back), voters)
    print(f"{happened} losses of a member while {voters} voters were changed")


def test_members_that_wait_until_they_know_they_are_voters_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The canary: whoever does not vote before its own log says so leaves others without it."""
    request = election.on_vote_request

    def wary(raft: Raft, message: Message) -> None:
        if raft.id in raft.conf.voters:
            request(raft, message)

    for table in (dispatch._FOLLOWER, dispatch._CANDIDATE, dispatch._LEADER):
        for kind in (MessageType.VOTE, MessageType.PRE_VOTE):
            monkeypatch.setitem(table, kind, wary)
    with pytest.raises(AssertionError, match="I24"):
        for change in changes(3):
            step = 0
            while judged(Case(change, 0, step, back=False), 3):
                step += 1
