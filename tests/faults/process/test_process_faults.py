"""Real processes under kill, pause, partitions and bad disks; every history is checked.

Short forms here; ``make faults`` runs the long loops. What a machine lacks is skipped by name.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configsvc.client import operations
from configsvc.errors import ConfigServiceError
from tests.faults.process.arena import ELECTION_S, Arena, load, long_run, small_disk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

NOISE_S = 4.0  # what a busy two-core machine may add to any of the gaps below


def test_kill_9_of_leader_and_others_under_load(arena: Arena) -> None:
    """No acknowledged write lost, no stale read, whoever is killed."""
    rng = random.Random(7)
    loops = long_run(3, 300)
    rejoin = []
    with load(arena) as clients:
        for number in range(loops):
            victim = arena.leader() if number % 2 == 0 else rng.choice(arena.members)
            victim.kill()
            clients.wait_for(5, within=15.0)
            victim.start()
            began = time.monotonic()
            arena.wait_ready(victim)
            rejoin.append(time.monotonic() - began)
    rejoin.sort()
    print(
        f"{loops} kills, rejoined in p50 {rejoin[len(rejoin) // 2]:.2f} s, worst {rejoin[-1]:.2f} s"
    )


def test_all_killed_at_once(arena: Arena) -> None:
    for _ in range(long_run(1, 20)):
        with load(arena) as clients:
            for member in arena.members:
                member.kill()
            arena.start()
            clients.wait_for(5, within=20.0)


def test_paused_leader_with_waiting_reads(arena: Arena) -> None:
    """It wakes up deposed: what waits on it must not be answered from the past."""
    rng = random.Random(8)
    with load(arena) as clients:
        for _ in range(long_run(2, 100)):
            leader = arena.leader()
            leader.signal(signal.SIGSTOP)
            time.sleep(rng.choice((0.3, 2.2)))
            leader.signal(signal.SIGCONT)
            clients.wait_for(10)


def test_isolated_leader(arena: Arena) -> None:
    for _ in range(long_run(1, 60)):
        with load(arena) as clients:
            leader = arena.leader()
            since = time.monotonic_ns()
            arena.cut(*arena.apart(leader, *arena.others(leader)))
            clients.wait_for(20)
            arena.cut()
            clients.wait_for(5)
            gap = clients.longest_gap(since)
        print(f"write gap {gap:.2f} s")
        assert gap <= 3 * ELECTION_S + NOISE_S


def test_bridge_keeps_serving(arena: Arena) -> None:
    """Two members see only the third (the shape of Cloudflare's 2020 outage): no churn."""
    for _ in range(long_run(1, 60)):
        with load(arena) as clients:
            leader = arena.leader()
            bridge, other = arena.others(leader)
            terms = _term(arena)
            arena.cut(*arena.apart(leader, other))
            since = time.monotonic_ns()
            time.sleep(long_run(4, 10))
            gap = clients.longest_gap(since)
            changes = _term(arena, bridge) - terms
            arena.cut()
        print(f"{changes} changes of term, write gap {gap:.2f} s")
        assert changes <= 1
        assert gap <= 3 * ELECTION_S + NOISE_S


@pytest.mark.parametrize("way", ["deaf", "mute"])
def test_one_way_links(arena: Arena, way: str) -> None:
    """A leader that only hears, or that only speaks, does not stay in office."""
    for _ in range(long_run(1, 60)):
        with load(arena) as clients:
            leader = arena.leader()
            others = arena.others(leader)
            since = time.monotonic_ns()
            if way == "deaf":
                arena.cut(*[(other, leader) for other in others])
            else:
                arena.cut(*[(leader, other) for other in others])
            clients.wait_for(20)
            arena.cut()
            clients.wait_for(5)
            gap = clients.longest_gap(since)
        print(f"{way}: write gap {gap:.2f} s")
        assert gap <= 3 * ELECTION_S + NOISE_S


def test_hung_sync_moves_leadership(arena: Arena) -> None:
    if arena.shim is None:
        pytest.skip("sync faults: no C compiler here")
    for _ in range(long_run(1, 20)):
        with load(arena) as clients:
            leader = arena.leader()
            since = time.monotonic_ns()
            arena.sync_fault(leader, "hang")
            clients.wait_for(20)
            moved = clients.longest_gap(since)
            arena.sync_fault(leader, "")
            clients.wait_for(5)
        print(f"writes went on after {moved:.2f} s")
        assert moved <= 2 * ELECTION_S + NOISE_S


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_failed_sync_ends_the_member_and_nothing_else(arena: Arena, role: str) -> None:
    if arena.shim is None:
        pytest.skip("sync faults: no C compiler here")
    for _ in range(long_run(1, 40)):
        with load(arena) as clients:
            leader = arena.leader()
            victim = leader if role == "leader" else arena.others(leader)[0]
            arena.sync_fault(victim, "eio")
            assert victim.wait_exit(10.0) == 80
            clients.wait_for(10)
            arena.sync_fault(victim, "")
            victim.start()
            arena.wait_ready(victim)


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_full_disk_hands_over_and_the_cluster_goes_on(pki: Path, tmp_path: Path, role: str) -> None:
    """The space of one member's disk runs out: no write is lost, somebody else leads if it did,
    and the member is whole again once there is room.
    """
    root = tmp_path / "full"
    root.mkdir(mode=0o700)
    cluster = Arena(root, pki, 3)
    try:
        with contextlib.ExitStack() as disks:
            for member in cluster.members:
                member.data.mkdir(mode=0o700)
                if not disks.enter_context(small_disk(member.data, 160)):
                    pytest.skip("full disk: no tmpfs can be mounted here")
            cluster.start()
            with load(cluster) as clients:
                leader = cluster.leader()
                victim = leader if role == "leader" else cluster.others(leader)[0]
                filler = victim.data / "filler"
                room = shutil.disk_usage(victim.data).free - 8 * 2**20
                filler.write_bytes(bytes(room))
                _until(lambda: "space runs out" in victim.log_text(), 15.0)
                _until(lambda: cluster.leader() is not victim, 15.0)
                clients.wait_for(20)
                assert victim.running
                filler.unlink()
                clients.wait_for(5)
            cluster.wait_ready(victim)
            cluster.wait_equal()
            cluster.stop()
    finally:
        cluster.stop()


def _until(what: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.skipif("FAULTS_LONG" not in os.environ, reason="five members: make faults")
def test_ring_of_five(pki: Path, tmp_path: Path) -> None:
    """Everybody sees two neighbours only: whoever leads must have three of five."""
    root = tmp_path / "ring"
    root.mkdir(mode=0o700)
    cluster = Arena(root, pki, 5)
    try:
        cluster.start()
        for _ in range(long_run(1, 20)):
            with load(cluster) as clients:
                near = {(i, (i + d) % 5) for i in range(5) for d in (1, 4)}
                members = cluster.members
                far = [(i, j) for i in range(5) for j in range(5) if i != j and (i, j) not in near]
                cluster.cut(*[(members[i], members[j]) for i, j in far])
                clients.wait_for(20, within=30.0)
                cluster.cut()
    finally:
        cluster.stop()


def test_injectors_are_alive(arena: Arena) -> None:
    """A proxy that cuts nothing, or a library that fails nothing, would prove nothing."""
    assert arena.proxy.passed > 1000
    leader = arena.leader()
    arena.cut(*[link for m in arena.members for link in arena.apart(m, *arena.others(m))])
    with arena.client(member=leader, timeout=2.5) as client, pytest.raises(ConfigServiceError):
        client.do(operations.put(b"/f/alive", b"no quorum"))
    arena.cut()
    if arena.shim is not None:
        victim = arena.members[0]
        arena.sync_fault(victim, "eio")
        with arena.client(timeout=8.0) as client:
            for _ in range(20):
                try:
                    client.do(operations.put(b"/f/alive", b"one sync"))
                except ConfigServiceError:
                    time.sleep(0.1)
                if not victim.running:
                    break
        assert victim.wait_exit(10.0) == 80


def _term(arena: Arena, member: object = None) -> int:
    chosen = member if member is not None else arena.leader()
    return int(arena.status(chosen).raftTerm)  # type: ignore[arg-type]
