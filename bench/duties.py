"""A leader that dies, hands over, is told to stop; and members that nobody asks for anything.

Our cluster alone: these are promises of ours, and no comparison. A gap is the longest time without
an accepted write that clients of the members that stay see, from the signal or the call on.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from bench import failover
from bench.calls import call, status
from bench.clusters import Cluster, Member
from bench.frames import BenchFault
from bench.load import percentile
from bench.processes import cpu_seconds, memory_bytes
from bench.report import Measure, Report
from bench.writing import Writing, writing
from configsvc.proto import rpc_pb2

KILLS: Final = 25
MOVES: Final = 30
STOPS: Final = 10
IDLE_S: Final = 20.0
AFTER_S: Final = 0.5  # writes are watched on for this long after leadership moved
EXIT_S: Final = 10.0
MOVE: Final = "/etcdserverpb.Maintenance/MoveLeader"


def measure(report: Report, cluster: Cluster) -> None:
    """All of them; a part that fails is named and the next one goes on."""
    parts: tuple[tuple[str, Callable[[Report, Cluster], None]], ...] = (
        ("idle members", _idle),
        ("leader moved", _moves),
        ("leader told to stop", _stops),
        ("leader killed", _kills),
    )
    for name, part in parts:
        try:
            part(report, cluster)
        except (BenchFault, OSError) as fault:
            report.miss(name, str(fault))


def add(report: Report, name: str, unit: str, values: list[float], **notes: object) -> None:
    """Two rows, the median and the 99th percentile, each with the load of the machine."""
    notes |= {"load_average": round(os.getloadavg()[0], 1)}
    report.add(Measure(f"{name}, p50", unit, "lower", ours=values, notes=notes))
    worst = [percentile(sorted(values), 0.99)]
    report.add(Measure(f"{name}, p99", unit, "lower", ours=worst, notes=notes))


def _kills(report: Report, cluster: Cluster) -> None:
    rounds = [failover.one_round(cluster, silent=False) * 1e3 for _ in range(KILLS)]
    add(report, "kill -9 of the leader → first write", "ms", rounds, kills=KILLS)


def _moves(report: Report, cluster: Cluster) -> None:
    gaps, quiet = [], []
    refused: Counter[str] = Counter()
    with writing([cluster.target(member) for member in cluster.members]) as load:
        for number in range(MOVES):
            leader = cluster.leader()
            others = [member for member in cluster.members if member is not leader]
            quiet.append(_quiet(load))
            began = time.perf_counter()
            _move(cluster, leader, others[number % len(others)])
            load.wait(time.perf_counter(), EXIT_S)
            time.sleep(AFTER_S)
            gaps.append(load.gap(began) * 1e3)
            refused += load.refusals(began)
    add(report, "MoveLeader: gap in writes", "ms", gaps, moves=MOVES, refused=refused)
    add(report, "  the same without a move", "ms", quiet)


def _quiet(load: Writing) -> float:
    began = time.perf_counter()
    time.sleep(AFTER_S)
    return load.gap(began) * 1e3


def _move(cluster: Cluster, leader: Member, to: Member) -> None:
    target = status(cluster.admin(to)).header.member_id
    body = rpc_pb2.MoveLeaderRequest(targetID=target).SerializeToString()
    call(cluster.admin(leader), MOVE, body)


def _stops(report: Report, cluster: Cluster) -> None:
    gaps, exits = [], []
    refused: Counter[str] = Counter()
    codes: set[int] = set()
    for _ in range(STOPS):
        leader = cluster.leader()
        stay = [cluster.target(member) for member in cluster.members if member is not leader]
        with writing(stay) as load:
            gap, took, code = _stop(load, leader)
            gaps.append(gap * 1e3)
            exits.append(took * 1e3)
            codes.add(code)
            refused += load.refusals(0.0)
        cluster.launch(leader)
        cluster.wait_ready(leader)
    add(report, "SIGTERM of the leader: gap in writes", "ms", gaps, refused=refused)
    add(report, "SIGTERM of the leader → its exit", "ms", exits, exit_codes=sorted(codes))


def _stop(load: Writing, leader: Member) -> tuple[float, float, int]:
    """Gap and time until exit in seconds, and the exit code."""
    assert leader.process is not None
    began = time.perf_counter()
    os.kill(leader.pid, signal.SIGTERM)
    while leader.process.poll() is None:
        if time.perf_counter() - began > EXIT_S:
            raise BenchFault(f"{leader.name} does not end")
        time.sleep(0.002)
    took = time.perf_counter() - began
    load.wait(time.perf_counter(), EXIT_S)
    time.sleep(AFTER_S)
    return load.gap(began), took, leader.process.returncode


def _idle(report: Report, cluster: Cluster) -> None:
    leader = cluster.leader()
    before = {member.name: cpu_seconds(member.pid) for member in cluster.members}
    began = time.perf_counter()
    time.sleep(IDLE_S)
    seconds = time.perf_counter() - began
    for name, chosen in (
        ("leader", [leader]),
        ("follower", [m for m in cluster.members if m is not leader]),
    ):
        used = [(cpu_seconds(m.pid) - before[m.name]) / seconds * 100 for m in chosen]
        memory = [memory_bytes(m.pid) / 2**20 for m in chosen]
        notes = {"seconds": IDLE_S, "load_average": round(os.getloadavg()[0], 1)}
        row = Measure(f"idle {name} of three, CPU", "% of a core", "lower", used, notes=notes)
        report.add(row)
        report.add(Measure(f"idle {name} of three, memory", "MiB", "lower", memory, notes=notes))
