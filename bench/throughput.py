"""Puts and ranges: rates and latencies of three shapes of load, sent to the leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bench.clusters import Cluster
from bench.load import Load, Outcome, Shape
from bench.processes import cpu_seconds
from bench.report import Measure, Report, median

SHAPES: Final = (Shape(1, 1), Shape(10, 20), Shape(100, 1))


class Timed(NamedTuple):
    """One window of one system."""

    outcome: Outcome
    leader_us: float  # CPU of the leader per answer
    members_us: float  # CPU of all members per answer


OPERATIONS: Final = ("put", "range", "serializable")
WORDS: Final = {"put": "put", "range": "linearizable range", "serializable": "serializable range"}


def measure(
    report: Report,
    clusters: Sequence[Cluster],
    *,
    rounds: int,
    warm_s: float,
    seconds: float,
) -> None:
    """All cells of one pair of clusters; rounds alternate between the two systems."""
    size = len(clusters[0].members)
    for operation in OPERATIONS:
        for shape in SHAPES:
            found = _cell(clusters, operation, shape, rounds, warm_s, seconds)
            name = f"{WORDS[operation]} {shape}, {size} member{'s' if size > 1 else ''}"
            _tell(report, name, shape, found)


def _cell(
    clusters: Sequence[Cluster],
    operation: str,
    shape: Shape,
    rounds: int,
    warm_s: float,
    seconds: float,
) -> dict[str, list[Timed]]:
    loads: list[Load] = []
    found: dict[str, list[Timed]] = {}
    try:
        loads.extend(Load(each.target(each.leader()), operation, shape) for each in clusters)
        for _ in range(rounds):
            for cluster, load in zip(clusters, loads, strict=True):
                found.setdefault(cluster.kind, []).append(_run(cluster, load, warm_s, seconds))
    finally:
        for load in loads:
            load.close()
    return found


def _run(cluster: Cluster, load: Load, warm_s: float, seconds: float) -> Timed:
    """One window, and the CPU that the leader and all members spent on each answer in it."""
    leader = cluster.leader()
    before = {m.name: cpu_seconds(m.pid) for m in cluster.members}
    outcome = load.run(warm_s, seconds)
    spent = {m.name: cpu_seconds(m.pid) - before[m.name] for m in cluster.members}
    # The warm-up counts on both sides.
    answers = max(1.0, outcome.answers)
    return Timed(outcome, spent[leader.name] / answers * 1e6, sum(spent.values()) / answers * 1e6)


def _tell(report: Report, name: str, shape: Shape, found: dict[str, list[Timed]]) -> None:
    notes: dict[str, object] = {}
    for kind, windows in found.items():
        outcomes = [each.outcome for each in windows]
        for label, values in (
            ("p50_ms", [o.p50_ms for o in outcomes]),
            ("p99_ms", [o.p99_ms for o in outcomes]),
            ("leader_cpu_us", [each.leader_us for each in windows]),
            ("members_cpu_us", [each.members_us for each in windows]),
            ("generator_cpu_us", [o.client_us for o in outcomes]),
        ):
            notes[f"{kind}_{label}"] = round(median(values) or 0.0, 3)
        errors = sum(o.errors for o in outcomes)
        if errors:
            notes[kind + "_errors"] = errors
            notes[kind + "_first_error"] = next(o.trouble for o in outcomes if o.trouble)
    report.add(_row(name, "requests/s", "higher", found, lambda each: each.outcome.rate, notes))
    if shape.connections == shape.streams == 1:
        row = _row(name + ", p50", "ms", "lower", found, lambda each: each.outcome.p50_ms, {})
    else:
        title = name + ", CPU of all members"
        row = _row(title, "µs/request", "lower", found, lambda each: each.members_us, {})
    report.add(row)


def _row(
    name: str,
    unit: str,
    better: str,
    found: dict[str, list[Timed]],
    pick: Callable[[Timed], float],
    notes: dict[str, object],
) -> Measure:
    ours = [pick(each) for each in found.get("ours", [])]
    etcd = [pick(each) for each in found.get("etcd", [])]
    return Measure(name, unit, better, ours, etcd, notes)
