"""N37: more connections than file descriptors. The server survives and recovers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(GET)
        return sock.recv(4096)


def test_running_out_of_descriptors_is_survived() -> None:
    script = Path(__file__).with_name("descriptor_poor_server.py")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stderr is not None
        port = int(server.stdout.readline())
        assert b"200 OK" in ask(port)
        with contextlib.ExitStack() as crowd:
            for _ in range(150):
                crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            # Full: newcomers wait in the backlog, and the process neither spins nor ends.
            before = cpu_seconds(server.pid)
            time.sleep(0.5)  # the interval over which its CPU time is measured
            assert server.poll() is None
            assert cpu_seconds(server.pid) - before < 0.25
        assert b"200 OK" in ask(port)
        server.stdin.close()
        assert server.wait(10) == 0
        assert b"Traceback" not in server.stderr.read()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from its stat line (in hundredths)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
