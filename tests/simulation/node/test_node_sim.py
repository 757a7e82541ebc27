"""Layer B: whole members under faults. A sample; ``make sim`` runs as many seeds as you like."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.node import run
from tests.simulation.node.sim_faults import Nemesis
from tests.simulation.node.sim_kernel import S
from tests.simulation.node.sim_swarm import calm, draw
from tests.simulation.node.sim_world import simulate

ROOT = Path(__file__).resolve().parents[3]
SEEDS_PER_TEST = 10
BATCHES = 5
FIRST_SEED = 700_000  # others than those that `make sim` begins with


# What so few seeds may miss; `make sim` demands it of a hundred.
SELDOM = {
    "a member declines leadership",
    "a damaged log was refused",
    "a damaged log was used",
    "a peer's queue is full",
    "an old copy was told",
    "damage: bit flip",
    "damage: lost write",
    "damage: misdirected write",
    "damage: truncated file",
    "damage: zeroed page",
    "fault: damage",
    "fault: old copy",
    "fault: wipe",
    "leadership is handed over",
    "member promoted",
    "member removed",
    "refused for load",
    "watches overtaken",
}

_seen: Counter[str] = Counter()  # over all batches of this run
_batches: set[int] = set()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_invariants_hold_under_faults(batch: int) -> None:
    counts: Counter[str] = Counter()
    first = FIRST_SEED + batch * SEEDS_PER_TEST
    for seed in range(first, first + SEEDS_PER_TEST):
        try:
            counts.update(simulate(seed).counts)
        except BaseException as error:
            error.add_note(f"replay: make sim SEEDS=1 SEED_START={seed}")
            raise
    wanted = ("acknowledged writes", "reads", "restarts", "heals", "judged", "watched")
    assert not [what for what in wanted if not counts[what]], counts
    _seen.update(counts)
    _batches.add(batch)


def test_every_class_of_faults_happened() -> None:
    """An injector that is dead makes the batches above worth nothing."""
    if len(_batches) < BATCHES:
        pytest.skip("FAULT CLASSES NOT COUNTED: not all batches were run")
    assert not [what for what in run.WANTED if not _seen[what] and what not in SELDOM]


def test_what_failed_once_never_fails_again() -> None:
    for seed in run.kept():
        found = run.one(seed)
        assert not found.problem, f"seed {seed}: {found.problem}"
        # And the way that it went before there were more classes of faults.
        simulate(seed, draw(seed, later=False))


_TRACE = """
from tests.simulation.node.run import one
for seed in range(4):
    found = one(seed)
    print(seed, found.problem, found.trace, sorted(found.counts.items()))
"""


def test_same_seed_same_run_whatever_the_hash_seed() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(set(traces[0].split())) > 4


def test_other_seed_other_run() -> None:
    assert run.one(11).trace != run.one(12).trace


def test_a_run_that_depends_on_the_hash_seed_is_a_failure() -> None:
    found = run.one(11)
    assert run.again(found) == found
    other = run.again(found._replace(trace=found.trace[::-1]))
    assert other.problem == "not the same run under another hash seed"
    assert run.summary([other])[0] == [other]


def test_a_failing_seed_prints_the_command_that_replays_it() -> None:
    found = run.Found(4711, "I1 two leaders", "", 0.0, 0.0, 0, Counter())
    what, replay = run.failure(found).splitlines()
    assert what == "seed 4711: I1 two leaders"
    assert replay.startswith("  replay: make sim SEEDS=1 SEED_START=4711")
    rule = (ROOT / "Makefile").read_text()
    assert "tests.simulation.node.run --seeds $(SEEDS) --start $(SEED_START)" in rule


def test_a_dead_injector_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in which a class of faults never happens is no proof, and says so."""
    found = run.Found(1, "", "", 1.0, 1.0, 0, Counter(dict.fromkeys(run.WANTED, 1)))
    assert run.summary([found] * run.ENOUGH)[1] == []
    dead = found._replace(counts=Counter({**found.counts, "fault: power": 0}))
    assert run.summary([dead] * run.ENOUGH)[1] == ["fault: power"]
    monkeypatch.setattr(Nemesis, "_go_on", lambda *_: None)
    world = simulate(3)
    assert not [what for what in world.counts if what.startswith("fault: power")]


@pytest.mark.parametrize("members", [1, 3, 5])
def test_a_calm_cluster_serves(members: int) -> None:
    """Without faults nothing is unknown, refused or elected twice."""
    world = simulate(5, calm(members=members, compactions=0.0), safety=5 * S)
    assert world.checks.elections == 1
    assert not world.counts["unknown outcomes"]
    assert world.counts["acknowledged writes"] > 10


def test_the_real_clock_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """I23: a room that asks the system by itself is found."""
    from configsvc.runtime.housekeeping import Housekeeping

    tick = Housekeeping.tick

    def asks(self: Any) -> None:
        import time

        time.time()
        tick(self)

    monkeypatch.setattr(Housekeeping, "tick", asks)
    with pytest.raises(AssertionError, match="I23"):
        simulate(1, calm())
