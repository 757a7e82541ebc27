"""Members that come and go, a data directory of yesterday, and wall clocks that jump.

Short forms here; ``make faults`` runs the long loops.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configsvc.client import administration as admin
from configsvc.errors import ConfigServiceError, ConflictError, ExitCode
from tests.faults.process.arena import Arena, clock_library, load, long_run
from tests.support import joiners
from tests.support.members import MemberProcess
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

JUMPS = ("+600s", "+0s", "-200s", "+0s")
CONNECTED_S = 5.2  # strict reconfiguration wants members that are connected for 5 s


def test_members_come_and_go_under_load_and_kills(arena: Arena) -> None:
    """A voter joins, one of the old ones is killed, the newcomer leaves for ever."""
    for number in range(4, 4 + long_run(1, 10)):
        time.sleep(CONNECTED_S)
        with load(arena) as clients:
            joiner = _added(arena, number)
            joiner.start()
            arena.wait_ready(joiner)
            victim = arena.leader()
            victim.kill()
            clients.wait_for(10, within=20.0)
            victim.start()
            arena.wait_ready(victim)
            time.sleep(CONNECTED_S)
            with arena.client(timeout=10.0) as client:
                client.do(admin.member_remove(joiner.id))
            assert joiner.wait_exit(20.0) == ExitCode.REMOVED
            clients.wait_for(10)
            joiner.start()
            assert joiner.wait_exit(20.0) == ExitCode.REMOVED
        arena.wait_equal()


def _added(arena: Arena, number: int) -> joiners.Joiner:
    """The new member, once the cluster takes it: it refuses while somebody is away."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return joiners.add(arena, number)
        except ConfigServiceError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_a_data_directory_of_yesterday_is_refused(arena: Arena, tmp_path: Path) -> None:
    """It would vote again, and forget what it acknowledged: the others know, and it ends."""
    victim = arena.others(arena.leader())[0]
    victim.kill()
    yesterday, today = tmp_path / "yesterday", tmp_path / "today"
    joiners.copy_tree(victim.data, yesterday)
    victim.start()
    arena.wait_ready(victim)
    with load(arena) as clients:
        clients.wait_for(50)
        victim.kill()
        shutil.move(victim.data, today)
        joiners.copy_tree(yesterday, victim.data)
        victim.start()
        assert victim.wait_exit(20.0) == ExitCode.WENT_BACK
        clients.wait_for(20)
        shutil.rmtree(victim.data)
        shutil.move(today, victim.data)
        victim.start()
        arena.wait_ready(victim)
    arena.wait_equal()


@pytest.fixture
def clocks(pki: Path, tmp_path: Path) -> Iterator[Arena]:
    """Three members whose wall clocks can be set."""
    library = clock_library()
    if library is None:
        pytest.skip("CLOCK JUMPS NOT TESTED: no libfaketime here; `make faketime` unpacks it")
    root = tmp_path / "clocks"
    root.mkdir(mode=0o700)
    cluster = Arena(root, pki, 3, clocks=library)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_wall_clocks_jump(clocks: Arena) -> None:
    """Forth and back on the leader and on another member: nothing lost, nothing out of order."""
    with load(clocks) as clients:
        jumped: set[MemberProcess] = set()
        for _ in range(long_run(1, 10)):
            leader = clocks.leader()
            for member in (leader, clocks.others(leader)[0]):
                for jump in JUMPS:
                    seen = _jumps(member)
                    clocks.set_clock(member, jump)
                    clients.wait_for(20, within=20.0)
                    # Once a second a member looks; a jump that is taken back before is none.
                    until(lambda: _jumps(member) > seen, limit_s=20.0)  # noqa: B023
                jumped.add(member)
    for member in jumped:  # else nothing jumped, and this proved nothing
        assert _jumps(member) >= len(JUMPS)
    clocks.wait_equal()


def test_a_member_with_a_wrong_clock_says_so_and_declines_leadership(clocks: Arena) -> None:
    """A1, E3: another one leads, operators see why, and nobody can make it lead meanwhile."""
    wrong = clocks.leader()
    clocks.set_clock(wrong, "+30s")
    until(lambda: "clock is +" in _errors(clocks, wrong), limit_s=60.0)
    until(lambda: clocks.leader() is not wrong, limit_s=60.0)
    with (
        clocks.client(member=clocks.leader()) as client,
        pytest.raises(ConflictError, match="declines leadership"),
    ):
        client.do(admin.move_leader(wrong.id))
    assert all(_errors(clocks, other) == "" for other in clocks.others(wrong))
    clocks.set_clock(wrong, "+0s")
    until(lambda: _errors(clocks, wrong) == "", limit_s=60.0)
    assert "this member's clock is right again" in wrong.log_text()


def _jumps(member: MemberProcess) -> int:
    """How often the member saw its wall clock set."""
    return member.log_text().count("the wall clock was set")


def _errors(cluster: Arena, member: MemberProcess) -> str:
    return "; ".join(cluster.status(member).errors)
