"""Members that join a running cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from configsvc.client import administration as admin
from tests.support.members import MemberCluster, MemberProcess, free_ports

_ADDED = re.compile(r"Member\s+([0-9a-f]+) added")


class Joiner(MemberProcess):
    """A member that is added while the cluster runs; its id comes from the cluster."""

    def __init__(self, cluster: MemberCluster, number: int) -> None:
        client_port, peer_port = free_ports(2)
        super().__init__(cluster, number, client_port, peer_port)
        self.added_id = 0
        genesis = ",".join(f"{m.name}={m.peer_url}" for m in cluster.members)
        self.extra = [
            "--initial-cluster-state=existing",
            f"--initial-cluster={genesis},{self.name}={self.peer_url}",
        ]

    @property
    def id(self) -> int:
        return self.added_id


def add(cluster: MemberCluster, number: int, *, learner: bool = False) -> Joiner:
    """Tell the cluster of a new member; it is not started yet."""
    joiner = Joiner(cluster, number)
    with cluster.client(timeout=10.0) as client:
        answer = client.do(admin.member_add([joiner.peer_url], learner=learner))
    joiner.added_id = answer.member.ID
    joiner.extra += cluster.members[0].extra
    return joiner


def configctl(cluster: MemberCluster, *words: str, code: int = 0) -> str:
    """Run a command of ours as root; what it printed."""
    pair = cluster.user("root")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "configsvc.cli.configctl",
            *words,
            f"--endpoints={cluster.endpoints}",
            f"--cacert={cluster.pki / 'ca-server.pem'}",
            f"--cert={pair}.pem",
            f"--key={pair}.key",
        ],
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"[-2000:]
    return done.stdout


def added_id(printed: str) -> int:
    """The id in what ``etcdctl member add`` printed."""
    found = _ADDED.search(printed)
    assert found is not None, printed
    return int(found[1], 16)


def copy_tree(source: Path, target: Path) -> None:
    """A data directory as a backup program that knows nothing would take it."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
