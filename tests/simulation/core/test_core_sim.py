"""Layer A: the core and the plan under faults, with invariants checked at every step."""

from __future__ import annotations

from collections import Counter

import pytest
from core_sim_checks import Checks
from core_sim_world import World

from configsvc.raft.messages import ConfState, Entry
from configsvc.types import LogIndex, NodeId, Term

SEEDS_PER_TEST = 25
BATCHES = 10


def simulate(seed: int) -> World:
    """Faults, then a heal that must end in progress (I24)."""
    world = World(seed)
    world.run(250)
    world.heal()
    payload = b"after the heal"
    for _ in range(60):
        world.run(10)
        leader = world.leader()
        if leader is not None and payload not in [v[1] for v in world.checks.committed.values()]:
            world._on(leader, leader.core.propose, [payload])
        if world.converged(payload):
            break
    assert world.converged(payload), "I24 no progress after the heal"
    for _ in range(30):
        if not world.counters_in_use():
            break
        world.run(10)
    assert not world.counters_in_use(), "I22 counters do not return to zero"
    return world


@pytest.mark.parametrize("batch", range(BATCHES))
def test_invariants_hold_under_faults(batch: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(batch * SEEDS_PER_TEST, (batch + 1) * SEEDS_PER_TEST):
        try:
            counts.update(simulate(seed).checks.counts)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # A simulator in which nothing happens proves nothing.
    wanted = ("leaders", "reads", "restarts", "compactions", "installs", "changes")
    assert not [what for what in wanted if counts[what] == 0], counts


def test_same_seed_same_run() -> None:
    first, second = simulate(7), simulate(7)
    assert first.now == second.now
    assert first.checks.committed == second.checks.committed
    assert first.checks.votes == second.checks.votes
    assert first.serial == second.serial


def test_the_checks_can_fail() -> None:
    checks = Checks()
    one = Entry(Term(1), LogIndex(1), 0, b"a")
    checks.committed_entry(one)
    with pytest.raises(AssertionError, match="I3"):
        checks.committed_entry(one._replace(data=b"b"))
    checks.applied(1, 5, ConfState())
    with pytest.raises(AssertionError, match="I10"):
        checks.applied(1, 6, ConfState())
    with pytest.raises(AssertionError, match="I11"):
        checks.applied(1, 5, ConfState(voters=(NodeId(1),)))
