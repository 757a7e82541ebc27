"""Real member processes on loopback, for integration and fault tests.

One PKI per test session; every cluster has its own directories and free ports. Processes are
started as an operator would, and whatever still runs at the end is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configsvc.client import administration as admin
from configsvc.client import inquiries
from configsvc.client.endpoints import parse_endpoints
from configsvc.client.settings import ClientSettings
from configsvc.client.sync import Client
from configsvc.client.tls import TlsFiles
from configsvc.errors import ConfigServiceError
from configsvc.identity.member_ids import member_id
from configsvc.identity.pki import init_pki, issue, issue_member
from configsvc.storage.seal.keyfile import KeyFile

TRUST_DOMAIN = "test.configsvc.local"
TOKEN = "test-cluster"
READY_S = 30.0

_RANDOM = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has right now.

    Below the range from which systems take ports for outgoing connections, and drawn at random:
    neither a connection nor another test's member comes in between easily.
    """
    found: list[int] = []
    while len(found) < count:
        port = _RANDOM.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def free_port_pair() -> int:
    """The first of two neighbouring free ports."""
    while True:
        port = free_ports(1)[0]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        return port


class MemberProcess:
    """One member: its directories, ports and, while it runs, its process."""

    def __init__(self, cluster: MemberCluster, number: int, client_port: int, peer_port: int):
        self.cluster = cluster
        self.name = f"m{number}"
        self.client_url = f"https://127.0.0.1:{client_port}"
        self.peer_url = f"https://127.0.0.1:{peer_port}"
        self.data = cluster.root / self.name
        self.log = cluster.root / f"{self.name}.log"
        self.key = cluster.root / f"{self.name}.key"
        self.process: subprocess.Popen[bytes] | None = None
        self.extra: list[str] = []
        self.environ: dict[str, str] = {}

    @property
    def id(self) -> int:
        return int(member_id([self.peer_url], TOKEN))

    def argv(self) -> list[str]:
        pki = self.cluster.pki
        folder = self.cluster.root / f"{self.name}-pki"
        argv = [
            sys.executable, "-m", "configsvc.cli.configsvc",
            "--name", self.name,
            "--data-dir", str(self.data),
            "--encryption-key-file", str(self.key),
            "--trust-domain", TRUST_DOMAIN,
            "--listen-client-urls", self.client_url,
            "--advertise-client-urls", self.client_url,
            "--listen-peer-urls", self.peer_url,
            "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", self.cluster.initial_cluster,
            "--initial-cluster-token", TOKEN,
            "--cert-file", str(folder / "server.pem"),
            "--key-file", str(folder / "server.key"),
            "--trusted-ca-file", str(pki / "ca-client.pem"),
            "--peer-cert-file", str(folder / "peer.pem"),
            "--peer-key-file", str(folder / "peer.key"),
            "--peer-trusted-ca-file", str(pki / "ca-peer.pem"),
        ]  # fmt: skip
        if os.geteuid() == 0:
            argv.append("--allow-root")
        return argv + self.extra

    def prepare(self) -> None:
        """Certificates and key file, once."""
        if not self.key.exists():
            KeyFile.create(self.key)
            issue_member(
                self.cluster.pki,
                self.name,
                self.id,
                dns=("localhost",),
                ips=("127.0.0.1",),
                out=self.cluster.root / f"{self.name}-pki",
            )

    def start(self) -> None:
        self.prepare()
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CONFIGSVC_")}
        environ |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), **self.environ}
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environ
            )

    def kill(self, signum: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.wait_exit()

    def wait_exit(self, timeout: float = 15.0) -> int:
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process = None
        return code

    def signal(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class MemberCluster:
    """Some members, and clients for them."""

    def __init__(self, root: Path, pki: Path, size: int, ports: list[int] | None = None) -> None:
        """``ports`` are a client's and a peer's for each; None takes free ones."""
        self.root = root
        self.pki = pki
        ports = ports or free_ports(2 * size)
        self.members = [
            MemberProcess(self, n + 1, ports[2 * n], ports[2 * n + 1]) for n in range(size)
        ]

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{m.name}={m.peer_url}" for m in self.members)

    @property
    def endpoints(self) -> str:
        return ",".join(m.client_url for m in self.members)

    def start(self) -> None:
        for member in self.members:
            if not member.running:
                member.start()
        self.wait_ready()

    def wait_ready(self, *members: MemberProcess) -> None:
        """Until a linearizable read through each of them succeeds."""
        deadline = time.monotonic() + READY_S
        for member in members or self.members:
            while not self._answers(member):
                assert member.running, f"{member.name} ended:\n{member.log_text()[-3000:]}"
                assert time.monotonic() < deadline, f"not ready:\n{member.log_text()[-3000:]}"
                time.sleep(0.05)

    def _answers(self, member: MemberProcess) -> bool:
        try:
            with self.client(member=member, timeout=1.0) as client:
                client.get(b"health")
        except ConfigServiceError:
            return False
        return True

    def user(self, name: str, kind: str = "user") -> Path:
        """A certificate of the session's PKI; path without ``.pem``."""
        base = self.pki / "clients" / f"{kind}-{name}"
        if not base.with_suffix(".pem").exists():
            issue(self.pki, kind, name, out=base.parent, stem=base.name)
        return base

    @contextlib.contextmanager
    def client(
        self,
        user: str = "root",
        *,
        kind: str = "user",
        member: MemberProcess | None = None,
        members: list[MemberProcess] | None = None,
        timeout: float = 8.0,
    ) -> Iterator[Client]:
        pair = self.user(user, kind)
        chosen = [member] if member is not None else members or self.members
        settings = ClientSettings(
            endpoints=tuple(parse_endpoints(",".join(m.client_url for m in chosen))),
            tls=TlsFiles(str(self.pki / "ca-server.pem"), f"{pair}.pem", f"{pair}.key"),
            timeout_s=timeout,
        )
        with Client(settings) as made:
            yield made

    def status(self, member: MemberProcess) -> Any:
        with self.client(member=member, timeout=3.0) as client:
            return client.do(admin.status())

    def leader(self) -> MemberProcess:
        """The member that leads; waits for one."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for member in self.members:
                if not member.running:
                    continue
                try:
                    status = self.status(member)
                except ConfigServiceError:
                    continue
                if status.leader and status.leader == status.header.member_id:
                    return member
            time.sleep(0.05)
        raise AssertionError("no leader")

    def others(self, member: MemberProcess) -> list[MemberProcess]:
        return [m for m in self.members if m is not member]

    def wait_applied(self) -> int:
        """Until all running members have applied the same index; that index."""
        deadline = time.monotonic() + READY_S
        while True:
            seen = {self.status(m).raftAppliedIndex for m in self.members if m.running}
            if len(seen) == 1:
                return int(seen.pop())
            assert time.monotonic() < deadline, f"members do not converge: {seen}"
            time.sleep(0.05)

    def wait_equal(self) -> None:
        """Equal rows and equal audit roots on all running members.

        The members are asked one after the other, so an entry of their own making (a new
        leader's, a published key) may fall between two answers: those are asked again. Two
        roots of one size that differ are never equal later, and fail at once.
        """
        deadline = time.monotonic() + READY_S
        while True:
            self.wait_applied()
            roots: dict[int, set[bytes]] = {}
            rows: dict[int, set[int]] = {}
            for member in (m for m in self.members if m.running):
                with self.client(member=member, timeout=READY_S) as client:
                    answer = client.do(admin.hash_kv())
                    head = client.do(inquiries.checkpoint())
                rows.setdefault(answer.header.revision, set()).add(answer.hash)
                roots.setdefault(head.size, set()).add(head.root)
            assert all(len(found) == 1 for found in roots.values()), "audit roots differ"
            assert all(len(found) == 1 for found in rows.values()), "rows differ"
            if len(roots) == len(rows) == 1:
                return
            assert time.monotonic() < deadline, f"members do not converge: {sorted(roots)}"
            time.sleep(0.05)

    def stop(self) -> None:
        for member in self.members:
            if member.running:
                member.signal(signal.SIGCONT)
                member.kill()


def make_pki(root: Path) -> Path:
    """The PKI that all clusters of a session share."""
    pki = root / "pki"
    init_pki(pki, TRUST_DOMAIN, development=True)
    return pki
