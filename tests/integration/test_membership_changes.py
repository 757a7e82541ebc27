"""Members come, are promoted, and go, under load, through our API and etcd's own client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from configsvc.client import administration as admin
from configsvc.client import operations
from configsvc.errors import (
    ExitCode,
    LearnerNotReadyError,
    NotSupportedForLearnerError,
    UnhealthyError,
)
from tests.integration.test_install_lagging import Background
from tests.support import joiners, stock_etcdctl
from tests.support.members import MemberCluster, MemberProcess
from tests.support.stock_etcdctl import etcdctl
from tests.support.waiting import until

# Five members start one after the other: a busy machine takes more than a minute for that.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

Changed = TypeVar("Changed")


def promote(cluster: MemberCluster, member: int) -> None:
    """Promote a learner once it has caught up."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with cluster.client() as client:
                client.do(admin.member_promote(member))
            return
        except LearnerNotReadyError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def once_connected(change: Callable[[], Changed]) -> Changed:
    """Strict reconfiguration wants members that are connected for five seconds: ask until then."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return change()
        except UnhealthyError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def told(cluster: MemberCluster, *words: str) -> str:
    """What etcdctl printed; its way to say that members are not connected for long is ours."""
    done = stock_etcdctl.run(cluster, *words)
    if UnhealthyError.text in done.stderr:
        raise UnhealthyError
    assert done.returncode == 0, done.stderr
    return done.stdout


def remove(cluster: MemberCluster, member: MemberProcess) -> None:
    with cluster.client(members=cluster.others(member), timeout=10.0) as client:
        once_connected(lambda: client.do(admin.member_remove(member.id)))


def refused_by_a_learner(cluster: MemberCluster, learner: MemberProcess) -> None:
    """X5: serializable reads and its status, nothing else; a client with a choice goes on."""
    with cluster.client(member=learner) as client:
        client.do(operations.range_(b"/load/", b"/load0", serializable=True))
        client.do(admin.status())
        with pytest.raises(NotSupportedForLearnerError):
            client.do(operations.range_(b"k"))
        with pytest.raises(NotSupportedForLearnerError):
            client.do(operations.put(b"k", b"v"))
        with pytest.raises(NotSupportedForLearnerError):
            client.do(admin.member_list())
    with cluster.client(members=[learner, *cluster.others(learner)]) as client:
        client.do(operations.range_(b"k"))


def test_learner_joins_is_promoted_and_an_old_member_leaves_under_load(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    load = Background(cluster, list(cluster.members[:2]))
    load.start()
    joiner = once_connected(lambda: joiners.add(cluster, 4, learner=True))
    joiner.start()
    cluster.members.append(joiner)
    until(lambda: "ready to serve" in joiner.log_text(), "the learner serves", 60.0)
    refused_by_a_learner(cluster, joiner)
    promote(cluster, joiner.id)
    cluster.wait_ready(joiner)
    leaver = cluster.members[2]
    leaver.extra.append(f"--initial-cluster={cluster.initial_cluster}")
    remove(cluster, leaver)
    assert leaver.wait_exit() == ExitCode.REMOVED
    cluster.members.remove(leaver)
    load.halt.set()
    load.join(10)
    assert not load.failures
    assert len(load.acked) > 20
    cluster.wait_equal()
    with cluster.client(member=joiner) as client:
        listed = client.do(admin.member_list()).members
        assert {m.ID for m in listed} == {m.id for m in cluster.members}
        assert all(m.name and not m.isLearner for m in listed)
        held = client.get_prefix(b"/load/")
        assert {kv.key: kv.mod_revision for kv in held.kvs} == load.acked
    # once removed, for ever removed: the same directory says so and exits again
    leaver.start()
    assert leaver.wait_exit() == ExitCode.REMOVED
    assert "removed from the cluster" in leaver.log_text()


def test_leader_removes_itself(make_cluster: Callable[[int], MemberCluster]) -> None:
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.leader()
    with cluster.client(member=leader, timeout=10.0) as client:
        once_connected(lambda: client.do(admin.member_remove(leader.id)))
    assert leader.wait_exit() == ExitCode.REMOVED
    cluster.members.remove(leader)
    with cluster.client(members=cluster.members) as client:
        client.do(operations.put(b"after", b"1"))
    cluster.wait_equal()


def test_voter_joins_a_single_member(make_cluster: Callable[[int], MemberCluster]) -> None:
    """Growing from one to two: the next entry needs both, so the newcomer must come up alone."""
    cluster = make_cluster(1)
    cluster.start()
    with cluster.client() as client:
        client.do(operations.put(b"before", b"1"))
    joiner = joiners.add(cluster, 2)
    joiner.start()
    cluster.members.append(joiner)
    cluster.wait_ready(joiner)
    with cluster.client(member=joiner) as client:
        client.do(operations.put(b"after", b"2"))
        assert [kv.key for kv in client.get_prefix(b"").kvs] == [b"after", b"before"]
    # it restarts with the same flags, and with none about the cluster at all
    joiner.kill()
    joiner.start()
    cluster.wait_ready(joiner)
    cluster.wait_equal()


def test_wiped_member_is_refused_and_replaced(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    victim = cluster.others(cluster.leader())[0]
    victim.kill()
    victim.data.rename(cluster.root / "lost")
    victim.start()
    assert victim.wait_exit() == ExitCode.WRONG_IDENTITY
    remove(cluster, victim)
    cluster.members.remove(victim)
    joiner = once_connected(lambda: joiners.add(cluster, 4))
    joiner.start()
    cluster.members.append(joiner)
    cluster.wait_ready(joiner)
    cluster.wait_equal()


def test_old_copy_of_a_member_is_refused(make_cluster: Callable[[int], MemberCluster]) -> None:
    cluster = make_cluster(3)
    cluster.start()
    leader = cluster.leader()
    victim, other = cluster.others(leader)
    with cluster.client(members=[leader]) as client:
        client.do(operations.put(b"early", b"1"))
    cluster.wait_applied()
    victim.kill()
    joiners.copy_tree(victim.data, cluster.root / "copy")
    victim.start()
    cluster.wait_ready(victim)
    with cluster.client(members=[leader, other]) as client:
        for number in range(50):
            client.do(operations.put(b"late%d" % number, b"2"))
    cluster.wait_applied()
    victim.kill()
    victim.data.rename(cluster.root / "newer")
    (cluster.root / "copy").rename(victim.data)
    victim.start()
    assert victim.wait_exit() == ExitCode.WENT_BACK
    assert "replace this member" in victim.log_text()


def test_etcdctl_changes_members(make_cluster: Callable[[int], MemberCluster]) -> None:
    cluster = make_cluster(3)
    cluster.start()
    joiner = joiners.Joiner(cluster, 4)
    words = ("member", "add", "m4", "--learner", f"--peer-urls={joiner.peer_url}")
    printed = once_connected(lambda: told(cluster, *words))
    joiner.added_id = joiners.added_id(printed)
    joiner.start()
    cluster.members.append(joiner)
    deadline = time.monotonic() + 60
    while ", started," not in _line(cluster, joiner):
        assert joiner.process is not None
        given_up = joiner.process.poll() is not None or time.monotonic() >= deadline
        assert not given_up, joiner.log_text()[-3000:]
        time.sleep(0.2)
    promote(cluster, joiner.id)
    etcdctl(cluster, "member", "update", f"{joiner.id:x}", f"--peer-urls={joiner.peer_url}")
    etcdctl(cluster, "member", "remove", f"{joiner.id:x}")
    assert joiner.wait_exit() == ExitCode.REMOVED
    cluster.members.remove(joiner)
    cluster.wait_equal()


def _line(cluster: MemberCluster, member: MemberProcess) -> str:
    listed = etcdctl(cluster, "member", "list", member=cluster.members[0])
    return next(line for line in listed.splitlines() if f"{member.id:x}" in line)
