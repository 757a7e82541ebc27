"""From a put to the file on a node's disk, through the agent."""

from __future__ import annotations

import importlib.util

from bench.clusters import Ours
from bench.report import Report


def measure(report: Report, ours: Ours, count: int) -> None:
    """Not without the agent."""
    if importlib.util.find_spec("configagent") is None:
        report.miss("put → file on disk", "no agent")
