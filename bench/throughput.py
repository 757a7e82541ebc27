"""Puts and ranges: rates and latencies of three shapes of load, sent to the leader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.clusters import Cluster
from bench.load import Load, Outcome, Shape
from bench.report import Measure, Report, median

SHAPES: Final = (Shape(1, 1), Shape(10, 20), Shape(100, 1))
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
) -> dict[str, list[Outcome]]:
    loads: list[Load] = []
    found: dict[str, list[Outcome]] = {}
    try:
        for cluster in clusters:
            loads.append(Load(cluster.target(cluster.leader()), operation, shape))
        for _ in range(rounds):
            for cluster, load in zip(clusters, loads, strict=True):
                found.setdefault(cluster.kind, []).append(load.run(warm_s, seconds))
    finally:
        for load in loads:
            load.close()
    return found


def _tell(report: Report, name: str, shape: Shape, found: dict[str, list[Outcome]]) -> None:
    notes: dict[str, object] = {}
    for kind, outcomes in found.items():
        notes[kind + "_p50_ms"] = round(median([o.p50_ms for o in outcomes]) or 0, 3)
        notes[kind + "_p99_ms"] = round(median([o.p99_ms for o in outcomes]) or 0, 3)
        notes[kind + "_generator_us"] = round(median([o.client_us for o in outcomes]) or 0, 1)
        errors = sum(o.errors for o in outcomes)
        if errors:
            notes[kind + "_errors"] = errors
            notes[kind + "_first_error"] = next(o.trouble for o in outcomes if o.trouble)
    rows: list[tuple[str, str, str, str]] = [(name, "requests/s", "higher", "rate")]
    if shape.connections == shape.streams == 1:
        rows.append((name + ", p50", "ms", "lower", "p50_ms"))
    for title, unit, better, attribute in rows:
        measure_ = Measure(title, unit, better, notes=notes if attribute == "rate" else {})
        for kind, outcomes in found.items():
            values = [float(getattr(o, attribute)) for o in outcomes]
            if kind == "ours":
                measure_.ours = values
            else:
                measure_.etcd = values
        report.add(measure_)
