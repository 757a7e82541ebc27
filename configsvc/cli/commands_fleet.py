"""``fleet status|nodes|wait``: what is really applied where.

Each member knows the agents connected to it; here their answers become one view. The newest
report of a node wins, by (start counter, seq). A member that does not answer makes the view
partial, which is said; unknown is never taken for converged.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from configsvc.cli.arguments import Commands, number
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.times import show_age, show_time
from configsvc.errors import ConfigServiceError

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import Endpoint
    from configsvc.proto import v1_pb2

CONVERGED: Final = "converged"
LOST: Final = "lost"
_WAIT_S: Final = 60.0
_POLL_S: Final = 0.5


def register(commands: Commands) -> None:
    """Add the commands."""
    fleet = commands.group("fleet", "what is applied on which node")
    status = fleet.add("status", "outcomes per set and the stragglers", run_status)
    status.add_argument("--set", dest="set_name", default="", metavar="SET")
    status.add_argument("--behind", action="store_true", help="only nodes that are not converged")
    status.add_argument("--strict", action="store_true", help="exit 1 when a node is behind")
    nodes = fleet.add("nodes", "every node and its agent", run_nodes)
    nodes.add_argument("--node", default="", metavar="NODE")
    wait = fleet.add("wait", "until enough nodes have a revision", run_wait)
    wait.add_argument("--set", dest="set_name", required=True, metavar="SET")
    wait.add_argument(
        "--rev", type=number(), default=0, metavar="REV", help="at least this revision"
    )
    wait.add_argument("--percent", type=_percent, default=100.0, metavar="P")


def _percent(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 100")
    return found


# --- one view of all members ----------------------------------------------------------------------


class View(NamedTuple):
    """The merged reports."""

    nodes: tuple[v1_pb2.NodeStatus, ...]  # by name
    silent: tuple[str, ...]  # what did not answer


def merge(answers: Iterable[v1_pb2.NodeStatus]) -> tuple[v1_pb2.NodeStatus, ...]:
    """One report per node: the newest; of equal ones the one from where the agent still is."""
    newest: dict[str, tuple[tuple[int, int, bool], v1_pb2.NodeStatus]] = {}
    for one in answers:
        rank = (one.start_counter, one.seq, one.link != LOST)
        if one.node not in newest or rank > newest[one.node][0]:
            newest[one.node] = (rank, one)
    return tuple(newest[node][1] for node in sorted(newest))


def is_behind(node: v1_pb2.NodeStatus, report: v1_pb2.SetReport, revision: int = 0) -> bool:
    """Whether this set on this node is anything but applied and healthy, at ``revision`` or later.

    The target is the revision that the whole set was rendered from; the content revision is that
    of its newest key. Either may be the one that a put answered with.
    """
    reached = max(report.target_revision, report.content_revision)
    return node.link == LOST or report.outcome != CONVERGED or reached < revision


def _ask(
    session: Session, endpoint: Endpoint, set_name: str, node: str
) -> v1_pb2.FleetStatusResponse | str:
    from configsvc.client import inquiries

    try:
        operation = inquiries.fleet_status(set_name=set_name, node=node)
        return session.client.do(operation, endpoint=endpoint)
    except ConfigServiceError as error:
        # A member that is away must not hide what the others know; a refusal is another matter.
        from configsvc.client import ClientError

        if not isinstance(error, ClientError):
            raise
        return str(endpoint)


def _member_endpoints(session: Session) -> tuple[Endpoint, ...]:
    """Every member's address: an agent may hang on one that we were not told of."""
    from configsvc.client import administration, parse_endpoints

    members = session.client.do(administration.member_list(linearizable=False)).members
    urls = [url for member in members for url in member.clientURLs[:1]]
    return parse_endpoints(urls) if urls else session.client.ring.all


def collect(session: Session, set_name: str = "", node: str = "") -> View:
    """Ask every member.

    Raises:
        CliError: none answered.
    """
    endpoints = _member_endpoints(session)
    with ThreadPoolExecutor(max_workers=min(16, len(endpoints))) as pool:
        answers = list(pool.map(lambda one: _ask(session, one, set_name, node), endpoints))
    silent = [answer for answer in answers if isinstance(answer, str)]
    heard = [answer for answer in answers if not isinstance(answer, str)]
    if not heard:
        raise CliError(Exit.UNAVAILABLE, f"no member answers: {', '.join(silent)}")
    if any(answer.partial for answer in heard):
        silent.append("a member that another one misses")
    return View(merge(one for answer in heard for one in answer.nodes), tuple(silent))


# --- status ---------------------------------------------------------------------------------------


def _set_json(report: v1_pb2.SetReport) -> dict[str, Any]:
    return {
        "set": report.name,
        "outcome": report.outcome,
        "target_revision": report.target_revision,
        "content_revision": report.content_revision,
        "generation": report.generation,
        "reason": report.reason,
        "attempts": report.attempts,
        "changed": show_time(report.changed_ns, exact=True),
        "lag_ms": report.lag_ms,
        "durations_ms": {
            name: getattr(report.durations, f"{name}_us") / 1000
            for name in ("render", "check", "commit", "reload", "total")
        },
        "root": report.root,
        "files": [
            {
                "path": file.path,
                "sha256": file.sha256,
                "outcome": file.outcome,
                "reason": file.reason,
            }
            for file in report.files
        ],
    }


