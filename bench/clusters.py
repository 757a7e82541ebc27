"""The two systems under measurement: started alike, asked alike, stopped by process id.

A ``Cluster`` has members with a client and a peer port each. ``Ours`` runs on shipped defaults
(nothing is switched off, `--allow-root` aside where the bench runs as root); ``Etcd`` runs on its
defaults with client and peer certificates required.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import pki, requests, tools
from bench.calls import call, status
from bench.frames import BenchFault
from bench.link import Target
from configsvc.identity.member_ids import member_id
from configsvc.identity.pki import init_pki, issue, issue_member
from configsvc.proto import auth_pb2, rpc_pb2
from configsvc.storage.seal.keyfile import KeyFile

HOST: Final = "127.0.0.1"
TOKEN: Final = "bench"
TRUST_DOMAIN: Final = "bench.local"
USER: Final = "bench"
READY_S: Final = 30.0
STOP_S: Final = 10.0


@dataclass(slots=True)
class Member:
    """One member's place and process."""

    name: str
    client_port: int
    peer_port: int
    process: subprocess.Popen[bytes] | None = None
    extra: tuple[str, ...] = ()  # flags of this member alone

    @property
    def client_url(self) -> str:
        return f"https://{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"https://{HOST}:{self.peer_port}"

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0


