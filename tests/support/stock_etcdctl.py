"""etcd's own command line client, as Debian has it, against a cluster of ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from queue import Empty, Queue

import pytest

from bench import tools
from bench.frames import BenchFault
from tests.support.members import MemberCluster, MemberProcess

COMMAND_S = 60.0
LINE_S = 20.0
ENVIRONMENT = {"ETCDCTL_API": "3", "PATH": os.environ.get("PATH", "")}


def argv(
    cluster: MemberCluster, *words: str, user: str = "root", member: MemberProcess | None = None
) -> list[str]:
    """The command line by which ``user`` says ``words``. Skips loudly where there is no etcdctl."""
    try:
        binary = os.environ.get("ETCDCTL") or str(tools.etcdctl())
    except BenchFault as fault:
        pytest.skip(f"NOTHING WAS TRIED WITH ETCDCTL: {fault}")
    pair = cluster.user(user)
    return [
        binary,
        f"--endpoints={member.client_url if member else cluster.endpoints}",
        f"--cacert={cluster.pki / 'ca-server.pem'}",
        f"--cert={pair}.pem",
        f"--key={pair}.key",
        "--command-timeout=15s",
        *words,
    ]


def run(
    cluster: MemberCluster,
    *words: str,
    user: str = "root",
    member: MemberProcess | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """One command to its end, whatever that is."""
    return subprocess.run(
        argv(cluster, *words, user=user, member=member),
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def etcdctl(
    cluster: MemberCluster,
    *words: str,
    user: str = "root",
    member: MemberProcess | None = None,
    stdin: str = "",
) -> str:
    """What a command printed that must succeed."""
    done = run(cluster, *words, user=user, member=member, stdin=stdin)
    assert done.returncode == 0, f"{words}: {done.stdout[-500:]}{done.stderr[-2000:]}"
    return done.stdout


class Lasting:
    """A command that goes on; its lines are waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: Queue[str] = Queue()
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """The next line."""
        try:
            return self._lines.get(timeout=LINE_S)
        except Empty:
            raise AssertionError(f"no line within {LINE_S:g} s") from None

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def until(self, within: str) -> str:
        """The first line that has ``within``."""
        while within not in (line := self.line()):
            pass
        return line


@contextlib.contextmanager
def lasting(
    cluster: MemberCluster,
    *words: str,
    user: str = "root",
    member: MemberProcess | None = None,
) -> Iterator[Lasting]:
    """A command that is ended with the block."""
    process = subprocess.Popen(
        argv(cluster, *words, user=user, member=member),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = Lasting(process)
    try:
        yield started
    finally:
        process.terminate()
        process.wait(LINE_S)
        started._reader.join(LINE_S)
        assert process.stdout is not None
        process.stdout.close()