def _node_json(node: v1_pb2.NodeStatus, reports: Sequence[v1_pb2.SetReport]) -> dict[str, Any]:
    return {
        "node": node.node,
        "link": node.link,
        "agent_version": node.agent_version,
        "reported": show_time(node.reported_ns, exact=True),
        "certificate_expires": show_time(node.certificate_expires_ns),
        "trust_bundle": node.trust_bundle,
        "member": f"{node.member:x}",
        "sets": [_set_json(report) for report in reports],
    }


def _selected(
    view: View, set_name: str, *, behind: bool
) -> list[tuple[v1_pb2.NodeStatus, list[v1_pb2.SetReport]]]:
    found = []
    for node in view.nodes:
        reports = [one for one in node.sets if set_name in ("", one.name)]
        if behind:
            reports = [one for one in reports if is_behind(node, one)]
        if reports or (not set_name and not node.sets and (not behind or node.link == LOST)):
            found.append((node, reports))
    return found


def percentile(values: Sequence[int], percent: float) -> int:
    """Nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def run_status(session: Session) -> int:
    args = session.args
    view = collect(session, args.set_name)
    found = _selected(view, args.set_name, behind=args.behind)
    if view.silent:
        session.warn(f"partial: no answer from {', '.join(view.silent)}")
    if session.out.as_json:
        session.out.json([_node_json(node, reports) for node, reports in found])
    else:
        _print_status(session, found)
    unknown = bool(args.set_name) and not _selected(view, args.set_name, behind=False)
    if unknown:
        session.warn(f"{args.set_name}: no node has reported this set")
    behind = unknown or _selected(view, args.set_name, behind=True)
    return Exit.NO if args.strict and (behind or view.silent) else Exit.OK


def _print_status(
    session: Session, found: list[tuple[v1_pb2.NodeStatus, list[v1_pb2.SetReport]]]
) -> None:
    pairs = [(node, report) for node, reports in found for report in reports]
    if not pairs:
        session.out.line(f"{len(found)} nodes, no sets reported")
        return
    counts = Counter(
        (report.name, LOST if node.link == LOST else report.outcome, report.content_revision)
        for node, report in pairs
    )
    lags: dict[str, list[int]] = {}
    for _, report in pairs:
        lags.setdefault(report.name, []).append(report.lag_ms)
    session.out.table(
        ("SET", "OUTCOME", "REV", "NODES", "LAG P50", "LAG P99"),
        [
            (
                name,
                outcome,
                revision,
                count,
                f"{percentile(lags[name], 50)} ms",
                f"{percentile(lags[name], 99)} ms",
            )
            for (name, outcome, revision), count in sorted(counts.items())
        ],
    )
    now = time.time_ns()
    rows = [
        (
            node.node,
            report.name,
            LOST if node.link == LOST else report.outcome,
            report.content_revision,
            show_age(now - report.changed_ns) if report.changed_ns else "-",
            report.reason or "-",
        )
        for node, report in pairs
        if is_behind(node, report)
    ]
    if rows:
        session.out.line("")
        session.out.table(("BEHIND", "SET", "OUTCOME", "REV", "SINCE", "REASON"), rows)


def run_nodes(session: Session) -> int:
    node = session.args.node
    view = collect(session, node=node)
    if view.silent:
        session.warn(f"partial: no answer from {', '.join(view.silent)}")
    if session.out.as_json:
        session.out.json([_node_json(one, one.sets) for one in view.nodes])
    else:
        now = time.time_ns()
        session.out.table(
            ("NODE", "LINK", "VERSION", "HEARD", "MEMBER", "CERTIFICATE UNTIL", "SETS"),
            [
                (
                    one.node,
                    one.link,
                    one.agent_version,
                    f"{show_age(now - one.reported_ns)} ago",
                    f"{one.member:x}",
                    show_time(one.certificate_expires_ns) or "-",
                    " ".join(f"{report.name}:{report.outcome}" for report in one.sets) or "-",
                )
                for one in view.nodes
            ],
        )
    if node and not view.nodes:
        raise CliError(Exit.NO, f"{node}: no member has heard of this node")
    return Exit.OK


# --- wait -----------------------------------------------------------------------------------------


def run_wait(session: Session) -> int:
    args = session.args
    patience = session.settings.timeout_s or _WAIT_S
    end = time.monotonic() + patience
    while True:
        view = collect(session, args.set_name)
        nodes = _selected(view, args.set_name, behind=False)
        late = [
            node.node
            for node, reports in nodes
            if any(is_behind(node, report, args.rev) for report in reports)
        ]
        there = len(nodes) - len(late)
        # A silent member may hold nodes that nobody else knows: that is not "everybody".
        if nodes and not view.silent and there * 100 >= args.percent * len(nodes):
            session.out.done(
                f"{there} of {len(nodes)} nodes", nodes=len(nodes), converged=there, behind=late
            )
            return Exit.OK
        if time.monotonic() >= end:
            break
        time.sleep(min(_POLL_S, max(end - time.monotonic(), 0.01)))
    if session.out.as_json:
        session.out.json({"ok": False, "nodes": len(nodes), "converged": there, "behind": late})
    said = f"; silent: {', '.join(view.silent)}" if view.silent else ""
    some = ", ".join(late[:10]) or "none reported"
    raise CliError(
        Exit.NO, f"{there} of {len(nodes)} nodes after {patience:g} s, behind: {some}{said}"
    )
