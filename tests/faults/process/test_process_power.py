"""The power of all members goes at once, under load: real files, without what was not synced.

Short form here; ``make faults`` cuts 67 times, which is 201 data directories.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.faults.process.arena import Arena, FaultyMember, build_shim, load, long_run
from tests.faults.process.power import take_back

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

_CHILD = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(file, b"a" * 1024, 0)
os.fsync(file)
os.pwrite(file, b"b" * 2048, 0)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("lost", "left"), [(1.0, b"a" * 1024), (0.0, b"b" * 2048)])
def test_what_was_not_synced_is_taken_back(tmp_path: Path, lost: float, left: bytes) -> None:
    shim = build_shim(tmp_path, "recorder.c")
    if shim is None:
        pytest.skip("power cuts: no C compiler here")
    folder, undo = tmp_path / "data", tmp_path / "undo"
    folder.mkdir()
    environ = {**os.environ, "LD_PRELOAD": str(shim), "UNDO_FILE": str(undo)}
    subprocess.run([sys.executable, "-c", _CHILD, str(folder / "file")], env=environ, check=False)
    assert (folder / "file").read_bytes() == b"b" * 2048
    taken = take_back(undo, folder, Random(1), lost)
    assert (folder / "file").read_bytes() == left
    assert (taken > 0) == (lost > 0)


def test_power_of_all_members_goes_at_once(pki: Path, tmp_path: Path) -> None:
    root = tmp_path / "power"
    root.mkdir(mode=0o700)
    cluster = Arena(root, pki, 3)
    recorder = build_shim(root, "recorder.c")
    if recorder is None:
        pytest.skip("power cuts: no C compiler here")
    members = [member for member in cluster.members if isinstance(member, FaultyMember)]
    for member in members:
        member.shim = recorder
    chance, taken, cuts = Random(3), 0, long_run(2, 67)
    try:
        cluster.start()
        with load(cluster) as clients:
            for _ in range(cuts):
                clients.wait_for(chance.randint(1, 60), within=30.0)
                for member in members:
                    member.signal(signal.SIGKILL)
                for member in members:
                    member.wait_exit()
                for member in members:
                    lost = chance.choice((0.0, 0.1, 0.5, 1.0, 1.0))
                    taken += take_back(member.undo, member.data, chance, lost)
                cluster.start()
        cluster.wait_equal()
        print(f"{cuts} power cuts, {3 * cuts} data directories, {taken} sectors lost")
        assert taken
    finally:
        cluster.stop()
