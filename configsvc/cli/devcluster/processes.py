"""Starting and stopping exactly our own processes.

A pid file holds the pid and the process's start time; a pid that was reused is never signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

STOP_S: Final = 5.0


def start_time(pid: int) -> str:
    """Start time of a process in the kernel's ticks; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def running(pid_file: Path) -> int:
    """Pid of the running process that the file names; 0 when it does not run."""
    try:
        pid_text, started = pid_file.read_text().split()
        pid = int(pid_text)
    except (OSError, ValueError):
        return 0
    return pid if started and start_time(pid) == started else 0


def launch(argv: list[str], log: Path, pid_file: Path, cwd: Path) -> int:
    """Start a daemon whose output goes to ``log``; it survives us."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CONFIGSVC_")}
    with log.open("ab") as sink:
        process = subprocess.Popen(  # noqa: S603  # our own program
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=cwd,
            env=environ,
            start_new_session=True,
        )
    pid_file.write_text(f"{process.pid} {start_time(process.pid)}\n")
    return process.pid


def stop(pid_file: Path, *, hard: bool = False) -> bool:
    """Stop the process a pid file names; True if one ran."""
    pid = running(pid_file)
    if not pid:
        pid_file.unlink(missing_ok=True)
        return False
    os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while running(pid_file):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline += STOP_S
        _reap(pid)
        time.sleep(0.02)
    pid_file.unlink(missing_ok=True)
    return True


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
