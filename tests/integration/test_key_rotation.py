"""Another key file for members that run: writes go on, the old key opens nothing (ENC-5)."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configsvc.errors import ConfigServiceError
from configsvc.storage.seal.keyfile import KeyFile
from tests.support.members import MemberCluster, MemberProcess

pytestmark = pytest.mark.integration

DONE = "all stores are under the new key"
WAIT_S = 30.0


class Load:
    """Puts one after the other until the block ends; every failure is kept."""

    def __init__(self, cluster: MemberCluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failed: list[ConfigServiceError] = []
        self.done = 0

    def _run(self) -> None:
        with self._cluster.client() as client:
            for number in itertools.count():
                if self._over.is_set():
                    return
                try:
                    client.put(b"load", b"%d" % number)
                    self.done += 1
                except ConfigServiceError as error:
                    self.failed.append(error)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(WAIT_S)


def until_log(member: MemberProcess, text: str, count: int = 1) -> None:
    deadline = time.monotonic() + WAIT_S
    while member.log_text().count(text) < count:
        assert time.monotonic() < deadline, f"no {text!r} in\n{member.log_text()[-2000:]}"
        time.sleep(0.05)


def new_key(member: MemberProcess) -> Path:
    """Beside the one in use; a copy of that is kept, as an operator keeps it for old backups."""
    shutil.copy2(member.key, f"{member.key}.kept")
    path = Path(f"{member.key}.new")
    KeyFile.create(path)
    return path


def filled(cluster: MemberCluster) -> int:
    """A revision whose values only the history has."""
    with cluster.client() as client:
        for number in range(30):
            client.put(b"key", b"%d" % number)
        found = client.get(b"key")
    assert found is not None
    return int(found.mod_revision)


def old_value(cluster: MemberCluster, member: MemberProcess, revision: int) -> bytes:
    with cluster.client(member=member, timeout=WAIT_S) as client:
        found = client.get(b"key", revision=revision)
    return bytes(found.value) if found is not None else b""


def test_a_leader_changes_its_key_under_load_and_writes_go_on(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    revision = filled(cluster)
    leader = cluster.leader()
    fresh = new_key(leader)
    with Load(cluster) as load:
        leader.signal(signal.SIGHUP)
        until_log(leader, DONE)
        before = load.done
        deadline = time.monotonic() + WAIT_S
        while load.done < before + 20 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert load.done >= before + 20
    assert load.failed == []
    assert old_value(cluster, leader, revision - 5) == b"24", "while it runs"

    os.replace(fresh, leader.key)
    leader.kill()  # nothing is written in order
    leader.start()
    cluster.wait_ready()
    assert old_value(cluster, leader, revision - 5) == b"24"
    cluster.wait_equal()

    leader.kill(signal.SIGTERM)
    os.replace(f"{leader.key}.kept", leader.key)
    leader.start()
    assert leader.wait_exit() == 78, "the old key opens nothing any more"


@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.1])
def test_a_kill_in_the_middle_is_mended_by_the_next_start(
    make_cluster: Callable[[int], MemberCluster], pause_s: float
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    [member] = cluster.members
    revision = filled(cluster)
    fresh = new_key(member)
    member.signal(signal.SIGHUP)
    time.sleep(pause_s)
    told = member.log_text().count(DONE)
    member.kill()
    member.start()
    cluster.wait_ready()
    until_log(member, DONE, told + 1)
    os.replace(fresh, member.key)
    member.kill()
    member.start()
    cluster.wait_ready()
    assert old_value(cluster, member, revision) == b"29"


def test_a_key_file_that_cannot_be_used_changes_nothing(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    [member] = cluster.members
    path = Path(f"{member.key}.new")
    path.write_text("no key")
    path.chmod(0o600)
    member.signal(signal.SIGHUP)
    until_log(member, "the key was not changed")
    path.unlink()
    member.kill()
    member.start()
    cluster.wait_ready()
