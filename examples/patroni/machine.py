"""What the demonstration needs of this machine: PostgreSQL, an ordinary user, Patroni.

Patroni is installed by hash into an environment of its own under ``.dev/patroni``; nothing is
installed into the machine. PostgreSQL refuses to run as root, so root runs it, and Patroni with it,
as another user; that user may be unable to enter this checkout, hence the interpreter and the
packages it gets are ones it can read.

Not here: the nodes (``nodes``), the store (``store``), the steps (``demo``).
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configsvc.errors import ConfigError

HERE: Final = Path(__file__).resolve().parent
DEV: Final = HERE.parents[1] / ".dev" / "patroni"
BINARIES_DEFAULT: Final = "/usr/lib/postgresql"
FROM_SOURCE: Final = "ydiff,python-etcd"  # pure Python, published without wheels
INSTALL_S: Final = 300


@dataclass(frozen=True, slots=True)
class Machine:
    """The programs, the user and the directory that the nodes run with."""

    binaries: Path
    user: str
    python: Path
    packages: Path
    work: Path

    def as_user(self, *argv: str, **environ: str) -> list[str]:
        """A command line that runs ``argv`` as the ordinary user, with this environment only."""
        own = {
            "HOME": str(self.work),
            "PATH": f"{self.binaries}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(self.packages),
        }
        pairs = [f"{name}={value}" for name, value in (own | environ).items()]
        return [*_drop(self.user), "/usr/bin/env", "-i", *pairs, *argv]


def prepare() -> Machine:
    """Find or install everything, and make the nodes' directory.

    Raises:
        ConfigError: something is missing; the remedy says what to install.
    """
    binaries = _binaries()
    user = _ordinary_user()
    python = _python(user)
    site = _install(python)
    work = Path(tempfile.mkdtemp(prefix="configsvc-patroni-"))
    packages = site
    if os.geteuid() == 0:
        packages = work / "packages"
        shutil.copytree(site, packages)
        for path in (packages, *packages.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.chown(work, user)
    return Machine(binaries, user, python, packages, work)


def port_from(name: str, default: int) -> int:
    """A port from the environment, with room for those above it.

    Raises:
        ConfigError: not a number from 1024 to 30000.
    """
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal() or not 1024 <= int(text) <= 30_000:
        raise ConfigError(f"{name}={text[:20]}: not usable", "use a number from 1024 to 30000")
    return int(text)


def _binaries() -> Path:
    """The newest PostgreSQL of the machine, or the one that ``PG_BIN`` names."""
    named = os.environ.get("PG_BIN", "")
    found = [Path(named)] if named else list(Path(BINARIES_DEFAULT).glob("*/bin"))
    usable = [p for p in found if all((p / n).exists() for n in ("initdb", "psql", "pg_rewind"))]
    if not usable:
        raise ConfigError(
            "PostgreSQL is not installed",
            "Debian and Ubuntu: apt-get install postgresql; elsewhere PG_BIN=/path/to/its/bin",
        )
    return max(usable, key=lambda p: (p.parent.name.isdigit() and int(p.parent.name), str(p)))


def _ordinary_user() -> str:
    """Who runs PostgreSQL: we ourselves, or for root ``PG_USER``, else postgres."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    name = os.environ.get("PG_USER", "postgres")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"there is no user {name}", "PostgreSQL must not run as root: PG_USER=someone"
        ) from None
    if entry.pw_uid == 0:
        raise ConfigError("PG_USER is root", "PostgreSQL must not run as root: PG_USER=someone")
    if shutil.which("setpriv") is None:
        raise ConfigError("setpriv is not installed", "apt-get install util-linux")
    return name


def _drop(user: str) -> list[str]:
    if os.geteuid() != 0:
        return []
    entry = pwd.getpwnam(user)
    return [
        "setpriv", "--no-new-privs", "--inh-caps=-all", "--clear-groups",
        f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--",
    ]  # fmt: skip


def _python(user: str) -> Path:
    """An interpreter that the user may run: ours, or else the system's."""
    ours = Path(sys.executable).resolve()
    check = "import sys; sys.exit(sys.version_info < (3, 9))"
    for candidate in (ours, Path("/usr/bin/python3")):
        # Through env, as the nodes are: setpriv itself may still enter directories of root's.
        argv = [*_drop(user), "/usr/bin/env", "-i", str(candidate), "-c", check]
        try:
            if subprocess.run(argv, capture_output=True, cwd="/", check=False).returncode == 0:  # noqa: S603
                return candidate
        except OSError:
            continue
    raise ConfigError(
        f"user {user} can run neither {ours} nor /usr/bin/python3", "apt-get install python3"
    )


def _install(python: Path) -> Path:
    """Patroni's packages, installed once for each interpreter and lock file."""
    locks = [HERE / "build.lock", HERE / "requirements.lock"]
    digest = hashlib.sha256(str(python).encode())
    for lock in locks:
        digest.update(lock.read_bytes())
    venv, stamp = DEV / "venv", DEV / "venv" / "installed"
    if not (stamp.exists() and stamp.read_text() == digest.hexdigest()):
        DEV.mkdir(mode=0o700, parents=True, exist_ok=True)
        _quiet(str(python), "-m", "venv", "--clear", "--without-pip", str(venv))
        pip = (
            sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"),
            "--disable-pip-version-check", "--no-input", "install", "--require-hashes",
        )  # fmt: skip
        _quiet(*pip, "--only-binary", ":all:", "-r", str(locks[0]))
        _quiet(
            *pip, "--only-binary", ":all:", "--no-binary", FROM_SOURCE, "--no-build-isolation",
            "-r", str(locks[1]),
        )  # fmt: skip
        stamp.write_text(digest.hexdigest())
    return next(venv.glob("lib/python3*/site-packages"))


def _quiet(*argv: str) -> None:
    done = subprocess.run(  # noqa: S603  # the interpreter we chose
        argv, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ConfigError(
            f"Patroni cannot be installed: {''.join(last)[:300]}",
            "is the package index reachable? behind a proxy set HTTPS_PROXY or PIP_INDEX_URL",
        )
