"""Where foreign clients come from: the PATH, or ``.dev/foreign``, where ``make foreign`` fetches.

Nothing is installed on the machine: Debian's packages are unpacked, npm, pip and Go write below
``.dev/foreign``. Versions are pinned (``package-lock.json`` and ``python.lock`` with hashes,
``H2SPEC``); what cannot be fetched is left to the line of its client.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
FETCHED: Final = ROOT / ".dev" / "foreign"
NODE_MODULES: Final = FETCHED / "node_modules"
PYTHON: Final = FETCHED / "python" / "bin" / "python"
CLIENTS_JS: Final = HERE / "clients.js"
CLIENTS_PY: Final = HERE / "python_clients.py"
PYTHON_LOCKS: Final = (ROOT / "examples" / "patroni" / "build.lock", HERE / "python.lock")
FROM_SOURCE: Final = "etcd3"  # has no wheel
H2SPEC: Final = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
PACKAGES: Final = (
    "etcd-client",
    "nghttp2-client",
    "libc-ares2",
    "libev4",
    "libjansson4",
    "libjemalloc2",
    "libnghttp2-14",
)
_PLACES: Final = (FETCHED / "usr" / "bin", FETCHED / "bin")


def environment() -> dict[str, str]:
    """Ours, with what was fetched behind it."""
    libraries = [str(path) for path in (FETCHED / "usr" / "lib").glob("*-linux-gnu")]
    path = os.pathsep.join((os.environ.get("PATH", ""), *map(str, _PLACES)))
    return dict(os.environ) | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def find(name: str) -> str | None:
    """The program of that name, or None."""
    return shutil.which(name, path=environment()["PATH"])


def _run(argv: list[str], **extra: str) -> bool:
    done = subprocess.run(
        argv, cwd=FETCHED, env=dict(os.environ) | extra, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{argv[0]}: {' '.join(done.stderr.split())[-200:]}", file=sys.stderr)
    return not done.returncode


def fetch() -> None:
    """Fetch what is neither on the PATH nor here."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    missing = [name for name in ("nghttp", "h2load", "etcdctl") if find(name) is None]
    if missing and shutil.which("apt-get") and shutil.which("dpkg"):
        _run(["apt-get", "-q", "download", *PACKAGES])
        for package in sorted(FETCHED.glob("*.deb")):
            _run(["dpkg", "-x", str(package), "."])
    if find("h2spec") is None and shutil.which("go"):
        _run(["go", "install", H2SPEC], GOBIN=str(FETCHED / "bin"))
    if not NODE_MODULES.is_dir() and shutil.which("npm"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, FETCHED / name)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"])
    _fetch_python()


def _fetch_python() -> None:
    """An environment for Python's clients, made anew when a lock has changed."""
    wanted = b"".join(lock.read_bytes() for lock in PYTHON_LOCKS)
    stamp = PYTHON.parent / "locks"
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    _run([sys.executable, "-m", "venv", "--clear", str(PYTHON.parents[1])])
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q"]
    pip += ["--require-hashes", "--only-binary", ":all:"]
    build, clients = map(str, PYTHON_LOCKS)
    _run([*pip, "-r", build])
    if _run([*pip, "--no-binary", FROM_SOURCE, "--no-build-isolation", "-r", clients]):
        stamp.write_bytes(wanted)


if __name__ == "__main__":
    fetch()
