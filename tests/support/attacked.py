"""A front end under attack, from outside its process: attackers' sockets, and everybody else."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from tests.support import http2_frames as h2
from tests.support.http2_frames import Client
from tests.support.tls_files import TestFiles

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "security" / "http2" / "attacked_server.py"
MALLORY = "127.0.0.66"  # where attackers come from; the others are at 127.0.0.1
IN_TIME_S = 5.0  # far above what a call takes on a busy machine, far below a client's patience
MIB = 1 << 20


class Attacked:
    """The server's process, and a client of it that does nothing wrong."""

    def __init__(self, files: TestFiles, slow_s: float) -> None:
        self.files = files
        self.slow_s = slow_s
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *files.server, str(files.clients.path), str(slow_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        self.port, self.tls_port = map(int, self._process.stdout.readline().split())
        self._channel = grpc.secure_channel(
            f"localhost:{self.tls_port}",
            grpc.ssl_channel_credentials(
                files.servers.path.read_bytes(),
                Path(files.client[1]).read_bytes(),
                Path(files.client[0]).read_bytes(),
            ),
        )
        self._echo = self._channel.unary_unary("/test.Echo/Unary")  # type: ignore[call-arg]
        self.served()

    def stop(self) -> None:
        """End it, and see that it had nothing to complain of."""
        self._channel.close()
        out, err = self._process.communicate(b"", timeout=20)
        assert (self._process.returncode, out) == (0, b"")
        assert b"Traceback" not in err

    def served(self) -> None:
        """A small call and one that needs wider windows, on a connection that is there."""
        for message in (b"small", b"L" * 1_500_000):
            assert self._echo(message, timeout=IN_TIME_S) == message

    def welcomed(self) -> None:
        """A newcomer: handshake, request, answer."""
        raw = socket.create_connection(("127.0.0.1", self.tls_port), timeout=IN_TIME_S)
        context = self.files.client_context(["http/1.1"], self.files.client)
        with raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert tls.recv(65_536).startswith(b"HTTP/1.1 200 ")

    def memory(self) -> int:
        """Resident bytes of the process."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def while_attacked(self, attack: Callable[[], object], growth_max: int) -> None:
        """Run the attack in a thread; the others are served and memory is bounded meanwhile."""
        before, done = self.memory(), threading.Event()

        def attacked() -> None:
            try:
                attack()
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            attacker = pool.submit(attacked)
            while True:
                over = done.is_set()  # one round is after the last blow
                self.served()
                self.welcomed()
                assert self.memory() - before < growth_max
                if over:
                    break
            attacker.result(60)


class Attacker:
    """One plain socket from the attackers' address."""

    def __init__(self, port: int, *, receive: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(20)
        if receive:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.bind((MALLORY, 0))
        self.socket.connect(("127.0.0.1", port))
        self.client = Client()
        self._arrived = b""

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Whether the server still took it."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def rest(self) -> bytes:
        """All that comes until the server ends the connection; a TimeoutError if it does not."""
        got = [self._arrived]
        with contextlib.suppress(ConnectionError):
            while more := self.socket.recv(65_536):
                got.append(more)
        return b"".join(got)

    def frames(self) -> Iterator[h2.Frame]:
        """Frames until the server ends the connection."""
        with contextlib.suppress(ConnectionError):
            while True:
                size = 9 + int.from_bytes(self._arrived[:3], "big")
                if len(self._arrived) >= max(9, size):
                    (found,) = h2.split(self._arrived[:size])
                    self._arrived = self._arrived[size:]
                    yield found
                elif more := self.socket.recv(65_536):
                    self._arrived += more
                else:
                    return

    def goaway(self) -> tuple[int, str]:
        """Code and text of the GOAWAY that ends the connection; (-1, "") without one."""
        last = (-1, "")
        for each in self.frames():
            if each.kind == h2.GOAWAY:
                last = int.from_bytes(each.payload[4:8], "big"), each.payload[8:].decode()
        return last

    @property
    def over(self) -> bool:
        """Whether the server has closed; reads what there is."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        if not readable:
            return False
        try:
            return not self.socket.recv(65_536)
        except ConnectionError:
            return True
