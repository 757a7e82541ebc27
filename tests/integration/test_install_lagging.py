"""A member that was away for longer than the log is kept is brought up by an install."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from configsvc.client import administration as admin
from configsvc.client import inquiries, operations
from configsvc.errors import ConfigServiceError
from tests.support.members import MemberCluster, MemberProcess

pytestmark = pytest.mark.integration
SHORT_LOG = ["--snapshot-count=200", "--snapshot-catchup-entries=100"]


def short_log(cluster: MemberCluster) -> None:
    for member in cluster.members:
        member.extra = list(SHORT_LOG)


def write(cluster: MemberCluster, count: int, prefix: str, *members: MemberProcess) -> None:
    with cluster.client(members=list(members) or None) as client:
        for number in range(count):
            client.do(operations.put(f"{prefix}{number:06d}".encode(), b"v%d" % number))


def check_equal(cluster: MemberCluster) -> None:
    """Equal rows and equal audit roots on all members."""
    cluster.wait_applied()
    hashes, roots = set(), set()
    for member in cluster.members:
        with cluster.client(member=member) as client:
            hashes.add(client.do(admin.hash_kv()).hash)
            head = client.do(inquiries.checkpoint())
            roots.add((head.size, head.root))
    assert len(hashes) == 1
    assert len(roots) == 1


class Background(threading.Thread):
    """Writes until told to stop; what fails is counted."""

    def __init__(self, cluster: MemberCluster, members: list[MemberProcess]) -> None:
        super().__init__(daemon=True)
        self.cluster, self.members = cluster, members
        self.acked: dict[bytes, int] = {}
        self.failures: list[str] = []
        self.halt = threading.Event()

    def run(self) -> None:
        with self.cluster.client(members=self.members) as client:
            number = 0
            while not self.halt.is_set():
                key = b"/load/%06d" % number
                number += 1
                try:
                    self.acked[key] = client.do(operations.put(key, key)).header.revision
                except ConfigServiceError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")


def test_lagging_member_is_installed_while_writes_go_on(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    short_log(cluster)
    cluster.start()
    leader = cluster.leader()
    away, other = cluster.others(leader)
    write(cluster, 50, "/before/")
    away.kill()
    write(cluster, 1_000, "/while/", leader, other)
    load = Background(cluster, [leader, other])
    load.start()
    away.start()
    cluster.wait_ready(away)
    load.halt.set()
    load.join(10)
    assert "installed" in away.log_text()
    assert not load.failures
    assert load.acked
    with cluster.client(member=away) as client:
        held = client.get_prefix(b"/load/")
        assert {kv.key: kv.mod_revision for kv in held.kvs} == load.acked
        # the past is there as well: what was before the install can be asked for
        old = client.get(b"/while/000010", revision=held.header.revision - len(load.acked))
        assert old is not None
        assert old.value == b"v10"
    check_equal(cluster)
    # and the member lives on with what it was given
    away.kill()
    write(cluster, 20, "/again/", leader, other)
    away.start()
    cluster.wait_ready(away)
    check_equal(cluster)
