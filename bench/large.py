"""Large things beside small ones: how long a put waits while something very large is going on.

Each measure keeps one connection putting, one put after the other, to the leader while another
process asks for the large thing. Only ours against etcd's in the same run says anything.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from bench import requests
from bench.calls import CallLink, calling
from bench.clusters import Cluster
from bench.frames import BenchFault
from bench.link import Links, Target
from bench.load import percentile
from bench.report import Measure, Report
from bench.watching import open_watchers
from configsvc.proto import rpc_pb2

RANGE_KEYS: Final = 100_000
DELETED_KEYS: Final = 60_000
LEASES: Final = 10_000
LEASE_TTL_S: Final = 12
WATCHERS: Final = (100, 100)  # connections × watch streams on each
PER_TXN: Final = 100
UNDER_WAY: Final = 16
QUIET_S: Final = 3.0
GIVE_UP_S: Final = 120.0
HEAD: Final = requests.PREFIX + b"large/"
END: Final = requests.PREFIX + b"large0"
TXN: Final = "/etcdserverpb.KV/Txn"
DELETE: Final = "/etcdserverpb.KV/DeleteRange"
GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"

Prepare = Callable[[Target], None]
Work = Callable[[Target], contextlib.AbstractContextManager[Callable[[], None]]]


def measure(report: Report, clusters: Sequence[Cluster]) -> None:
    """All of them, on both systems."""
    parts: tuple[tuple[str, Prepare, Work], ...] = (
        (
            "range of 100,000 keys",
            lambda t: fill(t, RANGE_KEYS),
            _calling(requests.RANGE, span(rpc_pb2.RangeRequest)),
        ),
        (
            "deletion of 60,000 keys",
            lambda t: fill(t, DELETED_KEYS),
            _calling(DELETE, span(rpc_pb2.DeleteRangeRequest)),
        ),
        ("10,000 leases run out", _lease, _wait_until_gone),
        ("one put to 10,000 watchers", lambda _: None, _fan),
    )
    for name, prepare, work in parts:
        took = Measure(name, "ms", "lower")
        longest = Measure(f"  longest put meanwhile: {name}", "ms", "lower")
        p99 = Measure(f"  put p99 meanwhile: {name}", "ms", "lower")
        for cluster in clusters:
            ours = cluster.kind == "ours"
            try:
                found = _beside(cluster.target(cluster.leader()), prepare, work)
            except BenchFault as fault:
                report.miss(f"{name}, {cluster.kind}", str(fault))
                continue
            for kept, value in zip((took, longest, p99), found[:3], strict=True):
                (kept.ours if ours else kept.etcd).append(value)
            p99.notes[f"quiet_p99_{cluster.kind}"] = found[3]
        for each in (took, longest, p99):
            report.add(each)


def _beside(target: Target, prepare: Prepare, work: Work) -> tuple[float, float, float, float]:
    """Milliseconds: the work, the longest put meanwhile, their p99, their p99 before.

    Raises:
        BenchFault: anything was refused or did not end.
    """
    with calling(target) as (links, link):
        ask_all(links, link, DELETE, [span(rpc_pb2.DeleteRangeRequest)])
        prepare(target)
        until = time.perf_counter() + QUIET_S
        quiet = _puts(links, link, lambda: time.perf_counter() > until)
        fork = mp.get_context("fork")
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_worker, args=(theirs, target, work), daemon=True)
        process.start()
        if not ours.poll(GIVE_UP_S) or ours.recv() != "ready":
            raise BenchFault("the other process does not begin")
        times = _puts(links, link, ours.poll)
        found: Any = ours.recv()
        process.join()
    if isinstance(found, str):
        raise BenchFault(found)
    return found * 1e3, times[-1], percentile(times, 0.99), percentile(quiet, 0.99)


def _worker(pipe: Any, target: Target, work: Work) -> None:
    try:
        with work(target) as go:
            pipe.send("ready")
            began = time.perf_counter()
            go()
            took = time.perf_counter() - began
        pipe.send(took)
    except BenchFault as fault:
        pipe.send(str(fault))


def _puts(links: Links, link: CallLink, ended: Callable[[], Any]) -> list[float]:
    """Milliseconds of puts, one after the other, in ascending order."""
    times: list[float] = []
    name, began = requests.key(94, 0), time.perf_counter()
    while not (times and ended()):
        sent = time.perf_counter()
        ask_all(links, link, requests.PUT, [requests.put(name, requests.value(len(times)))])
        times.append((time.perf_counter() - sent) * 1e3)
        if time.perf_counter() - began > GIVE_UP_S:
            raise BenchFault("no end of it")
    return sorted(times)


def ask_all(links: Links, link: CallLink, path: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Ask with ``UNDER_WAY`` calls at a time; the answers.

    Raises:
        BenchFault: one was refused, or did not come.
    """
    found: list[bytes] = []
    for at in range(0, len(bodies), UNDER_WAY):
        streams = [link.ask(path, body) for body in bodies[at : at + UNDER_WAY]]
        if not links.run_until(lambda s=streams: all(x in link.answers for x in s), GIVE_UP_S):
            raise BenchFault(f"{path}: no answer")
        for stream in streams:
            message, trouble = link.answers.pop(stream)
            if trouble:
                raise BenchFault(f"{path}: {trouble}")
            found.append(message)
    return found


