"""`python -m bench`: everything, one after the other; a table and ``results/latest.json``.

BENCH_QUICK=1   at most a minute, one short round of each
BENCH_LONG=1    ten thousand idle connections as well
BENCH_ONLY=a,b  some of: throughput3 throughput1 watch fanout file large failover empty idle
                duties growth join five; rows of other parts stay in the results as they were
BENCH_PORT=n    first of 500 ports in use
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench import (
    agentfile,
    beside,
    duties,
    empty,
    failover,
    growth,
    idle,
    join,
    large,
    switches,
    throughput,
    tools,
    watching,
)
from bench.clusters import Cluster, Etcd, Ours, port_free
from bench.frames import BenchFault
from bench.report import Report

PARTS: Final = (
    "throughput3", "watch", "fanout", "file", "large", "failover", "throughput1", "idle", "empty",
    "duties", "growth", "join", "five",
)  # fmt: skip
PORTS: Final = int(
    os.environ.get("BENCH_PORT", "13100")
)  # below the range that the system hands out to outgoing connections
WORK: Final = tools.ROOT / ".dev" / "bench"


def main() -> int:
    """Run what was asked for."""
    quick = os.environ.get("BENCH_QUICK") == "1"
    wanted = _wanted()
    if isinstance(wanted, str):
        print(f"bench: {wanted}", file=sys.stderr)
        return 2
    busy = [port for port in range(PORTS, PORTS + 500, 10) if not port_free(port)]
    if busy:
        print(f"bench: port {busy[0]} is taken; stop what listens there", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the members outlive the bench
    if WORK.exists():
        shutil.rmtree(WORK)
    WORK.mkdir(mode=0o700, parents=True)
    try:
        tools.etcd()
        report = Report(quick=quick, etcd_version=tools.etcd_version())
        _run(report, wanted, quick=quick)
    except BenchFault as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 1
    part = ",".join(sorted(wanted)) if os.environ.get("BENCH_ONLY") else ""
    print(f"written: {report.write(part).relative_to(tools.ROOT)}")
    return 0


def _wanted() -> set[str] | str:
    only = [each for each in os.environ.get("BENCH_ONLY", "").split(",") if each]
    unknown = [each for each in only if each not in PARTS]
    if unknown:
        return f"BENCH_ONLY={unknown[0]}: choose from {' '.join(PARTS)}"
    wanted = set(only or PARTS)
    if not only and os.environ.get("BENCH_LONG") != "1":
        wanted.discard("idle")
    return wanted


def _run(report: Report, wanted: set[str], *, quick: bool) -> None:
    rounds, warm_s, seconds = (1, 0.15, 0.35) if quick else (5, 0.4, 1.6)

    def three(ours: Ours, etcd: Etcd) -> None:
        pair: list[Cluster] = [ours, etcd]
        report.switches(switches.look(ours))
        if "throughput3" in wanted:
            throughput.measure(report, pair, rounds=rounds, warm_s=warm_s, seconds=seconds)
        if "watch" in wanted:
            watching.delivery(report, pair, 100 if quick else 1_000)
        if "fanout" in wanted:
            watching.fan_out(report, pair, 3 if quick else 20)
        if "file" in wanted:
            agentfile.measure(report, ours, 3 if quick else 20)
        if "large" in wanted:
            if not quick:
                large.measure(report, pair)
            beside.measure(report, pair, 1 if quick else 3, 1.0 if quick else 10.0)
        if "failover" in wanted:
            failover.measure(report, pair, 1 if quick else 5, silent=False)
            if not quick:
                failover.measure(report, pair, 3, silent=True)

    def one(ours: Ours, etcd: Etcd) -> None:
        pair: list[Cluster] = [ours, etcd]
        if not report.switched_on:
            report.switches(switches.look(ours))
        if "throughput1" in wanted:
            throughput.measure(report, pair, rounds=rounds, warm_s=warm_s, seconds=seconds)
        if "idle" in wanted:
            idle.measure(report, pair)

    # A part that fails is named in the results; the others are measured all the same.
    if wanted & {"throughput3", "watch", "fanout", "file", "large", "failover"}:
        with _named(report, "three members"):
            _with_clusters(WORK / "three", 3, PORTS, three)
    if wanted & {"throughput1", "idle"}:
        with _named(report, "one member"):
            _with_clusters(WORK / "one", 1, PORTS + 200, one)
    if "empty" in wanted:
        with _named(report, "empty handler"):
            folder = WORK / "empty"
            folder.mkdir(mode=0o700)
            empty.measure(report, folder, 1 if quick else 5, seconds)
    if "join" in wanted:
        with _named(report, "join"):
            join.measure(report, WORK / "join", PORTS + 300, quick=quick)
    if not quick:
        _ours_alone(report, wanted)


def _ours_alone(report: Report, wanted: set[str]) -> None:
    """Promises of ours, beside which nothing else runs."""
    if "duties" in wanted:
        with _named(report, "duties"):
            ours = Ours(WORK / "duties" / "ours", 3, PORTS + 300)
            try:
                ours.start()
                duties.measure(report, ours)
            finally:
                ours.stop()
    if "growth" in wanted:
        with _named(report, "growth"):
            growth.measure(report, WORK / "growth", PORTS + 400)
    if "five" in wanted:
        with _named(report, "five members"):
            growth.five(report, WORK / "five", PORTS + 440)


@contextlib.contextmanager
def _named(report: Report, part: str) -> Iterator[None]:
    try:
        yield
    except BenchFault as fault:
        report.miss(part, str(fault))


def _with_clusters(folder: Path, size: int, port: int, work: Callable[[Ours, Etcd], None]) -> None:
    """Both systems run during the whole part; each idles while the other one is measured."""
    ours, etcd = Ours(folder / "ours", size, port), Etcd(folder / "etcd", size, port + 100)
    try:
        ours.start()
        etcd.start()
        work(ours, etcd)
    finally:
        ours.stop()
        etcd.stop()


if __name__ == "__main__":
    sys.exit(main())
