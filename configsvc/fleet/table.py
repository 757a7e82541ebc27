"""What agents report, newest first to count: the live table of one member. Memory only.

Always true:
  * Per node the newest (start counter, sequence) wins; an older report changes nothing.
  * The table is bounded in nodes and bytes; at the bound per-file detail goes first, then reasons,
    never an outcome.
  * Time is an argument.

Source: agent.md 8.2. Not here: who may report for whom (``api``), merging members (``api``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from configsvc.limits import (
    FLEET_DIGEST_CHARS_MAX,
    FLEET_FILES_MAX,
    FLEET_NODES_MAX,
    FLEET_REASON_CHARS_MAX,
)

CONVERGED: Final = "converged"
OUTCOMES: Final = frozenset(
    {
        "pending", "rendering", "converged", "render_failed", "write_failed", "check_failed",
        "reload_failed", "unhealthy", "rolled_back", "rollback_failed", "held", "frozen",
        "refused", "drifted", "contended",
    }
)  # fmt: skip
LINKS: Final = frozenset({"connected", "stale", "offline", "expired", "store_reset", "denied"})
LOST: Final = "lost"  # the server's word alone


class FileState(NamedTuple):
    path: str
    sha256: str
    outcome: str
    reason: str


class Took(NamedTuple):
    """How long the parts of the last attempt took, in microseconds; 0: there was no such part."""

    render_us: int = 0
    check_us: int = 0
    commit_us: int = 0
    reload_us: int = 0
    total_us: int = 0


class SetState(NamedTuple):
    """One set of files on one node."""

    name: str
    target_revision: int
    content_revision: int
    generation: int
    outcome: str
    reason: str
    attempts: int
    changed_ns: int
    lag_ms: int
    files: tuple[FileState, ...]
    root: str = ""
    took: Took = Took()


class NodeReport(NamedTuple):
    """All that a node said last."""

    node: str
    start_counter: int
    seq: int
    agent_version: str
    link: str
    certificate_expires_ns: int
    sets: tuple[SetState, ...]
    heard_ns: int
    trust_bundle: str = ""


class FleetTable:
    """Newest report per node, as this member heard it."""

    def __init__(self, ttl_ns: int) -> None:
        self._ttl_ns = ttl_ns
        self._nodes: dict[str, NodeReport] = {}

    def report(self, report: NodeReport) -> bool:
        """Take a report; False: an older one than what is known, nothing changed."""
        known = self._nodes.get(report.node)
        if known is not None and (known.start_counter, known.seq) >= (
            report.start_counter,
            report.seq,
        ):
            return False
        self._nodes.pop(report.node, None)
        self._nodes[report.node] = _bounded(report)
        while len(self._nodes) > FLEET_NODES_MAX:
            del self._nodes[next(iter(self._nodes))]  # heard from longest ago
        return True

    def status(
        self, now_ns: int, *, node: str = "", set_name: str = "", behind: bool = False
    ) -> list[NodeReport]:
        """Nodes by name; one that was silent for too long has the link "lost"."""
        out = []
        for name in sorted(self._nodes):
            if node and name != node:
                continue
            report = self._nodes[name]
            sets = tuple(s for s in report.sets if not set_name or s.name == set_name)
            if set_name and not sets:
                continue
            link = LOST if now_ns - report.heard_ns > self._ttl_ns else report.link
            if behind and link == "connected" and all(s.outcome == CONVERGED for s in sets):
                continue
            out.append(report._replace(sets=sets, link=link))
        return out

    def __len__(self) -> int:
        return len(self._nodes)


def _bounded(report: NodeReport) -> NodeReport:
    files_left = FLEET_FILES_MAX
    sets = []
    for state in report.sets:
        keep = state.files[: max(0, files_left)]
        files_left -= len(keep)
        sets.append(
            state._replace(
                reason=state.reason[:FLEET_REASON_CHARS_MAX],
                root=state.root[:FLEET_DIGEST_CHARS_MAX],
                outcome=state.outcome if state.outcome in OUTCOMES else "pending",
                files=tuple(f._replace(reason=f.reason[:FLEET_REASON_CHARS_MAX]) for f in keep),
            )
        )
    link = report.link if report.link in LINKS else "stale"
    bundle = report.trust_bundle[:FLEET_DIGEST_CHARS_MAX]
    return report._replace(sets=tuple(sets), link=link, trust_bundle=bundle)
