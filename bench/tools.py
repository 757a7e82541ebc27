"""Debian's etcd, unpacked beside us and never installed: installing it would start a daemon."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.frames import BenchFault

ROOT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = ROOT / ".dev" / "tools"
PACKAGES: Final = ("etcd-server", "etcd-client")


def etcd() -> Path:
    """The unpacked ``etcd``; fetched on the first run, needs the network then.

    Raises:
        BenchFault: this is no Debian, or the package cannot be had.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    binary = TOOLS / "usr" / "bin" / "etcd"
    with (TOOLS / "lock").open("w") as lock:  # test processes come at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _unpack(binary)
    return binary


def etcdctl() -> Path:
    """The unpacked ``etcdctl``; as ``etcd``."""
    return etcd().with_name("etcdctl")


def _unpack(binary: Path) -> None:
    for needed in ("apt-get", "dpkg"):
        if shutil.which(needed) is None:
            raise BenchFault(f"{needed} is missing: put an etcd 3.4 binary at {binary}")
    argv = ["apt-get", "download", *PACKAGES]
    done = subprocess.run(argv, cwd=TOOLS, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFault(f"apt-get download: {done.stderr.strip()[:200]}")
    for package in sorted(TOOLS.glob("etcd-*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(TOOLS)], check=True)


def etcd_version() -> str:
    """As it calls itself."""
    done = subprocess.run([str(etcd()), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].removeprefix("etcd Version: ")
