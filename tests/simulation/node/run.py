"""``make sim``: many seeds, on as many processes as there are cores.

A failing seed prints the one command that replays it and is kept in ``regressions.txt``, which
every ``make test`` replays. The figures at the end are those of ``tests/DESIGN.md``. A run of 100
seeds or more in which some class of faults never happened fails too: a dead injector proves
nothing. One seed in a hundred is run again under another hash seed and must go the same way.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.simulation.node.sim_damage import KINDS
from tests.simulation.node.sim_world import simulate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
REGRESSIONS = HERE.parent / "regressions.txt"
AGAIN_EVERY = 100  # one seed of so many is run twice
CHUNK = 10
ENOUGH = 100  # seeds that must have seen everything,
# but for these, which need more:
RARE = {
    "a peer's queue is full": 1_000,
    "an old copy was told": 400,
    "fault: wipe": 400,
    "key change ended by a start": 400,
    **{f"damage: {kind}": 400 for kind in KINDS},
    "a member declines leadership": 1_000,
    "member promoted": 5_000,
    "refused for load": 1_000,
}
WANTED = (
    *(f"damage: {kind}" for kind in KINDS),
    "a member declines leadership",
    "a peer's queue is full",
    "acknowledged writes",
    "compactions",
    "fault: clock jump",
    "fault: clog",
    "a damaged log was refused",
    "a damaged log was used",
    "an old copy was told",
    "fault: crash between two steps",
    "fault: damage",
    "fault: failing disk",
    "fault: full disk",
    "fault: half-open link",
    "fault: hung disk",
    "alarm disarmed",
    "fault: key change",
    "fault: kill",
    "histories in SQLite",
    "key change ended by a start",
    "key changed",
    "over the quota",
    "fault: narrow link",
    "fault: old copy",
    "fault: partition",
    "fault: pause",
    "fault: power",
    "fault: power for all",
    "fault: read-only disk",
    "fault: reset",
    "fault: slow disk",
    "fault: slow history",
    "fault: slow link",
    "fault: transfer",
    "heals",
    "held and then at once",
    "installed",
    "leadership is handed over",
    "leases ran out",
    "lost",
    "member added",
    "fault: wipe",
    "member promoted",
    "member removed",
    "minorities",
    "reads",
    "refused at once",
    "refused for load",
    "renewals",
    "repeated",
    "restarts",
    "the disk hangs",
    "the leader is silent",
    "the process stood still",
    "this member's clock is far from the others'",
    "unknown outcomes",
    "vanished",
    "watches overtaken",
)


class Found(NamedTuple):
    """What one seed gave; ``problem`` is empty when all was well."""

    seed: int
    problem: str
    trace: str
    virtual_s: float
    cpu_s: float
    faults: int
    counts: Counter[str]


def one(seed: int) -> Found:
    """Run a seed and catch whatever it finds."""
    began = time.process_time()
    try:
        world = simulate(seed)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Found(seed, problem, "", 0.0, time.process_time() - began, 0, Counter())
    return Found(
        seed,
        "",
        world.checks.trace.hexdigest(),
        world.kernel.now / 1e9,
        time.process_time() - began,
        world.faults,
        world.counts,
    )


def again(found: Found) -> Found:
    """Run a seed a second time, under another hash seed: any difference is a finding."""
    code = f"from tests.simulation.node.run import one; print(one({found.seed}).trace)"
    hash_seed = str(found.seed % 1000 + 1)
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    if done.stdout.strip() == found.trace:
        return found
    return found._replace(problem="not the same run under another hash seed")


def chunk(seeds: list[int]) -> list[Found]:
    found = [one(seed) for seed in seeds]
    return [again(f) if not f.problem and f.seed % AGAIN_EVERY == 0 else f for f in found]


def kept() -> list[int]:
    """Seeds that failed once."""
    if not REGRESSIONS.exists():
        return []
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def keep(found: Found) -> None:
    if found.seed not in kept():
        with REGRESSIONS.open("a") as file:
            file.write(f"{found.seed} {found.problem[:100]}\n")


def failure(found: Found) -> str:
    """What was found, and the one command that shows it again, of this very commit."""
    asked = ("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    try:
        commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    at = f"  # commit {commit}" if commit else ""
    replay = f"make sim SEEDS=1 SEED_START={found.seed}"
    return f"seed {found.seed}: {found.problem}\n  replay: {replay}{at}"


def summary(all_found: Iterable[Found]) -> tuple[list[Found], list[str], str]:
    """(failures, what never happened, the line of figures)."""
    found = list(all_found)
    failures = [f for f in found if f.problem]
    counts: Counter[str] = Counter()
    for f in found:
        counts.update(f.counts)
    missing = [w for w in WANTED if not counts[w] and len(found) >= RARE.get(w, ENOUGH)]
    virtual = sum(f.virtual_s for f in found)
    cpu = sum(f.cpu_s for f in found) or 1e-9
    line = (
        f"{len(found)} seeds, {len(failures)} failed; {virtual / 3600:.2f} cluster-hours in "
        f"{cpu:.0f} CPU-s = {virtual / cpu:.0f}x real time; "
        f"{sum(f.faults for f in found) / cpu:.0f} faults per CPU-s; "
        f"{counts['judged']} operations and {counts['watched']} watch events judged, "
        f"{counts['searched']} histories searched a second time, {counts['undecided']} undecided"
    )
    return failures, missing, line


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="what happened, of a single seed")
    asked = parser.parse_args(argv)
    if asked.verbose:
        log: list[str] = []
        try:
            simulate(asked.start, log=log)
        finally:
            print("\n".join(log))
        return 0
    seeds = list(range(asked.start, asked.start + asked.seeds))
    parts = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    found: list[Found] = []
    with ProcessPoolExecutor(max(1, min(asked.jobs, len(parts)))) as pool:
        for results in pool.map(chunk, parts):
            for result in results:
                found.append(result)
                if result.problem:
                    keep(result)
                    print(failure(result), flush=True)
    failures, missing, line = summary(found)
    print(line)
    for what in missing:
        print(f"never happened: {what}")
    return 1 if failures or missing else 0


if __name__ == "__main__":
    sys.exit(main())
