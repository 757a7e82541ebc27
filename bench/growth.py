"""A cluster that has become large: a member restarts; and two of five are lost.

Our cluster alone. ``BENCH_GROWN=keys,versions`` says how large (default 100000,500000): versions
are puts in transactions of fifty, 256 bytes each, so that filling takes minutes and not hours.

Not here: a new member that joins a large cluster (``join``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench import requests
from bench.calls import calling
from bench.clusters import Ours
from bench.duties import add
from bench.frames import BenchFault
from bench.large import ask_all
from bench.processes import memory_bytes
from bench.report import Measure, Report
from bench.writing import Writing, writing
from configsvc.proto import rpc_pb2

SIZE: Final = (100_000, 500_000)  # keys, versions
PER_TXN: Final = 50  # one frame of HTTP/2 holds them
CHUNK: Final = 200  # transactions made at a time
RESTARTS: Final = 3
LOST_S: Final = 15.0
TXN: Final = "/etcdserverpb.KV/Txn"
HEAD: Final = requests.PREFIX + b"grown/"


def size(variable: str, default: tuple[int, int]) -> tuple[int, int]:
    """Keys and versions to fill with.

    Raises:
        BenchFault: the variable is not two numbers.
    """
    given = os.environ.get(variable, f"{default[0]},{default[1]}")
    try:
        keys, versions = (int(word) for word in given.split(","))
    except ValueError:
        raise BenchFault(f"{variable}={given}: two numbers are needed") from None
    return keys, max(keys, versions)


def measure(report: Report, folder: Path, port: int) -> None:
    """Three members grown large."""
    keys, versions = size("BENCH_GROWN", SIZE)
    cluster = Ours(folder / "ours", 3, port)
    try:
        cluster.start()
        rate = fill(cluster, keys, versions)
        grown = f"{keys:,} keys, {versions:,} versions"
        report.add(Measure(f"filling: {grown}", "puts/s", "higher", ours=[rate]))
        _restarts(report, cluster, grown)
    finally:
        cluster.stop()


def fill(cluster: Ours, keys: int, versions: int) -> float:
    """So many puts in transactions, through the leader; puts per second."""
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
