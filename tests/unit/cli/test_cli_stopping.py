"""What a signal does to commands that hold something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from configsvc.cli.stopping import Stopped, orderly, signal_of
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster

PYTHON = sys.executable
WAIT_S = 10.0


def _until(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _kill_when(holds: Callable[[], object], signum: int) -> threading.Thread:
    def act() -> None:
        if _until(holds):
            os.kill(os.getpid(), signum)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_command_gets_the_signal_and_the_lock_is_given_back(
    shell: Shell, cluster: FakeCluster, tmp_path: Path, signum: int
) -> None:
    """The whole group gets it: the shell's own child ends too."""
    pid = tmp_path / "pid"
    # The child says so itself: until it is its own program, bash may swallow a signal of its.
    child = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"
    script = f"sh -c '{child}' & wait"
    thread = _kill_when(pid.exists, signum)
    ran = shell.run("lock", "l", "--", "bash", "-c", script)
    thread.join()
    assert ran.code == 128 + signum
    assert not cluster.store.leases
    if signum != signal.SIGINT:  # a shell's background jobs ignore that one
        assert _until(lambda: _ended(int(pid.read_text())))
    else:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def _ended(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return shown.stdout.strip()[:1] in (b"", b"Z")


def test_a_killed_holder_takes_its_command_with_it(tmp_path: Path) -> None:
    """Its lease goes on for a while; the command must be gone when the next holder starts."""
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"
    code = (
        "import sys\n"
        "from configsvc.cli.commands_lock import _Child\n"
        "_Child(['bash', '-c', sys.argv[1]], {'PATH': sys.argv[2]}).wait()\n"
    )
    argv = [PYTHON, "-c", code, script, os.environ["PATH"]]
    holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    assert _until(pid.exists)
    holder.kill()
    holder.wait()
    assert _until(lambda: _ended(int(pid.read_text())))


@pytest.mark.usefixtures("cluster")
def test_no_guard_outlives_the_command(shell: Shell, tmp_path: Path) -> None:
    shown = tmp_path / "guard"
    look = f"ps -ww -o pid=,args= -e | grep 'configctl-guard {os.getpid()}$' > {shown}"
    # Started at the same time: it may not be that program yet.
    script = f"for i in {{1..500}}; do {look} && exit 0; sleep 0.02; done; exit 1"
    assert shell.run("lock", "l", "--", "bash", "-c", script).code == 0
    guards = [int(line.split()[0]) for line in shown.read_text().splitlines()]
    assert guards
    assert all(_until(lambda guard=guard: _ended(guard)) for guard in guards)


def test_a_command_that_wants_to_finish_may(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "signal.pause()\n"
    )
    thread = _kill_when(ready.exists, signal.SIGTERM)
    assert shell.run("lock", "l", "--", PYTHON, "-c", code).code == 9
    thread.join()


def test_waiting_or_holding_without_a_command_ends_with_the_signals_code(
    shell: Shell, cluster: FakeCluster
) -> None:
    thread = _kill_when(lambda: b"e/" in b" ".join(cluster.store.live()), signal.SIGTERM)
    assert shell.run("elect", "e").code == 143
    thread.join()
    assert not cluster.store.leases


def test_an_ignored_signal_stays_ignored_and_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orderly():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped) as caught:
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal_of(caught.value) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal_of(KeyboardInterrupt()) == signal.SIGINT
