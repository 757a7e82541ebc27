"""Ten thousand idle connections, then ten thousand idle watches: what one member pays for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench import requests
from bench.clusters import Cluster, Ours
from bench.frames import BenchFault
from bench.link import Link, Links
from bench.processes import cpu_seconds, memory_bytes
from bench.report import Measure, Report
from bench.watching import OPEN_AT_ONCE, WatchLink

CONNECTIONS: Final = 10_000
PER_IDENTITY: Final = 1_900  # a member bounds the connections of one identity
SETTLE_S: Final = 3.0
WINDOW_S: Final = 10.0


def measure(report: Report, clusters: Sequence[Cluster], connections: int = CONNECTIONS) -> None:
    """Memory per connection and watch, and CPU while nothing happens, of single members."""
    names = (
        ("idle member, memory", "MiB"),
        ("idle member, CPU", "% of a core"),
        (f"{connections} idle connections, memory each", "KiB"),
        (f"{connections} idle connections, CPU", "% of a core"),
        (f"{connections} idle watches, memory each", "KiB"),
        (f"{connections} idle watches, CPU", "% of a core"),
    )
    measures = [Measure(name, unit, "lower") for name, unit in names]
    for cluster in clusters:
        try:
            figures = _figures(cluster, connections)
        except (BenchFault, OSError) as fault:
            report.miss(f"idle connections, {cluster.kind}", str(fault))
            continue
        for each, figure in zip(measures, figures, strict=True):
            (each.ours if cluster.kind == "ours" else each.etcd).append(figure)
    for each in measures:
        report.add(each)


def _figures(cluster: Cluster, connections: int) -> list[float]:
    member = cluster.members[0]
    users = [f"idle{n}" for n in range(-(-connections // PER_IDENTITY))]
    if isinstance(cluster, Ours):
        for user in users:
            cluster.issue(user)
            cluster.add_user(user)
    links = Links()
    try:
        memory_before, cpu_before = _rest(links, member.pid)
        made: list[WatchLink] = []
        for user in users:
            target = cluster.target(member, user)
            context = target.context()
            while len(made) < connections and len(made) < PER_IDENTITY * (users.index(user) + 1):
                batch: list[Link] = [
                    WatchLink(target, context)
                    for _ in range(min(OPEN_AT_ONCE, connections - len(made)))
                ]
                links.open(batch)
                made += [each for each in batch if isinstance(each, WatchLink)]
        memory_open, cpu_open = _rest(links, member.pid)
        for start in range(0, len(made), OPEN_AT_ONCE):
            batch_of_watches = made[start : start + OPEN_AT_ONCE]
            for link in batch_of_watches:
                link.watch(requests.key(94, 0), 1)
            if not links.run_until(lambda b=batch_of_watches: all(w.created for w in b), 30.0):
                raise BenchFault("watches are not confirmed")
        memory_watching, cpu_watching = _rest(links, member.pid)
    finally:
        links.close()
    each = connections * 1024
    return [
        memory_before / 2**20,
        cpu_before,
        (memory_open - memory_before) / each,
        cpu_open,
        (memory_watching - memory_open) / each,
        cpu_watching,
    ]


def _rest(links: Links, pid: int) -> tuple[int, float]:
    """Memory, and CPU in percent of a core over a window in which nobody asks for anything."""
    links.run_until(lambda: False, SETTLE_S)
    began, spent = time.perf_counter(), cpu_seconds(pid)
    links.run_until(lambda: False, WINDOW_S)
    seconds = time.perf_counter() - began
    return memory_bytes(pid), (cpu_seconds(pid) - spent) / seconds * 100