def span(kind: Any, **more: Any) -> bytes:
    """A request about all the keys here."""
    encoded: bytes = kind(key=HEAD, range_end=END, **more).SerializeToString()
    return encoded


def fill(target: Target, keys: int, leases: Sequence[int] = ()) -> None:
    """Put so many keys, each on its lease if there are leases."""
    bodies = []
    for at in range(0, keys, PER_TXN):
        txn = rpc_pb2.TxnRequest()
        for number in range(at, min(at + PER_TXN, keys)):
            put = txn.success.add().request_put
            put.key, put.value = HEAD + b"%08d" % number, requests.value(number)[:64]
            put.lease = leases[number] if leases else 0
        bodies.append(txn.SerializeToString())
    with calling(target) as (links, link):
        ask_all(links, link, TXN, bodies)


def _calling(path: str, body: bytes) -> Work:
    @contextlib.contextmanager
    def work(target: Target) -> Iterator[Callable[[], None]]:
        with calling(target) as (links, link):
            yield lambda: _nothing(ask_all(links, link, path, [body]))

    return work


def _nothing(_: object) -> None:
    """The answers do not matter."""


def _lease(target: Target) -> None:
    grant = rpc_pb2.LeaseGrantRequest(TTL=LEASE_TTL_S).SerializeToString()
    with calling(target) as (links, link):
        answers = ask_all(links, link, GRANT, [grant] * LEASES)
    ids = [rpc_pb2.LeaseGrantResponse.FromString(answer).ID for answer in answers]
    fill(target, LEASES, ids)


@contextlib.contextmanager
def _wait_until_gone(target: Target) -> Iterator[Callable[[], None]]:
    """From when the first lease has run out until no key is left."""
    ask = span(rpc_pb2.RangeRequest, count_only=True)

    with calling(target) as (links, link):

        def wait(keys: int) -> None:
            began = time.perf_counter()
            while True:
                (answer,) = ask_all(links, link, requests.RANGE, [ask])
                if rpc_pb2.RangeResponse.FromString(answer).count <= keys:
                    return
                if time.perf_counter() - began > GIVE_UP_S:
                    raise BenchFault("leases do not run out")
                time.sleep(0.05)

        wait(LEASES - 1)
        yield lambda: wait(0)


@contextlib.contextmanager
def _fan(target: Target) -> Iterator[Callable[[], None]]:
    connections, streams = WATCHERS
    links = Links()
    try:
        watchers = open_watchers(links, target, requests.key(95, 0), connections, streams)
        with calling(target) as (_, writer):

            def go() -> None:
                writer.ask(requests.PUT, requests.put(requests.key(95, 0), b"v"))
                if not links.run_until(
                    lambda: all(w.events >= streams for w in watchers), GIVE_UP_S
                ):
                    raise BenchFault("not every watcher was told")

            yield go
    finally:
        links.close()
