"""A cluster that has become large: a member restarts, a new one joins, two of five are lost.

Our cluster alone. ``BENCH_GROWN=keys,versions`` says how large (default 100000,500000): versions
are puts in transactions of fifty, 256 bytes each, so that filling takes minutes and not hours.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench import requests
from bench.calls import call, calling
from bench.clusters import Member, Ours
from bench.duties import add
from bench.frames import BenchFault
from bench.large import ask_all
from bench.load import percentile
from bench.processes import memory_bytes
from bench.report import Measure, Report
from bench.writing import Writing, writing
from configsvc.proto import rpc_pb2

KEYS: Final = 100_000
VERSIONS: Final = 500_000
PER_TXN: Final = 50  # one frame of HTTP/2 holds them
CHUNK: Final = 200  # transactions made at a time
RESTARTS: Final = 3
QUIET_S: Final = 8.0
JOIN_S: Final = 300.0
LOST_S: Final = 15.0
TXN: Final = "/etcdserverpb.KV/Txn"
ADD: Final = "/etcdserverpb.Cluster/MemberAdd"
PROMOTE: Final = "/etcdserverpb.Cluster/MemberPromote"
HEAD: Final = requests.PREFIX + b"grown/"


def size() -> tuple[int, int]:
    """Keys and versions to fill with.

    Raises:
        BenchFault: the variable is not two numbers.
    """
    given = os.environ.get("BENCH_GROWN", f"{KEYS},{VERSIONS}")
    try:
        keys, versions = (int(word) for word in given.split(","))
    except ValueError:
        raise BenchFault(f"BENCH_GROWN={given}: two numbers are needed") from None
    return keys, max(keys, versions)


def measure(report: Report, folder: Path, port: int) -> None:
    """Three members grown large, and four in the end."""
    keys, versions = size()
    cluster = Ours(folder / "ours", 3, port)
    try:
        cluster.start()
        rate = _fill(cluster, keys, versions)
        grown = f"{keys:,} keys, {versions:,} versions"
        report.add(Measure(f"filling: {grown}", "puts/s", "higher", ours=[rate]))
        _restarts(report, cluster, grown)
        _join(report, cluster, grown)
    finally:
        cluster.stop()


def _fill(cluster: Ours, keys: int, versions: int) -> float:
    began = time.perf_counter()
    with calling(cluster.target(cluster.leader())) as (links, link):
        for start in range(0, versions, PER_TXN * CHUNK):
            stop = min(versions, start + PER_TXN * CHUNK)
            bodies = [_txn(at, min(at + PER_TXN, stop), keys) for at in range(start, stop, PER_TXN)]
            ask_all(links, link, TXN, bodies)
    return versions / (time.perf_counter() - began)


def _txn(start: int, stop: int, keys: int) -> bytes:
    txn = rpc_pb2.TxnRequest()
    for number in range(start, stop):
        put = txn.success.add().request_put
        put.key, put.value = HEAD + b"%08d" % (number % keys), requests.value(number)
    return txn.SerializeToString()


def _restarts(report: Report, cluster: Ours, grown: str) -> None:
    """From the start of the process to a write accepted through it."""
    took, memory = [], []
    for _ in range(RESTARTS):
        leader = cluster.leader()
        member = next(m for m in cluster.members if m is not leader)
        cluster.kill(member)
        began = time.perf_counter()
        cluster.launch(member)
        cluster.wait_ready(member)
        took.append((time.perf_counter() - began) * 1e3)
        memory.append(memory_bytes(member.pid) / 2**20)
    notes = {"load_average": round(os.getloadavg()[0], 1), "grown": grown}
    report.add(Measure("restart after kill -9 → ready", "ms", "lower", took, notes=notes))
    report.add(Measure("  its memory then", "MiB", "lower", memory, notes=notes))


def _join(report: Report, cluster: Ours, grown: str) -> None:
    """Learner added, started, promoted, while one client writes to the leader."""
    leader = cluster.leader()
    with writing([cluster.target(leader)]) as load:
        quiet_from = time.perf_counter()
        time.sleep(QUIET_S)
        began = time.perf_counter()
        member, answer = _added(cluster)
        cluster.launch(member)
        _promote(cluster, leader, answer)
        ended = time.perf_counter()
        quiet, meanwhile = load.times(quiet_from, began), load.times(began, ended)
        refused = load.refusals(quiet_from)
    cluster.wait_ready(member)
    notes = {
        "load_average": round(os.getloadavg()[0], 1),
        "grown": grown,
        "puts_before": len(quiet),
        "puts_during": len(meanwhile),
        "refused": refused,
    }
    for name, values in (("before a member joins", quiet), ("while it joins", meanwhile)):
        p99 = [percentile(values, 0.99)]
        report.add(Measure(f"put p99 {name}", "ms", "lower", p99, notes=notes))
        report.add(Measure(f"  longest put {name}", "ms", "lower", values[-1:], notes=notes))
    took = [(ended - began) * 1e3]
    report.add(Measure("member added → promoted", "ms", "lower", took, notes=notes))


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


def five(report: Report, folder: Path, port: int) -> None:
    """The leader and one more of five are killed at once; the other three are written to."""
    cluster = Ours(folder / "five", 5, port)
    try:
        cluster.start()
        leader = cluster.leader()
        victims = [leader, next(m for m in cluster.members if m is not leader)]
        stay = [cluster.target(m) for m in cluster.members if m not in victims]
        with writing(stay) as load:
            time.sleep(2.0)
            began = time.perf_counter()
            for victim in victims:
                cluster.kill(victim)
            load.wait(time.perf_counter(), LOST_S)
            first = load.gap(began)
            settled = time.perf_counter()
            time.sleep(LOST_S)
            _five_rows(report, load, began, settled, first)
    finally:
        cluster.stop()


def _five_rows(report: Report, load: Writing, began: float, settled: float, first: float) -> None:
    before, after = load.times(0.0, began), load.times(settled, time.perf_counter())
    refused = load.refusals(settled)
    add(report, "five members: put", "ms", before)
    add(report, "five, two of them killed: put", "ms", after, refused_afterwards=refused)
    row = Measure("five, leader and another killed: gap", "ms", "lower", [first * 1e3])
    report.add(row)
    gap = [load.gap(settled) * 1e3]
    report.add(Measure("  longest gap in the 15 s after it", "ms", "lower", gap))
