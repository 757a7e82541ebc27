"""Layer A: the core and the plan under faults, with invariants checked at every step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from core_sim_checks import Checks
from core_sim_world import World

from configsvc.raft.messages import ConfState, Entry
from configsvc.types import LogIndex, NodeId, Term

SEEDS_PER_TEST = 25
BATCHES = 10
REPLAY = (
    "PYTHONPATH=.:tests/simulation/core .venv/bin/python -c "
    "'import test_core_sim; test_core_sim.simulate({})'"
)


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
            error.add_note(f"replay: {REPLAY.format(seed)}")
            raise
    # A simulator in which nothing happens proves nothing.
    wanted = ("leaders", "reads", "restarts", "compactions", "installs", "changes")
    assert not [what for what in wanted if counts[what] == 0], counts


_TRACE = """
import sys
sys.path[:0] = sys.argv[1:]
from test_core_sim import simulate
for seed in range(4):
    checks = simulate(seed).checks
    print(checks.committed, checks.votes, checks.digests, checks.counts)
"""


def test_same_seed_same_run_whatever_the_hash_seed() -> None:
    here = Path(__file__).resolve().parent
    traces = [
        subprocess.run(
            [sys.executable, "-c", _TRACE, str(here), str(here.parents[2])],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert traces[0].count(b"\n") == 4


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
