"""A cluster of one out of a surviving member, and out of a backup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configsvc.client import administration as admin
from configsvc.client import inquiries, operations
from configsvc.errors import CompactedError, ExitCode
from configsvc.identity.member_ids import member_id
from tests.support import joiners
from tests.support.members import TOKEN, MemberCluster, MemberProcess

pytestmark = pytest.mark.integration
LEAP = 1_000_000_000


def write(cluster: MemberCluster, count: int) -> int:
    """The last revision written."""
    revision = 0
    with cluster.client() as client:
        for number in range(count):
            answer = client.do(operations.put(b"/k/%03d" % number, b"v%d" % number))
            revision = answer.header.revision
    return revision


def check_reborn(cluster: MemberCluster, member: MemberProcess, before: int, count: int) -> int:
    """Everything is there, the revision leapt, the past below is compacted; the cluster's id."""
    with cluster.client(member=member) as client:
        found = client.get_prefix(b"/k/")
        assert len(found.kvs) == count
        assert found.header.revision >= before + LEAP
        with pytest.raises(CompactedError):
            client.get(b"/k/000", revision=before)
        answer = client.do(operations.put(b"/k/new", b"1"))
        assert answer.header.revision > before + LEAP
        assert [m.ID for m in client.do(admin.member_list()).members] == [member.id]
        head = client.do(inquiries.checkpoint())
        assert head.size > count
        assert head.note.splitlines()[0].endswith("/audit/1")  # a new origin (TE-12)
        return int(answer.header.cluster_id)


def test_survivor_becomes_a_cluster_of_one(make_cluster: Callable[[int], MemberCluster]) -> None:
    cluster = make_cluster(3)
    cluster.start()
    before = write(cluster, 50)
    cluster.wait_applied()
    old_id = cluster.status(cluster.members[0]).header.cluster_id
    for member in cluster.members:
        member.kill()
    survivor, lost, _ = cluster.members
    survivor.extra.append("--force-new-cluster")
    survivor.start()
    cluster.wait_ready(survivor)
    new_id = check_reborn(cluster, survivor, before, 50)
    assert new_id != old_id
    # who still belongs to the old cluster is told so, and ends
    lost.start()
    assert lost.wait_exit() == ExitCode.WRONG_IDENTITY
    # the flag may stay: a cluster of one is left alone
    survivor.kill()
    survivor.start()
    cluster.wait_ready(survivor)
    assert cluster.status(survivor).header.cluster_id == new_id
    survivor.kill()
    survivor.extra.remove("--force-new-cluster")
    survivor.start()
    cluster.wait_ready(survivor)
    cluster.members = [survivor]
    # and it grows again
    joiner = joiners.add(cluster, 4)
    joiner.start()
    cluster.members.append(joiner)
    cluster.wait_ready(joiner)
    with cluster.client(member=joiner) as client:
        assert len(client.get_prefix(b"/k/").kvs) == 51


def test_backup_becomes_a_cluster_of_one(
    make_cluster: Callable[[int], MemberCluster], tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    (member,) = cluster.members
    before = write(cluster, 50)
    backup = tmp_path / "backup"
    joiners.configctl(cluster, "snapshot", "save", str(backup))
    write(cluster, 5)
    member.kill()
    member.data.rename(cluster.root / "lost")
    restore = [
        "snapshot",
        "restore",
        str(backup),
        f"--data-dir={member.data}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster-token={TOKEN}",
        f"--encryption-key-file={member.key}",
    ]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(backup.read_bytes()[:-1] + b"x")
    joiners.configctl(cluster, *[str(damaged) if w == str(backup) else w for w in restore], code=78)
    assert "restored as cluster" in joiners.configctl(cluster, *restore)
    joiners.configctl(cluster, *restore, code=78)  # the directory is in use now
    assert member.id == member_id([member.peer_url], TOKEN)
    member.start()
    cluster.wait_ready(member)
    check_reborn(cluster, member, before, 50)
