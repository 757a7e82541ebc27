"""Watches: how soon an event arrives, and how soon a thousand watchers have it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from bench import requests
from bench.calls import CallLink
from bench.clusters import Cluster
from bench.frames import BenchFault
from bench.link import Link, Links, Target
from bench.load import percentile
from bench.report import Measure, Report

WATCHERS: Final = 1_000
OPEN_AT_ONCE: Final = 50
EVENT_S: Final = 10.0
FANOUTS: Final = ((10, 100), (1_000, 1))  # connections × watch streams on each


class Crowd:
    """Watching connections of one round, whose reads are stamped first and digested afterwards.

    To open a record costs more than to receive it: done at once for a thousand connections, it
    would be the reader that is measured.
    """

    def __init__(self, links: Links, watchers: Sequence[WatchLink]) -> None:
        self._links = links
        self._watchers = watchers
        self.heard = 0  # connections that something was read from and not digested
        for watcher in watchers:
            watcher.crowd = self

    def wait_for(self, goal: int) -> float:
        """The time of the read that brought the last of ``goal`` events on each connection.

        Raises:
            BenchFault: not in time.
        """
        missing = list(self._watchers)
        last = 0.0
        while missing:
            count = len(missing)
            if not self._links.run_until(lambda n=count: self.heard >= n, EVENT_S):
                raise BenchFault("not every watcher was told")
            self.heard = 0
            for watcher in self._watchers:
                last = max(last, watcher.catch_up(goal))
            missing = [watcher for watcher in missing if watcher.events < goal]
        return last


class WatchLink(Link):
    """Counts events of its watches."""

    crowd: Crowd | None = None  # None: everything is digested at once
    created = 0
    events = 0
    last_value = b""
    keep = False  # values are wanted, not just counts

    def on_answer(self, stream: int, message: bytes, trouble: str) -> None:
        raise BenchFault(f"a watch ended: {trouble or 'without a reason'}")

    def on_message(self, stream: int, message: bytes) -> None:
        if self.created < self.wanted:
            created, _, _ = requests.watched(message)
            self.created += created
        elif self.keep:
            for value in requests.watched(message)[2]:
                self.last_value = value
                self.events += 1
        else:
            self.events += 1

    def readable(self) -> None:
        crowd = self.crowd
        if crowd is None:
            super().readable()
            return
        data = self.arrived()
        if data:
            if not self.reads:
                crowd.heard += 1
            self.reads.append((time.perf_counter(), data))

    def catch_up(self, goal: int) -> float:
        """Digest what was read; the time of the read that brought event ``goal``, else 0."""
        found = 0.0
        for when, data in self.reads:
            before = self.events
            self.digest(data)
            if before < goal <= self.events:
                found = when
        self.reads.clear()
        return found

    wanted = 0

    def watch(self, name: bytes, streams: int) -> None:
        """Watch ``name`` on each of ``streams`` streams."""
        self.wanted = streams
        self.reads: list[tuple[float, bytes]] = []
        for _ in range(streams):
            self.start_stream(requests.WATCH, requests.watch(name, 0))


def open_watchers(
    links: Links, target: Target, name: bytes, connections: int, streams: int
) -> list[WatchLink]:
    """Connections whose watches are confirmed.

    Raises:
        BenchFault: not in time.
    """
    context = target.context()
    made: list[WatchLink] = []
    while len(made) < connections:
        batch = [
            WatchLink(target, context) for _ in range(min(OPEN_AT_ONCE, connections - len(made)))
        ]
        links.open(list(batch))
        for link in batch:
            link.watch(name, streams)
        made += batch
    if not links.run_until(lambda: all(each.created == streams for each in made), 30.0):
        raise BenchFault("watches are not confirmed")
    return made


def _writer(links: Links, target: Target) -> CallLink:
    link = CallLink(target, target.context())
    link.answers = {}
    links.open([link])
    return link


def delivery(report: Report, clusters: Sequence[Cluster], count: int) -> None:
    """One writer, one watcher on another connection: from the put to its event."""
    p50 = Measure("watch delivery, p50", "ms", "lower")
    p99 = Measure("watch delivery, p99", "ms", "lower")
    for cluster in clusters:
        times = sorted(_deliver(cluster.target(cluster.leader()), count))
        kept = (p50.ours, p99.ours) if cluster.kind == "ours" else (p50.etcd, p99.etcd)
        kept[0].append(percentile(times, 0.5) * 1e3)
        kept[1].append(percentile(times, 0.99) * 1e3)
    report.add(p50)
    report.add(p99)


def _deliver(target: Target, count: int) -> list[float]:
    links = Links()
    try:
        name = requests.key(90, 0)
        (watcher,) = open_watchers(links, target, name, 1, 1)
        watcher.keep = True
        writer = _writer(links, target)
        times = []
        for number in range(count):
            value = b"%08d" % number + requests.value(number)[8:]
            began = time.perf_counter()
            stream = writer.ask(requests.PUT, requests.put(name, value))
            if not links.run_until(lambda v=value: watcher.last_value == v, EVENT_S):
                raise BenchFault("an event did not arrive")
            times.append(time.perf_counter() - began)
            links.run_until(lambda s=stream: s in writer.answers, EVENT_S)
        return times
    finally:
        links.close()


def fan_out(report: Report, clusters: Sequence[Cluster], rounds: int) -> None:
    """One put, a thousand watchers: until the last one has its event."""
    for connections, streams in FANOUTS:
        name = f"fan-out to {WATCHERS} watchers, {connections}×{streams}, last event"
        measure = Measure(name, "ms", "lower")
        for cluster in clusters:
            try:
                times = _fan(cluster.target(cluster.leader()), connections, streams, rounds)
            except BenchFault as fault:
                report.miss(f"{name}, {cluster.kind}", str(fault))
                continue
            (measure.ours if cluster.kind == "ours" else measure.etcd).extend(times)
        report.add(measure)


def _fan(target: Target, connections: int, streams: int, rounds: int) -> list[float]:
    links = Links()
    try:
        name = requests.key(91, 0)
        watchers = open_watchers(links, target, name, connections, streams)
        writer = _writer(links, target)
        crowd = Crowd(links, watchers)
        times = []
        for number in range(rounds + 1):
            began = time.perf_counter()
            writer.ask(requests.PUT, requests.put(name, requests.value(number)))
            times.append((crowd.wait_for((number + 1) * streams) - began) * 1e3)
        return times[1:]  # the first one warms up
    finally:
        links.close()
