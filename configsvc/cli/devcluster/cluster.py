"""The steps of `make up`, `make down` and `make clean`."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from configsvc.cli.devcluster import processes
from configsvc.cli.devcluster.layout import HOST, TOKEN, TRUST_DOMAIN, Layout, MemberPlan
from configsvc.errors import ConfigError
from configsvc.identity.member_ids import member_id
from configsvc.identity.pki import init_pki, issue, issue_member, needs_reissue
from configsvc.storage.seal.keyfile import KeyFile

USERS: Final = ("root", "alice", "bob", "carol")
AGENT: Final = "dev-node"
HEALTHY_S: Final = 30.0


class Steps:
    """Numbered lines with times; plain text."""

    def __init__(self) -> None:
        self._number = 0
        self._began = time.monotonic()

    def run(self, title: str, work: Callable[[], str]) -> None:
        """Do one step and print its line."""
        self._number += 1
        began = time.monotonic()
        result = work()
        spent = time.monotonic() - began
        print(f"{self._number:>2}  {title:<34} {spent:5.1f}s  {result}", flush=True)

    @property
    def total(self) -> float:
        return time.monotonic() - self._began


def prepare_keys(layout: Layout) -> str:
    """Development CA, leaves and key files; leaves past half their life are made anew."""
    for path in (layout.dev, layout.keys, layout.log):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = 0
    if not (layout.pki / "root.pem").exists():
        init_pki(layout.pki, TRUST_DOMAIN, development=True)
    for member in layout.members:
        who = member_id([member.peer_url], TOKEN)
        folder = layout.pki / member.name
        if needs_reissue(folder / "server.pem") or needs_reissue(folder / "peer.pem"):
            issue_member(layout.pki, member.name, who, dns=("localhost",), ips=(HOST,), out=folder)
            made += 1
        key = layout.keys / f"{member.name}.key"
        if not key.exists():
            KeyFile.create(key)
    for user in USERS:
        if needs_reissue(layout.users / f"{user}.pem"):
            issue(layout.pki, "user", user, out=layout.users, stem=user)
            made += 1
    agent = layout.pki / "agents"
    if needs_reissue(agent / f"{AGENT}.pem"):
        issue(layout.pki, "agent", AGENT, out=agent, stem=AGENT)
        made += 1
    return f"{made} certificates issued" if made else "certificates are fresh"


def check_ports(layout: Layout) -> None:
    """Say so, with the way out, when somebody else has a port.

    Raises:
        ConfigError: a port is taken.
    """
    for member in layout.members:
        if processes.running(layout.pid_file(member.name)):
            continue
        for port in (member.client_port, member.peer_port):
            probe = socket.socket()
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise ConfigError(
                    f"port {port} is taken by another program",
                    "stop it, or move the whole cluster: make up PORT_BASE=12379",
                ) from None
            finally:
                probe.close()


def member_argv(layout: Layout, member: MemberPlan) -> list[str]:
    """Command line of one member."""
    pki = layout.pki
    folder = pki / member.name
    argv = [
        str(Path(sys.executable).with_name("configsvc")),
        "--name", member.name,
        "--data-dir", str(layout.data(member)),
        "--encryption-key-file", str(layout.keys / f"{member.name}.key"),
        "--trust-domain", TRUST_DOMAIN,
        "--listen-client-urls", member.client_url,
        "--advertise-client-urls", member.client_url,
        "--listen-peer-urls", member.peer_url,
        "--initial-advertise-peer-urls", member.peer_url,
        "--initial-cluster", layout.initial_cluster,
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
    return argv


def start_members(layout: Layout) -> str:
    """Start what does not run."""
    started = 0
    for member in layout.members:
        if processes.running(layout.pid_file(member.name)):
            continue
        processes.launch(
            member_argv(layout, member),
            layout.log_file(member.name),
            layout.pid_file(member.name),
            layout.root,
        )
        started += 1
    return f"{started} started" + (", as root (--allow-root)" if os.geteuid() == 0 else "")


def wait_healthy(layout: Layout) -> str:
    """Until every member answers a linearizable read.

    Raises:
        ConfigError: one ended, or is not healthy in time; its last log line is shown.
    """
    deadline = time.monotonic() + HEALTHY_S
    for member in layout.members:
        while not _answers(layout, member):
            if not processes.running(layout.pid_file(member.name)):
                raise ConfigError(
                    f"{member.name} ended: {_last_line(layout.log_file(member.name))}",
                    f"the whole log: {layout.log_file(member.name)}",
                )
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"{member.name} is not healthy after {HEALTHY_S:.0f} s",
                    f"see {layout.log_file(member.name)}",
                )
            time.sleep(0.05)
    return f"{len(layout.members)} members"


def _answers(layout: Layout, member: MemberPlan) -> bool:
    from configsvc.cli.devcluster.calls import healthy

    return healthy(layout, member)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "an empty log"


def write_env(layout: Layout) -> str:
    """``.dev/env.sh``: etcdctl and configctl act as user root of this cluster."""
    pki = layout.pki
    root = layout.users / "root"
    names = {
        "ENDPOINTS": layout.endpoints,
        "CACERT": str(pki / "ca-server.pem"),
        "CERT": f"{root}.pem",
        "KEY": f"{root}.key",
    }
    lines = ["# Acting as user root of the development cluster: . .dev/env.sh"]
    lines.append("export ETCDCTL_API=3")
    lines += [f"export ETCDCTL_{k}='{v}'" for k, v in names.items()]
    lines += [f"export CONFIGCTL_{k}='{v}'" for k, v in names.items()]
    tools = layout.dev / "tools" / "usr" / "bin"
    lines.append(f"export PATH='{Path(sys.executable).parent}:{tools}':\"$PATH\"")
    layout.env_file.write_text("\n".join(lines) + "\n")
    return ".dev/env.sh"


def down(layout: Layout) -> int:
    """Stop exactly our own processes; the data stays."""
    stopped = [n for n in _names(layout) if processes.stop(layout.pid_file(n))]
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing runs")
    return 0


def clean(layout: Layout) -> int:
    """Stop, and forget data, keys and certificates."""
    down(layout)
    if layout.dev.exists():
        shutil.rmtree(layout.dev)
    print("forgot data, keys and certificates")
    return 0


def _names(layout: Layout) -> list[str]:
    found = {m.name for m in layout.members}
    found |= {path.stem for path in layout.dev.glob("*.pid")}
    return sorted(found)
