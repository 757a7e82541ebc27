"""One entry that deletes very many keys: everybody is served, and nobody loses office."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from configsvc.client import operations, txn
from configsvc.client.sync import Client
from tests.support.members import MemberCluster

pytestmark = pytest.mark.integration

KEYS = 60_000
PER_TXN = 128
LOADERS = 4
LEASE = 4242
PREFIX = b"/many/"


class Probe(threading.Thread):
    """One operation after the other through one member; the longest wait."""

    def __init__(self, client: Client, operation: operations.Operation[Any]) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._operation = operation
        self.longest = 0.0
        self.error: Exception | None = None
        self.halt = threading.Event()

    def run(self) -> None:
        while not self.halt.is_set():
            began = time.monotonic()
            try:
                self._client.do(self._operation, timeout_s=30.0)
            except Exception as error:
                self.error = error
                return
            self.longest = max(self.longest, time.monotonic() - began)
            self.halt.wait(0.005)


def fill(cluster: MemberCluster, lease: int) -> None:
    def load(first: int) -> None:
        with cluster.client(timeout=60.0) as client:
            for at in range(first, KEYS, LOADERS * PER_TXN):
                puts = [
                    operations.put(PREFIX + b"%08d" % n, b"value of some length", lease=lease)
                    for n in range(at, min(at + PER_TXN, KEYS))
                ]
                client.do(txn.Txn().then(*puts).operation())

    loaders = [threading.Thread(target=load, args=(n * PER_TXN,)) for n in range(LOADERS)]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join()


@pytest.fixture
def probes(trio: MemberCluster) -> Iterator[Callable[[], list[Probe]]]:
    started: list[Probe] = []
    clients = [trio.client(member=member) for member in trio.members]
    opened = [client.__enter__() for client in clients]

    def start() -> list[Probe]:
        for client in opened:
            started.append(Probe(client, operations.put(b"/probe", b"v")))
            # Waits for nothing but the member's attention.
            started.append(Probe(client, operations.range_(b"/probe", serializable=True)))
        for probe in started:
            probe.start()
        return started

    yield start
    for probe in started:
        probe.halt.set()
        probe.join(10)
    for client in clients:
        client.__exit__(None, None, None)


@pytest.mark.parametrize("way", ["range", "txn", "lease"])
def test_60000_keys_go_at_once(
    trio: MemberCluster, probes: Callable[[], list[Probe]], way: str
) -> None:
    end = operations.prefix_end(PREFIX)
    with trio.client(timeout=60.0) as client:
        if way == "lease":
            client.do(operations.lease_grant(600, LEASE))
        fill(trio, LEASE if way == "lease" else 0)
        trio.wait_applied()
        terms = {trio.status(member).raftTerm for member in trio.members}
        running = probes()
        time.sleep(0.5)
        began = time.monotonic()
        if way == "range":
            gone = client.do(operations.delete(PREFIX, end)).deleted
        elif way == "txn":
            answer = client.do(txn.Txn().then(operations.delete(PREFIX, end)).operation())
            gone = answer.responses[0].response_delete_range.deleted
        else:
            client.do(operations.lease_revoke(LEASE))
            gone = KEYS
        took = time.monotonic() - began
        time.sleep(1.0)
        for probe in running:
            probe.halt.set()
        for probe in running:
            probe.join(10)
        assert gone == KEYS
        assert client.do(operations.range_(PREFIX, end, count_only=True)).count == 0
    trio.wait_equal()
    waits = [f"{probe.longest:.2f}" for probe in running]
    print(f"{way}: {took:.2f} s, longest waits {waits[::2]} for puts, {waits[1::2]} for reads")
    assert [probe.error for probe in running] == [None] * 6
    assert {trio.status(member).raftTerm for member in trio.members} == terms
