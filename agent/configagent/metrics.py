"""Metric names and their text form (agent.md M11). Names are an interface: they never change."""

from __future__ import annotations

from collections.abc import Iterable

from configagent.runner import SetRunner

_PER_SET = (
    ("applied_revision", "content revision of the present generation"),
    ("target_revision", "newest store revision that the set was judged at"),
    ("generation", "number of the present generation"),
    ("lag_seconds", "change seen to committed, of the last commit"),
    ("attempts", "failed attempts in a row"),
    ("commits_total", "generations committed since the start"),
    ("rollbacks_total", "generations put back since the start"),
    ("repairs_total", "hand edits put back since the start"),
    ("drifted_files", "files that are not as they were committed"),
    ("held", "1 while a guard holds the set back"),
    ("rollback_failed", "1 while a rollback failed and a person is needed"),
)


def _values(runner: SetRunner) -> tuple[float, ...]:
    record, plan, counts = runner.pipeline.record, runner.plan, runner.counts
    return (
        record.content_revision,
        record.target_revision,
        record.generation,
        record.lag_ms / 1000,
        plan.attempts,
        counts["apply"],
        counts["rollback"],
        counts["repair"],
        len(runner.deviations),
        plan.outcome == "held",
        plan.outcome == "rollback_failed",
    )


def metrics_text(runners: Iterable[SetRunner], link: str) -> str:
    """Prometheus text."""
    lines = [
        "# HELP configagent_connected 1 while the store is reachable",
        "# TYPE configagent_connected gauge",
        f"configagent_connected {int(link == 'connected')}",
    ]
    rows = [(runner.name, _values(runner), runner.plan.outcome) for runner in runners]
    for place, (name, help_text) in enumerate(_PER_SET):
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# HELP configagent_{name} {help_text}", f"# TYPE configagent_{name} {kind}"]
        lines += [
            f'configagent_{name}{{set="{set_name}"}} {float(values[place]):g}'
            for set_name, values, _ in rows
        ]
    lines += [
        "# HELP configagent_outcome 1 for the set's outcome",
        "# TYPE configagent_outcome gauge",
    ]
    lines += [f'configagent_outcome{{set="{n}",outcome="{o}"}} 1' for n, _, o in rows]
    return "\n".join(lines) + "\n"
