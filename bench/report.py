"""Figures of one run: the table, and ``results/latest.json``.

Each measure is taken several times, ours and etcd's in turns; medians are compared. A ratio is
ours divided by etcd's: for rates more is better, for times less. Nothing is judged here.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results"


@dataclass(slots=True)
class Measure:
    """One row."""

    name: str
    unit: str
    better: str  # "higher" or "lower"
    ours: list[float] = field(default_factory=list)
    etcd: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def row(self, *, comparable: bool) -> dict[str, Any]:
        """As in the JSON file; ``ratio`` is null where there is nothing to compare."""
        ours, etcd = median(self.ours), median(self.etcd)
        ratio = ours / etcd if comparable and ours is not None and etcd else None
        return {
            "ours": rounded(ours),
            "etcd": rounded(etcd),
            "ratio": rounded(ratio),
            "unit": self.unit,
            "better": self.better,
            "rounds": max(len(self.ours), len(self.etcd)),
            "spread": {"ours": spread(self.ours), "etcd": spread(self.etcd)},
            **self.notes,
        }


def median(values: list[float]) -> float | None:
    """None of nothing."""
    return statistics.median(values) if values else None


def spread(values: list[float]) -> list[float] | None:
    """Lowest and highest."""
    return [float(f"{min(values):.4g}"), float(f"{max(values):.4g}")] if values else None


def rounded(value: float | None) -> float | None:
    """Four digits are more than the machine is worth."""
    return None if value is None else float(f"{value:.4g}")


class Report:
    """Collects measures and says them as they come."""

    def __init__(self, *, quick: bool, etcd_version: str) -> None:
        self.measures: list[Measure] = []
        self.switched_on: dict[str, bool] = {}
        self.missing: list[str] = []  # what could not be measured, and why
        self.quick = quick
        self._etcd_version = etcd_version
        self._began = time.time()
        print(f"{'':44}{'ours':>11}{'etcd':>11}{'ratio':>8}  unit", flush=True)

    @property
    def comparable(self) -> bool:
        """Whether everything is switched on that the product ships with."""
        return all(self.switched_on.values())

    def add(self, measure: Measure) -> None:
        """Keep and print one row."""
        self.measures.append(measure)
        row = measure.row(comparable=self.comparable)
        print(
            f"{measure.name:44}{_text(row['ours']):>11}{_text(row['etcd']):>11}"
            f"{_text(row['ratio']):>8}  {measure.unit}",
            flush=True,
        )

    def miss(self, what: str, why: str) -> None:
        """Something could not be measured."""
        self.missing.append(f"{what}: {why}")
        print(f"{what:44}not measured: {why}", flush=True)

    def switches(self, found: dict[str, bool]) -> None:
        """What was observed to be on, before any ratio is given."""
        self.switched_on = found
        for name, on in found.items():
            print(f"  {'on ' if on else 'OFF'} {name}", flush=True)
        if not self.comparable:
            print("  something is off: no ratios are given", flush=True)

    def write(self, part: str = "") -> Path:
        """Write the JSON file; with a ``part`` named, the rows of other parts stay as they were."""
        content: dict[str, Any] = {
            each.name: each.row(comparable=self.comparable) for each in self.measures
        }
        content["about" if not part else f"about {part}"] = {
            "switched_on": self.switched_on,
            "etcd": self._etcd_version,
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_average": list(os.getloadavg()),
            "quick": self.quick,
            "seconds": round(time.time() - self._began, 1),
            "not_measured": self.missing,
        }
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / "latest.json"
        if part and path.exists():
            content = json.loads(path.read_text()) | content
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
