"""Leader lost: from SIGKILL to the first accepted write, at default timeouts.

A client that knows the survivors writes to both every few milliseconds; the first OK counts. The
killed member is started again and caught up before the next round.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench import requests
from bench.calls import CallLink
from bench.clusters import Cluster
from bench.frames import BenchFault
from bench.link import Links
from bench.report import Measure, Report

EVERY_S: Final = 0.02
GIVE_UP_S: Final = 30.0


def measure(report: Report, clusters: Sequence[Cluster], rounds: int) -> None:
    """Rounds of each system."""
    found = Measure("leader killed → first accepted write", "ms", "lower")
    for cluster in clusters:
        kept = found.ours if cluster.kind == "ours" else found.etcd
        for _ in range(rounds):
            try:
                kept.append(_round(cluster) * 1e3)
            except BenchFault as fault:
                report.miss(f"leader killed, {cluster.kind}", str(fault))
                break
    report.add(found)


def _round(cluster: Cluster) -> float:
    victim = cluster.leader()
    links = Links()
    try:
        writers = []
        for member in cluster.members:
            if member is not victim:
                target = cluster.target(member)
                writer = CallLink(target, target.context())
                writer.answers = {}
                links.open([writer])
                writers.append(writer)
        # One write through each, so that nothing is done for the first time after the kill.
        for writer in writers:
            _write(writer)
        links.run_until(lambda: all(w.answers for w in writers), 5.0)
        for writer in writers:
            writer.answers.clear()
        cluster.kill(victim)
        return _first_write(links, writers)
    finally:
        links.close()
        cluster.launch(victim)
        cluster.wait_ready(victim)


def _write(writer: CallLink) -> None:
    writer.ask(requests.PUT, requests.put(requests.key(92, 0), requests.value(1)))


def _first_write(links: Links, writers: list[CallLink]) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < GIVE_UP_S:
        for writer in writers:
            _write(writer)
        if links.run_until(lambda: _accepted(writers), EVERY_S):
            return time.perf_counter() - began
    raise BenchFault("no write was accepted")


def _accepted(writers: list[CallLink]) -> bool:
    return any(not trouble for w in writers for _, trouble in w.answers.values())
