"""Liveness on every network of directed links that may serve (C9, #32).

A member that reaches a majority, and is reached by it, can lead. Whatever the other links are
(one-way, a bridge between halves, a ring, somebody who only sends), such a cluster must have a
leader soon, commit, and keep that leader. The graphs are all of up to four members, up to
symmetry but for who leads when the links break, and a sample of five; ``GRAPHS=n`` takes n of
those.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

import pytest
from core_sim_checks import Checks
from core_sim_world import CALM, ELECTION_TICKS, World

from configsvc.raft.messages import Role

Link = tuple[int, int]  # from, to; 0 is who leads when the links break
Graph = frozenset[Link]

COMMIT_TICKS = 20 * ELECTION_TICKS  # I24
KEEP_TICKS = 5 * ELECTION_TICKS
OF_FIVE = int(os.environ.get("GRAPHS", "60"))


def graphs(members: int) -> Iterator[Graph]:
    """All, one of each kind."""
    links = list(itertools.permutations(range(members), 2))
    others = list(itertools.permutations(range(1, members)))
    seen: set[Graph] = set()
    for bits in range(1 << len(links)):
        graph = frozenset(link for at, link in enumerate(links) if bits >> at & 1)
        if graph in seen:
            continue
        for order in others:
            name = (0, *order)
            seen.add(frozenset((name[a], name[b]) for a, b in graph))
        yield graph


def may_lead(graph: Graph, members: int) -> list[int]:
    """Who has links both ways with so many that they are a majority together."""
    return [
        one
        for one in range(members)
        if sum((one, b) in graph and (b, one) in graph for b in range(members)) >= members // 2
    ]


def serves(graph: Graph, members: int, seed: int) -> None:
    """Break the links that are not in ``graph``: a commit, by a leader that stays."""
    world = World(seed, members=members, faults=CALM)
    for _ in range(20):
        world.run(ELECTION_TICKS)
        leader = world.leader()
        if leader is not None and len({m.machine for m in world.members.values()}) == 1:
            break
    assert leader is not None, "no leader on a whole network"
    order = [leader.id, *sorted(i for i in world.members if i != leader.id)]
    links = itertools.permutations(range(members), 2)
    world.cut = {(order[a], order[b]) for a, b in links if (a, b) not in graph}
    world.run(3 * ELECTION_TICKS)  # whoever cannot lead any more has noticed
    _commit(world, b"on what is left")
    terms = max(m.core.term for m in world.members.values())
    world.run(KEEP_TICKS)
    _commit(world, b"and later")
    assert max(m.core.term for m in world.members.values()) <= terms + 1, "I24 leaders change"


def _commit(world: World, payload: bytes) -> None:
    for _ in range(COMMIT_TICKS // 5):
        for member in list(world.members.values()):
            if member.core.role is Role.LEADER and member.core.term >= _highest(world):
                world._on(member, member.core.propose, [payload])
        world.run(5)
        if payload in _committed(world.checks):
            return
    raise AssertionError(f"I24 {payload!r} is not committed")


def _highest(world: World) -> int:
    return max(m.core.term for m in world.members.values() if m.core.role is Role.LEADER)


def _committed(checks: Checks) -> set[bytes]:
    return {data for _, data in checks.committed.values()}


def judge(graph: Graph, members: int, seed: int) -> None:
    try:
        serves(graph, members, seed)
    except BaseException as error:
        error.add_note(f"links {sorted(graph)} of {members} members, seed {seed}")
        raise


@pytest.mark.parametrize("members", [2, 3, 4])
def test_every_graph_with_a_possible_leader_serves(members: int) -> None:
    tried = 0
    for seed, graph in enumerate(graphs(members)):
        if may_lead(graph, members):
            judge(graph, members, seed)
            tried += 1
    print(f"{tried} graphs of {members} members")
    assert tried >= {2: 1, 3: 10, 4: 200}[members]


def test_graphs_of_five_serve() -> None:
    links = list(itertools.permutations(range(5), 2))
    rng = random.Random(5)
    tried = 0
    while tried < OF_FIVE:
        graph = frozenset(link for link in links if rng.random() < 0.6)
        if may_lead(graph, 5):
            judge(graph, 5, tried)
            tried += 1
    print(f"{tried} graphs of 5 members")


NAMED = {
    "a bridge between halves": {(2, b) for b in range(5)} | {(a, 2) for a in range(5)},
    "the leader only sends": {(a, b) for a in range(5) for b in range(5) if b != 0},
    "two see only the third": {(0, 2), (2, 0), (1, 2), (2, 1)},
}


@pytest.mark.parametrize("name", NAMED)
def test_shapes_that_took_others_down(name: str) -> None:
    graph = frozenset((a, b) for a, b in NAMED[name] if a != b)
    members = 1 + max(a for a, _ in graph)
    for seed in range(3):
        judge(graph, members, seed)


@pytest.mark.parametrize("rule", ["pre_vote", "check_quorum"])
def test_without_its_rules_the_core_does_not_serve(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary: each of the two rules alone leaves some graph without a useful leader (C9)."""
    import core_sim_world

    made = core_sim_world.RaftConfig

    def lax(**settings: object) -> object:
        return made(**{**settings, rule: False})  # type: ignore[arg-type]

    monkeypatch.setattr(core_sim_world, "RaftConfig", lax)
    with pytest.raises(AssertionError, match="I24"):
        for seed, graph in enumerate(graphs(3)):
            if may_lead(graph, 3):
                serves(graph, 3, seed)
