"""``make mutants``: plant each known bug and run its harness until it is caught.

Every mutant runs in a process of its own. A failing seed counts only if the same seed passes
without the mutant: else it is a finding about the product, is told, and the hunt goes on. The
table of what killed which, and how fast, goes to ``docs/mutants.md``. A mutant that survives its
budget fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from configsvc.errors import ConfigServiceError, InvariantViolationError, ensure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TABLE = ROOT / "docs" / "mutants.md"
CPU_SECONDS = 900  # budget of one mutant
SEEDS_MAX = 5_000
MEDIAN_GOAL_S = 60
# What a check or the product says when it finds a bug. Anything else, such as a wrong number of
# arguments, is a mutant that no longer fits the product: it proves nothing and ends the hunt.
FOUND = (AssertionError, InvariantViolationError, ConfigServiceError)


class Verdict(NamedTuple):
    name: str
    what: str
    killed_by: str  # "" : it survived
    seeds: int
    cpu_s: float


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("m[0-9][0-9]_*.py"))


def load(name: str) -> Any:
    return importlib.import_module(f"tests.simulation.mutants.{name}")


def hunt(name: str, seeds_max: int = SEEDS_MAX, cpu_s: float = CPU_SECONDS) -> Verdict:
    """In this process: plant the mutant, which stays, and run seeds until one fails."""
    from tests.simulation.mutants.plant import Patch

    module = load(name)
    what = (module.__doc__ or "").strip().splitlines()[0]
    module.plant(Patch())
    began = time.process_time()
    for seed in range(1 if _harness(module) == "unit" else seeds_max):
        try:
            _run(module, seed)
        except FOUND as error:
            if not passes_unplanted(name, seed):
                print(f"{name}: seed {seed} fails without the mutant too", file=sys.stderr)
                continue
            text = str(error).splitlines()[0][:90] if str(error) else ""
            killer = text if isinstance(error, AssertionError) else f"{type(error).__name__} {text}"
            return Verdict(name, what, killer, seed + 1, time.process_time() - began)
        if time.process_time() - began > cpu_s:
            return Verdict(name, what, "", seed + 1, time.process_time() - began)
    return Verdict(name, what, "", seeds_max, time.process_time() - began)


def passes_unplanted(name: str, seed: int) -> bool:
    """The control: the same run of the product as it is."""
    code = f"from tests.simulation.mutants.run import once; once({name!r}, {seed})"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True)
    return done.returncode == 0


def once(name: str, seed: int) -> None:
    """One run with the mutant's parameters and without the mutant."""
    _run(load(name), seed)


def _harness(module: Any) -> str:
    return str(getattr(module, "HARNESS", "node"))


def _run(module: Any, seed: int) -> None:
    harness = _harness(module)
    if harness == "unit":
        _unit_run(module.TESTS)
    elif harness == "core":
        _core_run(seed)
    else:
        _node_run(seed, module.SWARM)


class _Failures:
    """A plugin of pytest that remembers the first test that failed."""

    first = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.first:
            self.first = report.nodeid.rpartition("::")[2]


def _unit_run(tests: str) -> None:
    """In this process, where the mutant is planted."""
    seen = _Failures()
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", str(ROOT / tests)], [seen])
    if code == pytest.ExitCode.TESTS_FAILED:
        raise AssertionError(seen.first)
    ensure(code == pytest.ExitCode.OK, f"{tests} could not be run")


def _node_run(seed: int, overrides: dict[str, Any]) -> None:
    from tests.simulation.node.sim_swarm import draw
    from tests.simulation.node.sim_world import simulate

    simulate(seed, draw(seed, overrides))


def _core_run(seed: int) -> None:
    sys.path.insert(0, str(HERE.parent / "core"))
    from test_core_sim import simulate

    simulate(seed)


def judge(name: str) -> Verdict:
    """As ``hunt``, in a process of its own."""
    code = (
        f"from tests.simulation.mutants.run import *; print('\\x1f'.join(map(str, hunt({name!r}))))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr, flush=True)
        return Verdict(name, f"{name} does not fit the product", "", 0, 0.0)
    if done.stderr:
        print(done.stderr.strip(), file=sys.stderr, flush=True)
    _, what, killer, seeds, cpu = done.stdout.strip().split("\x1f")
    return Verdict(name, what, killer, int(seeds), float(cpu))


def table(verdicts: list[Verdict]) -> str:
    killed = [v for v in verdicts if v.killed_by]
    lines = [
        "# Known bugs, planted again",
        "",
        "Generated by `make mutants`. Each row is a bug that a consensus system really had"
        " (numbers as in the",
        "catalogue of the design), put into this product at run time; the simulator then runs"
        " seeds until a check",
        "fails, or the tests of the core run where the simulator cannot see the bug. A mutant that"
        " no check notices",
        "would fail the run.",
        "",
        f"{len(killed)} of {len(verdicts)} killed; median "
        f"{median(v.cpu_s for v in killed) if killed else 0:.1f} CPU-s, worst "
        f"{max((v.cpu_s for v in killed), default=0):.1f} CPU-s.",
        "",
        "| bug | killed by | seeds | CPU-s |",
        "|---|---|---|---|",
    ]
    for v in verdicts:
        killer = v.killed_by.replace("|", "/") or "**survived**"
        lines.append(f"| {v.what} | {killer} | {v.seeds} | {v.cpu_s:.1f} |")
    return "\n".join(lines) + "\n"


def merged(verdicts: list[Verdict], before: str) -> str:
    """The table with the rows of those that were hunted now; the others as they stand."""
    fresh = {v.what: v for v in verdicts}
    rows = dict.fromkeys((load(name).__doc__ or "").strip().splitlines()[0] for name in names())
    kept: list[Verdict] = []
    for line in before.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] in rows and cells[0] not in fresh:
            killer = "" if cells[1] == "**survived**" else cells[1]
            kept.append(Verdict("", cells[0], killer, int(cells[2]), float(cells[3])))
    known = {v.what: v for v in (*kept, *verdicts)}
    return table([known[what] for what in rows if what in known])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("numbers", nargs="*", help="only these; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(argv)
    wanted = {f"m{int(n):02}" for n in asked.numbers}
    chosen = [n for n in names() if not wanted or n.partition("_")[0] in wanted]
    verdicts = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            verdicts.append(verdict)
            state = verdict.killed_by or "SURVIVED"
            print(
                f"{verdict.name:36} {verdict.cpu_s:6.1f} s {verdict.seeds:5}  {state}", flush=True
            )
    survived = [v for v in verdicts if not v.killed_by]
    before = TABLE.read_text() if wanted and TABLE.exists() else ""
    TABLE.write_text(merged(verdicts, before))
    print(f"{len(verdicts) - len(survived)} of {len(verdicts)} killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
