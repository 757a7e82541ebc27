"""What the writer may not do, even when its code is wrong: tried inside a confined process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from configagent.confine import landlock_version

TRIES = """
import json, os, socket, sys
sys.path[:0] = sys.argv[1].split(":")
from configagent import confine
root, other = sys.argv[2], sys.argv[3]
level = confine.confine_writer([root])

def attempt(work):
    try:
        work()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"

def write(path):
    with open(path, "w") as file:
        file.write("x")

print(json.dumps({
    "level": list(level),
    "inside": attempt(lambda: write(root + "/new")),
    "rename inside": attempt(lambda: os.rename(root + "/new", root + "/final")),
    "outside": attempt(lambda: write(other + "/new")),
    "over an old file": attempt(lambda: write(other + "/old")),
    "through a link": attempt(lambda: write(root + "/way/out")),
    "rename out": attempt(lambda: os.rename(root + "/final", other + "/moved")),
    "delete outside": attempt(lambda: os.unlink(other + "/old")),
    "program": attempt(lambda: os.execv("/bin/true", ["true"])),
    "child": attempt(os.fork),
    "socket": attempt(lambda: socket.socket(socket.AF_INET).close()),
    "unix": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
}))
"""


@pytest.fixture
def tries(tmp_path: Path) -> dict[str, object]:
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root, other):
        path.mkdir()
    (other / "old").write_text("old")
    (root / "way").symlink_to(other)
    ran = subprocess.run(
        [sys.executable, "-c", TRIES, ":".join(sys.path), str(root), str(other)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
    assert (other / "old").read_text() == "old" or not landlock_version()
    return found


def test_no_program_no_child_no_socket(tries: dict[str, object]) -> None:
    """Held by the filter of system calls, where the machine's numbers are known (I6)."""
    level = tries["level"]
    assert isinstance(level, list)
    if not level[1]:
        pytest.skip("the machine's system calls are not known")
    for what in ("program", "child", "socket", "unix"):
        assert tries[what] in ("Operation not permitted", "Permission denied"), what


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_the_kernel_keeps_the_writer_below_its_roots(tries: dict[str, object]) -> None:
    """Even as root, and whatever path its code makes up (B3)."""
    assert tries["inside"] == tries["rename inside"] == "done"
    for what in ("outside", "over an old file", "through a link", "delete outside"):
        assert tries[what] == "Permission denied", what
    assert tries["rename out"] in ("Permission denied", "Invalid cross-device link")
