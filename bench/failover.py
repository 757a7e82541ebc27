"""Leader lost: from SIGKILL, or SIGSTOP, to the first accepted write, at default timeouts.

A killed process closes its sockets, which the others may notice at once; a stopped one is silent
like a machine without power, and is found by the election timeout alone. A client that knows the
others writes to both every few milliseconds; the first OK counts. The lost member is brought back
and caught up before the next round.
"""

from __future__ import annotations

import os
import signal
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


def measure(report: Report, clusters: Sequence[Cluster], rounds: int, *, silent: bool) -> None:
    """Rounds of each system; ``silent``: the leader is stopped, not killed."""
    what = "leader silent" if silent else "leader killed"
    found = Measure(f"{what} → first accepted write", "ms", "lower")
    for cluster in clusters:
        kept = found.ours if cluster.kind == "ours" else found.etcd
        for _ in range(rounds):
            try:
                kept.append(one_round(cluster, silent=silent) * 1e3)
            except BenchFault as fault:
                report.miss(f"{what}, {cluster.kind}", str(fault))
                break
    report.add(found)


def one_round(cluster: Cluster, *, silent: bool) -> float:
    """Seconds from the leader's loss to the first accepted write.

    Raises:
        BenchFault: none was accepted.
    """
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
        if silent:
            os.kill(victim.pid, signal.SIGSTOP)
        else:
            cluster.kill(victim)
        return _first_write(links, writers)
    finally:
        links.close()
        if silent:
            os.kill(victim.pid, signal.SIGCONT)
        else:
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