class Cluster:
    """One to five members of one system."""

    kind = ""

    def __init__(self, folder: Path, size: int, port: int) -> None:
        self.folder = folder
        self.members = [
            Member(f"{self.kind}{n}", port + 10 * n, port + 10 * n + 1) for n in range(size)
        ]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.prepare()

    # --- for subclasses --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make certificates and keys."""
        raise NotImplementedError

    def argv(self, member: Member) -> list[str]:
        """Command line of a member."""
        raise NotImplementedError

    def target(self, member: Member, user: str = USER) -> Target:
        """How to connect to a member."""
        raise NotImplementedError

    def admin(self, member: Member) -> Target:
        """As somebody who may ask for the status."""
        raise NotImplementedError

    def settle(self) -> None:
        """After the first start: rights for the load."""

    # --- processes -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all and wait until a write succeeds through every member."""
        for member in self.members:
            self.launch(member)
        for member in self.members:
            self.wait_ready(member)
        self.settle()

    def launch(self, member: Member) -> None:
        """Start one member's process."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONFIGSVC_", "ETCD_"))
        }
        with (self.folder / f"{member.name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                self.argv(member),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environ,
                start_new_session=True,
            )

    def wait_ready(self, member: Member) -> None:
        """Until a write through this member succeeds.

        Raises:
            BenchFault: it ended, or is not ready in time.
        """
        deadline = time.perf_counter() + READY_S
        body = requests.put(requests.PREFIX + b"ready", b"1")
        while True:
            try:
                call(self.admin(member), requests.PUT, body, 2.0)
            except (BenchFault, OSError) as fault:
                ended = member.process is None or member.process.poll() is not None
                if ended or time.perf_counter() > deadline:
                    log = self.folder / f"{member.name}.log"
                    raise BenchFault(f"{member.name} is not ready ({fault}); see {log}") from None
                time.sleep(0.05)
            else:
                return

    def leader(self) -> Member:
        """The member that leads.

        Raises:
            BenchFault: there is none.
        """
        deadline = time.perf_counter() + READY_S
        while time.perf_counter() < deadline:
            for member in self.members:
                if member.process is None or member.process.poll() is not None:
                    continue
                with contextlib.suppress(BenchFault, OSError):
                    answer = status(self.admin(member))
                    if answer.leader and answer.leader == answer.header.member_id:
                        return member
            time.sleep(0.05)
        raise BenchFault(f"{self.kind}: no leader")

    def kill(self, member: Member) -> None:
        """As a power cut would."""
        if member.process is not None:
            member.process.kill()
            member.process.wait(STOP_S)

    def stop(self) -> None:
        """Ask politely, then not."""
        running = [m.process for m in self.members if m.process and m.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)


class Ours(Cluster):
    """configsvc on shipped defaults."""

    kind = "ours"

    def prepare(self) -> None:
        self.pki = self.folder / "pki"
        init_pki(self.pki, TRUST_DOMAIN, development=True)
        for member in self.members:
            who = member_id([member.peer_url], TOKEN)
            self.equip(member, who)
        for user in ("root", USER):
            self.issue(user)

    def equip(self, member: Member, who: int) -> None:
        """Certificates and key file of the member with the id ``who``."""
        folder = self.pki / member.name
        issue_member(self.pki, member.name, who, dns=("localhost",), ips=(HOST,), out=folder)
        KeyFile.create(self.folder / f"{member.name}.key")

    def issue(self, user: str) -> None:
        """A client certificate."""
        issue(self.pki, "user", user, out=self.pki / "users", stem=user)

    def argv(self, member: Member) -> list[str]:
        folder = self.pki / member.name
        argv = [
            str(Path(sys.executable).with_name("configsvc")),
            "--name", member.name,
            "--data-dir", str(self.folder / f"{member.name}.data"),
            "--encryption-key-file", str(self.folder / f"{member.name}.key"),
            "--trust-domain", TRUST_DOMAIN,
            "--listen-client-urls", member.client_url,
            "--advertise-client-urls", member.client_url,
            "--listen-peer-urls", member.peer_url,
            "--initial-advertise-peer-urls", member.peer_url,
            "--initial-cluster", ",".join(f"{m.name}={m.peer_url}" for m in self.members),
            "--initial-cluster-token", TOKEN,
            "--cert-file", str(folder / "server.pem"),
            "--key-file", str(folder / "server.key"),
            "--trusted-ca-file", str(self.pki / "ca-client.pem"),
            "--peer-cert-file", str(folder / "peer.pem"),
            "--peer-key-file", str(folder / "peer.key"),
            "--peer-trusted-ca-file", str(self.pki / "ca-peer.pem"),
            *member.extra,
        ]  # fmt: skip
        return [*argv, "--allow-root"] if os.geteuid() == 0 else argv

    def target(self, member: Member, user: str = USER) -> Target:
        base = self.pki / "users" / user
        cafile = str(self.pki / "ca-server.pem")
        return Target(HOST, member.client_port, cafile, f"{base}.pem", f"{base}.key")

    def admin(self, member: Member) -> Target:
        return self.target(member, "root")

    def settle(self) -> None:
        admin = self.admin(self.members[0])
        role = rpc_pb2.AuthRoleAddRequest(name=USER).SerializeToString()
        call(admin, "/etcdserverpb.Auth/RoleAdd", role)
        span = auth_pb2.Permission(
            permType=auth_pb2.Permission.READWRITE,
            key=requests.PREFIX,
            range_end=requests.PREFIX[:-1] + bytes([requests.PREFIX[-1] + 1]),
        )
        grant = rpc_pb2.AuthRoleGrantPermissionRequest(name=USER, perm=span)
        call(admin, "/etcdserverpb.Auth/RoleGrantPermission", grant.SerializeToString())
        self.add_user(USER)

    def add_user(self, user: str) -> None:
        """A user without a password, with the role of the load."""
        admin = self.admin(self.members[0])
        options = auth_pb2.UserAddOptions(no_password=True)
        add = rpc_pb2.AuthUserAddRequest(name=user, options=options)
        call(admin, "/etcdserverpb.Auth/UserAdd", add.SerializeToString())
        give = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=USER)
        call(admin, "/etcdserverpb.Auth/UserGrantRole", give.SerializeToString())


class Etcd(Cluster):
    """Debian's etcd-server with certificates required on both ports."""

    kind = "etcd"

    def prepare(self) -> None:
        folder = self.folder / "pki"
        server, peer = pki.Ca(folder / "server", "ca"), pki.Ca(folder / "peer", "ca")
        client = pki.Ca(folder / "client", "ca")
        self._cas = (server.path, peer.path, client.path)
        for member in self.members:
            server.leaf(member.name, server=True)
            peer.leaf(member.name, server=True)
        self._user = client.leaf(USER, server=False)
        # Its own gateway dials the client port with the server's pair and is refused there; the
        # gRPC side that is measured does not go through it.

    def argv(self, member: Member) -> list[str]:
        folder = self.folder / "pki"
        return [
            str(tools.etcd()),
            "--name", member.name,
            "--data-dir", str(self.folder / f"{member.name}.data"),
            "--listen-client-urls", member.client_url,
            "--advertise-client-urls", member.client_url,
            "--listen-peer-urls", member.peer_url,
            "--initial-advertise-peer-urls", member.peer_url,
            "--initial-cluster", ",".join(f"{m.name}={m.peer_url}" for m in self.members),
            "--initial-cluster-token", TOKEN,
            "--client-cert-auth",
            "--trusted-ca-file", str(self._cas[2]),
            "--cert-file", str(folder / "server" / f"{member.name}.pem"),
            "--key-file", str(folder / "server" / f"{member.name}.key"),
            "--peer-client-cert-auth",
            "--peer-trusted-ca-file", str(self._cas[1]),
            "--peer-cert-file", str(folder / "peer" / f"{member.name}.pem"),
            "--peer-key-file", str(folder / "peer" / f"{member.name}.key"),
            "--logger", "zap",
            "--log-level", "error",
        ]  # fmt: skip

    def target(self, member: Member, user: str = USER) -> Target:
        cert, key = self._user
        return Target(HOST, member.client_port, str(self._cas[0]), str(cert), str(key))

    def admin(self, member: Member) -> Target:
        return self.target(member)


def port_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
