"""A member that was away for longer than the log is kept is brought up by an install."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from configsvc.client import operations
from configsvc.client.errors import OutcomeUnknownError
from configsvc.client.sync_streams import Watch
from configsvc.client.watching import WatchOptions
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


def wait_for_cut() -> None:
    """The log is looked at every second, and cut behind a checkpoint; nobody tells when it was."""
    time.sleep(2.5)


class Background(threading.Thread):
    """Writes until told to stop; what fails is counted.

    A put whose outcome is unknown is put again: the same value under a key of its own.
    """

    def __init__(self, cluster: MemberCluster, members: list[MemberProcess]) -> None:
        super().__init__(daemon=True)
        self.cluster, self.members = cluster, members
        self.acked: dict[bytes, int] = {}
        self.failures: list[str] = []
        self.retried = 0
        self.halt = threading.Event()

    def run(self) -> None:
        with self.cluster.client(members=self.members) as client:
            number = 0
            while not self.halt.is_set():
                key = b"/load/%06d" % number
                try:
                    self.acked[key] = client.do(operations.put(key, key)).header.revision
                except OutcomeUnknownError:
                    self.retried += 1
                    continue
                except ConfigServiceError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                number += 1


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
    wait_for_cut()
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
    cluster.wait_equal()
    # and the member lives on with what it was given
    away.kill()
    write(cluster, 20, "/again/", leader, other)
    away.start()
    cluster.wait_ready(away)
    cluster.wait_equal()


def test_watches_go_on_through_an_install(make_cluster: Callable[[int], MemberCluster]) -> None:
    """A member that stood still while the log was cut is installed alive; its watchers miss
    nothing and are not cut off.
    """
    cluster = make_cluster(3)
    short_log(cluster)
    cluster.start()
    leader = cluster.leader()
    paused, other = cluster.others(leader)
    lost: list[str] = []
    seen: list[bytes] = []
    with cluster.client(member=paused) as client:
        options = WatchOptions(b"/w/", b"/w0", start_revision=2)
        with Watch(client, options, on_lost=lost.append) as watch:
            write(cluster, 5, "/w/a", leader)
            while len(seen) < 5:
                seen += [event.kv.key for event in next(watch).events]
            paused.signal(signal.SIGSTOP)
            time.sleep(2.5)  # a quorum check finds it silent; the log is not kept for it any more
            write(cluster, 1_000, "/w/b", leader, other)
            wait_for_cut()
            paused.signal(signal.SIGCONT)
            while len(seen) < 1_005:
                seen += [event.kv.key for event in next(watch).events]
            write(cluster, 5, "/w/c", leader)
            while len(seen) < 1_010:
                seen += [event.kv.key for event in next(watch).events]
    assert seen == [
        b"/w/%c%06d" % (c, n) for c, k in ((97, 5), (98, 1_000), (99, 5)) for n in range(k)
    ]
    assert not lost
    assert '"installed"' in paused.log_text()
    cluster.wait_equal()


def test_kills_during_an_install(make_cluster: Callable[[int], MemberCluster]) -> None:
    """Whatever a kill leaves of an install, receiver and leader start again and get there."""
    cluster = make_cluster(3)
    short_log(cluster)
    cluster.start()
    leader = cluster.leader()
    away, other = cluster.others(leader)
    away.kill()
    write(cluster, 1_500, "/k/", leader, other)
    rng = random.Random(7)
    for _ in range(6):
        away.start()
        time.sleep(0.5 + rng.random() * 0.8)
        away.kill()
    away.start()
    time.sleep(0.9)
    leader.kill()
    leader.start()
    cluster.wait_ready()
    cluster.wait_equal()
    generations = sorted(p.name for p in (away.data / "sql").glob("gen-*.db"))
    assert len(generations) == 1, "what an install left behind is cleared away"
