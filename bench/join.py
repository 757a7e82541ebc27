"""A member joins a cluster that has become large, while one client writes to the leader.

Our cluster alone. ``BENCH_JOINED=keys,versions`` says how large (default 100000,1000000; with
``BENCH_QUICK=1`` a fiftieth). What is asked is how much slower writes become meanwhile, not how
long it takes: an install is slow on purpose.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench import growth
from bench.calls import call
from bench.clusters import Member, Ours
from bench.frames import BenchFault
from bench.load import percentile
from bench.report import Measure, Report
from bench.writing import Writing, writing
from configsvc.proto import rpc_pb2

SIZE: Final = (100_000, 1_000_000)  # keys, versions
QUICK: Final = (2_000, 20_000)
SETTLED_S: Final = 5.0  # after filling: what was written is folded in and synced
QUIET_PUTS: Final = 10_000  # so that a p99 of them means something
QUIET_S: Final = 60.0  # or so long
QUICK_PUTS: Final = 1_000
JOIN_S: Final = 600.0
ADD: Final = "/etcdserverpb.Cluster/MemberAdd"
PROMOTE: Final = "/etcdserverpb.Cluster/MemberPromote"


def measure(report: Report, folder: Path, port: int, *, quick: bool) -> None:
    """Three members grown large, and four in the end."""
    keys, versions = growth.size("BENCH_JOINED", QUICK if quick else SIZE)
    cluster = Ours(folder / "ours", 3, port)
    try:
        cluster.start()
        growth.fill(cluster, keys, versions)
        time.sleep(SETTLED_S)
        _join(report, cluster, versions, QUICK_PUTS if quick else QUIET_PUTS)
    finally:
        cluster.stop()


def _join(report: Report, cluster: Ours, versions: int, quiet_puts: int) -> None:
    """Learner added, started, promoted."""
    leader = cluster.leader()
    with writing([cluster.target(leader)]) as load:
        quiet_from = time.perf_counter()
        _await_puts(load, quiet_from, quiet_puts)
        began = time.perf_counter()
        member, added = _added(cluster)
        cluster.launch(member)
        _promote(cluster, leader, added)
        ended = time.perf_counter()
        quiet, meanwhile = load.times(quiet_from, began), load.times(began, ended)
        refused = load.refusals(quiet_from)
    cluster.wait_ready(member)
    notes = {
        "load_average": round(os.getloadavg()[0], 1),
        "versions": versions,
        "puts_before": len(quiet),
        "puts_during": len(meanwhile),
        "refused": refused,
    }
    for name, values in (("before a member joins", quiet), ("while it joins", meanwhile)):
        p99 = [percentile(values, 0.99)]
        report.add(Measure(f"put p99 {name}", "ms", "lower", p99, notes=notes))
        report.add(Measure(f"  longest put {name}", "ms", "lower", values[-1:], notes=notes))
    ratio = [percentile(meanwhile, 0.99) / percentile(quiet, 0.99)]
    row = f"join of {versions:,} versions: put p99 meanwhile / before"
    report.add(Measure(row, "times", "lower", ratio, notes=notes))
    took = [(ended - began) * 1e3]
    report.add(Measure("member added → promoted", "ms", "lower", took, notes=notes))


def _await_puts(load: Writing, since: float, puts: int) -> None:
    while len(load.answered(since)) < puts and time.perf_counter() - since < QUIET_S:
        time.sleep(0.5)


def _added(cluster: Ours) -> tuple[Member, int]:
    port = cluster.members[-1].client_port + 10
    member = Member(f"ours{len(cluster.members)}", port, port + 1)
    member.extra = ("--initial-cluster-state", "existing")
    body = rpc_pb2.MemberAddRequest(peerURLs=[member.peer_url], isLearner=True)
    answer = call(cluster.admin(cluster.leader()), ADD, body.SerializeToString())
    added = rpc_pb2.MemberAddResponse.FromString(answer).member.ID
    cluster.members.append(member)
    cluster.equip(member, added)
    return member, added


def _promote(cluster: Ours, leader: Member, added: int) -> None:
    body = rpc_pb2.MemberPromoteRequest(ID=added).SerializeToString()
    deadline = time.perf_counter() + JOIN_S
    while True:
        try:
            call(cluster.admin(leader), PROMOTE, body)
        except BenchFault as fault:  # not caught up yet
            if time.perf_counter() > deadline:
                raise BenchFault(f"the new member is not promoted: {fault}") from None
            time.sleep(0.1)
        else:
            return
