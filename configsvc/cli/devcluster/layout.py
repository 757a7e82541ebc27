"""Where the development cluster keeps its things, and which ports it uses.

Everything lies under ``.dev`` of the checkout. Ports: clients 2379, 22379, 32379, …; peers one
above. ``PORT_BASE`` moves them all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configsvc.errors import ConfigError

TRUST_DOMAIN: Final = "dev.configsvc.local"
HOST: Final = "127.0.0.1"
MEMBERS_DEFAULT: Final = 3
MEMBERS_MAX: Final = 9
_OFFSETS: Final = {1: 0, 2: 20_000, 3: 30_000}  # 2379, 22379, 32379
TOKEN: Final = "dev-cluster"  # noqa: S105  # a name that goes into ids, no secret


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One member of the development cluster."""

    number: int
    client_port: int
    peer_port: int

    @property
    def name(self) -> str:
        return f"m{self.number}"

    @property
    def client_url(self) -> str:
        return f"https://{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"https://{HOST}:{self.peer_port}"


class Layout:
    """Paths and ports of one checkout's cluster."""

    def __init__(self, root: Path, members: int, port_base: int) -> None:
        self.root = root
        self.dev = root / ".dev"
        self.pki = self.dev / "pki"
        self.users = self.pki / "users"
        self.keys = self.dev / "keys"
        self.log = self.dev / "log"
        self.agent = self.dev / "agent"
        self.env_file = self.dev / "env.sh"
        self.members = [
            MemberPlan(
                n, port_base + _OFFSETS.get(n, 100 * n), port_base + _OFFSETS.get(n, 100 * n) + 1
            )
            for n in range(1, members + 1)
        ]

    def data(self, member: MemberPlan) -> Path:
        return self.dev / member.name

    def pid_file(self, name: str) -> Path:
        return self.dev / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        return self.log / f"{name}.log"

    @property
    def endpoints(self) -> str:
        return ",".join(m.client_url for m in self.members)

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{m.name}={m.peer_url}" for m in self.members)


def from_environment(root: Path) -> Layout:
    """``MEMBERS`` and ``PORT_BASE`` of the environment, remembered from the first start on."""
    remembered = _remembered(root)
    members = _number("MEMBERS", remembered.get("MEMBERS", MEMBERS_DEFAULT), 1, MEMBERS_MAX)
    port_base = _number("PORT_BASE", remembered.get("PORT_BASE", 2379), 1024, 30_000)
    return Layout(root, members, port_base)


def _number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text[:20]}: not usable", f"use a number from {low} to {high}")
    return int(text)


def _remembered(root: Path) -> dict[str, int]:
    try:
        lines = (root / ".dev" / "shape").read_text().split()
    except OSError:
        return {}
    return {k: int(v) for k, v in (line.split("=") for line in lines) if v.isdigit()}


def remember(layout: Layout) -> None:
    """Keep the shape, so that `make down` and the next `make up` find the same cluster."""
    base = layout.members[0].client_port
    text = f"MEMBERS={len(layout.members)}\nPORT_BASE={base}\n"
    (layout.dev / "shape").write_text(text)
