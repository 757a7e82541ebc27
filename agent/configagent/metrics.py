"""Metric names and their text form (agent.md M11). Names are an interface: they never change.

The number of series depends on the configuration alone: nothing from the store becomes a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from configagent.feed import Link
from configagent.plan import Step
from configagent.runner import SetRunner

Series = tuple[str, float]  # labels as they are written, value
_PREFIX: Final = "configagent_"


class Metric(NamedTuple):
    """One name; ``value`` of one set."""

    name: str
    help: str
    value: Callable[[SetRunner], float]


def _inputs_age_s(runner: SetRunner) -> float:
    kept = runner.keeper.kept_at if runner.keeper else None
    return -1.0 if kept is None else time.monotonic() - kept


PER_SET: Final = (
    Metric("applied_revision", "content revision of the present generation",
           lambda r: r.pipeline.record.content_revision),
    Metric("target_revision", "newest store revision that the set was judged at",
           lambda r: r.pipeline.record.target_revision),
    Metric("generation", "number of the present generation",
           lambda r: r.pipeline.record.generation),
    Metric("lag_seconds", "change seen to committed, of the last commit",
           lambda r: r.pipeline.record.lag_ms / 1000),
    Metric("attempts", "failed attempts in a row", lambda r: r.plan.attempts),
    Metric("commits_total", "generations committed since the start", lambda r: r.counts["apply"]),
    Metric("rollbacks_total", "generations put back since the start",
           lambda r: r.counts["rollback"]),
    Metric("repairs_total", "hand edits put back since the start", lambda r: r.counts["repair"]),
    Metric("drifted_files", "files that are not as they were committed",
           lambda r: len(r.deviations)),
    Metric("held", "1 while a guard holds the set back", lambda r: r.plan.outcome == "held"),
    Metric("rollback_failed", "1 while a rollback failed and a person is needed",
           lambda r: r.plan.outcome == "rollback_failed"),
    Metric("inputs_age_seconds", "since the set's inputs were stored; -1: not since the start",
           _inputs_age_s),
)  # fmt: skip


def metrics_text(runners: Iterable[SetRunner], link: Link) -> str:
    """Prometheus text."""
    chosen = list(runners)
    lines = _block("connected", "1 while the store is reachable", [("", link.state == "connected")])
    lines += _block("link_seconds", "since the link's state changed",
                    [("", max(0.0, time.time() - link.since))])  # fmt: skip
    lines += _block("reconnects_total", "times the store came back", [("", link.reconnects)])
    for metric in PER_SET:
        rows = [(f'{{set="{runner.name}"}}', metric.value(runner)) for runner in chosen]
        lines += _block(metric.name, metric.help, rows)
    lines += _block(
        "step_seconds",
        "how long the last step of a kind took; 0: none since the start",
        [
            (f'{{set="{runner.name}",step="{step.value}"}}', runner.step_s[step])
            for runner in chosen
            for step in Step
        ],
    )
    lines += _block(
        "outcome",
        "1 for the set's outcome",
        [(f'{{set="{r.name}",outcome="{r.plan.outcome}"}}', 1) for r in chosen],
    )
    return "\n".join(lines) + "\n"


def _block(name: str, help_text: str, rows: Iterable[Series]) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    head = [f"# HELP {_PREFIX}{name} {help_text}", f"# TYPE {_PREFIX}{name} {kind}"]
    return head + [f"{_PREFIX}{name}{labels} {_number(value)}" for labels, value in rows]


def _number(value: float) -> str:
    """A revision needs all of its digits."""
    return str(int(value)) if value == int(value) else f"{value:.6g}"
