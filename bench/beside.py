"""Puts at a steady rate, first alone and then beside large ranges that follow one another.

One client puts, due every few milliseconds whatever happened to the put before: a put that could
not begin in time counts from when it was due, so that one long wait is told by all that it held
up. Another process meanwhile asks for all of a hundred thousand keys, again and again.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench import requests
from bench.calls import CallLink, calling
from bench.clusters import Cluster
from bench.frames import BenchFault
from bench.large import DELETE, GIVE_UP_S, RANGE_KEYS, ask_all, fill, span
from bench.link import Links, Target
from bench.load import percentile
from bench.report import Measure, Report
from configsvc.proto import rpc_pb2

PER_S: Final = 100
KEYS: Final = 100  # put in turns
SETTLE_S: Final = 15.0  # after the keys were put


def measure(report: Report, clusters: Sequence[Cluster], rounds: int, seconds: float) -> None:
    """Both systems in turns."""
    quiet = Measure("put p99 quiet", "ms", "lower")
    beside = Measure("put p99 beside ranges of 100,000 keys", "ms", "lower")
    own = Measure("  times its own quiet one", "x", "lower")
    ranges = Measure("  ranges of 100,000 keys meanwhile", "1/s", "higher")
    whole = span(rpc_pb2.DeleteRangeRequest)
    targets = []
    for cluster in clusters:
        target = cluster.target(cluster.leader())
        with calling(target) as (links, link):
            ask_all(links, link, DELETE, [whole])
        fill(target, RANGE_KEYS)
        targets.append((cluster.kind == "ours", target))
    time.sleep(SETTLE_S * min(1.0, seconds / 10))  # both have something to do behind the answers
    for _ in range(rounds):
        for ours, target in targets:
            try:
                alone, together, answered = _one(target, seconds)
            except BenchFault as fault:
                report.miss(beside.name, str(fault))
                return
            figures = (alone, together, together / alone, answered / seconds)
            for row, value in zip((quiet, beside, own, ranges), figures, strict=True):
                (row.ours if ours else row.etcd).append(value)
    for row in (quiet, beside, own, ranges):
        report.add(row)
    for _, target in targets:
        with calling(target) as (links, link):
            ask_all(links, link, DELETE, [whole])


def _one(target: Target, seconds: float) -> tuple[float, float, int]:
    """P99 alone and beside ranges, in milliseconds, and the ranges that were answered."""
    with calling(target) as (links, link):
        alone = steady(links, link, seconds)
        with _ranging(target) as stop:
            together = steady(links, link, seconds)
            answered = stop()
    return percentile(alone, 0.99), percentile(together, 0.99), answered


def steady(links: Links, link: CallLink, seconds: float) -> list[float]:
    """Milliseconds from when each put was due until its answer, in ascending order.

    Raises:
        BenchFault: one was refused, or did not come.
    """
    times = []
    began = time.perf_counter()
    for number in range(round(seconds * PER_S)):
        due = began + number / PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
        put = requests.put(requests.key(93, number % KEYS), requests.value(number))
        ask_all(links, link, requests.PUT, [put])
        times.append((time.perf_counter() - due) * 1e3)
    return sorted(times)


@contextlib.contextmanager
def _ranging(target: Target) -> Iterator[Any]:
    """Ranges one after the other, from the first answer on; the value ends them and counts."""
    fork = mp.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_range, args=(theirs, target), daemon=True)
    process.start()

    def hear() -> int:
        if not ours.poll(GIVE_UP_S):
            raise BenchFault("a range does not end")
        found = ours.recv()
        if isinstance(found, str):
            raise BenchFault(found)
        return int(found)

    def stop() -> int:
        ours.send("stop")
        return hear()

    try:
        hear()
        yield stop
    finally:
        process.kill()
        process.join()


def _range(pipe: Any, target: Target) -> None:
    """Tells that it began, and how many ranges there were."""
    ask = span(rpc_pb2.RangeRequest)
    count = 0
    try:
        with calling(target) as (links, link):
            ask_all(links, link, requests.RANGE, [ask])
            pipe.send(0)
            while not pipe.poll():
                ask_all(links, link, requests.RANGE, [ask])
                count += 1
        pipe.send(count)
    except BenchFault as fault:
        pipe.send(str(fault))
