"""kill -9 at any time under write load: no acknowledged write is missing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from configsvc.client import operations
from configsvc.errors import ConfigServiceError
from tests.support.members import MemberCluster

pytestmark = pytest.mark.integration
KILLS = 6


class Writer(threading.Thread):
    """Writes unique values and remembers which were acknowledged."""

    def __init__(self, cluster: MemberCluster, number: int) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.prefix = f"/load/{number}/".encode()
        self.acked: dict[bytes, int] = {}
        self.failed = 0
        self.halt = threading.Event()

    def run(self) -> None:
        with self.cluster.client(timeout=3.0) as client:
            count = 0
            while not self.halt.is_set():
                key = self.prefix + b"%06d" % count
                count += 1
                try:
                    answer = client.do(operations.put(key, b"v" + key))
                except ConfigServiceError:
                    self.failed += 1
                    continue
                self.acked[key] = answer.header.revision


def test_no_acknowledged_write_is_lost(make_cluster: Callable[[int], MemberCluster]) -> None:
    cluster = make_cluster(3)
    cluster.start()
    rng = random.Random(20)
    writers = [Writer(cluster, n) for n in range(3)]
    for writer in writers:
        writer.start()
    for round_ in range(KILLS):
        before = sum(len(w.acked) for w in writers)
        victim = cluster.leader() if round_ % 2 == 0 else rng.choice(cluster.members)
        victim.kill()
        _wait_for_writes(writers, before + 20)
        victim.start()
        cluster.wait_ready(victim)
    for writer in writers:
        writer.halt.set()
    for writer in writers:
        writer.join(10)
    acked = {k: r for w in writers for k, r in w.acked.items()}
    assert len(acked) > 100
    for member in cluster.members:
        with cluster.client(member=member) as client:
            held = {kv.key: kv for kv in client.get_prefix(b"/load/").kvs}
        for key, revision in acked.items():
            assert held[key].mod_revision == revision, f"{key!r} on {member.name}"
    cluster.wait_equal()


def _wait_for_writes(writers: list[Writer], least: int) -> None:
    deadline = time.monotonic() + 15
    while sum(len(w.acked) for w in writers) < least:
        assert time.monotonic() < deadline, "writes did not go on within 15 s"
        time.sleep(0.02)
