"""Two Patroni nodes on loopback, each with a PostgreSQL of its own.

A node's configuration is ``patroni.yml`` beside this file with this machine's values put in, so the
example cannot go stale. Passwords are made anew for each run and lie only in files of mode 0600.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from machine import DEV, HERE, Machine, port_from
from store import STEM, Store

from configsvc.cli.devcluster import processes
from configsvc.errors import ConfigError

HOST: Final = "127.0.0.1"
PG_PORT_DEFAULT: Final = 15432  # the second node's is one above
REST_OFFSET: Final = 100
ASK_S: Final = 5.0
STOP_S: Final = 40.0


class Passwords:
    """One run's secrets."""

    def __init__(self) -> None:
        self.superuser = secrets.token_urlsafe(24)
        self.replication = secrets.token_urlsafe(24)
        self.rest = secrets.token_urlsafe(24)


class Node:
    """One Patroni with its PostgreSQL."""

    def __init__(self, machine: Machine, number: int, passwords: Passwords) -> None:
        base = port_from("PATRONI_PG_PORT", PG_PORT_DEFAULT)
        self.machine = machine
        self.name = f"node{number}"
        self.pg_port = base + number - 1
        self.rest_port = base + REST_OFFSET + number - 1
        self.home = machine.work / self.name
        self.data = self.home / "data"
        self.config = self.home / "patroni.yml"
        self.pid_file = DEV / f"{self.name}.pid"
        self.log = DEV / "log" / f"{self.name}.log"
        self._passwords = passwords

    def write(self, store: Store) -> None:
        """Configuration, certificate and psql's password file, all the ordinary user's."""
        self.home.mkdir(mode=0o700)
        for port in (self.pg_port, self.rest_port):
            _check_free(port)
        pki, users = store.layout.pki, store.layout.users
        for source in (pki / "ca-server-chain.pem", users / f"{STEM}.pem", users / f"{STEM}.key"):
            _put(self.home / source.name, source.read_text())
        _put(self.config, self._configuration(store))
        secret = self._passwords.superuser
        _put(self.home / "psql-pgpass", f"{HOST}:*:*:postgres:{secret}\n")
        for path in (self.home, *self.home.iterdir()):
            shutil.chown(path, self.machine.user)

    def _configuration(self, store: Store) -> str:
        """The example with this node's values; every value of the example must be found."""
        text = (HERE / "patroni.yml").read_text()
        values = {
            f"10.0.0.{m.number}:2379": f"{HOST}:{m.client_port}" for m in store.layout.members
        }
        values |= {
            "name: node1": f"name: {self.name}",
            "/etc/patroni/": f"{self.home}/",
            "10.0.1.1:8008": f"{HOST}:{self.rest_port}",
            "10.0.1.1:5432": f"{HOST}:{self.pg_port}",
            "10.0.1.0/24": f"{HOST}/32",
            "/var/lib/postgresql/15/demo": str(self.data),
            "/usr/lib/postgresql/15/bin": str(self.machine.binaries),
            "/var/lib/postgresql/pgpass-demo": str(self.home / "pgpass"),
            "/var/run/postgresql": str(self.home),
            "REST-PASSWORD": self._passwords.rest,
            "SUPERUSER-PASSWORD": self._passwords.superuser,
            "REPLICATION-PASSWORD": self._passwords.replication,
        }
        for old, new in values.items():
            if old not in text:
                raise ConfigError(
                    f"patroni.yml does not hold {old}", "keep example and demo in step"
                )
            text = text.replace(old, new)
        return text

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        # -S: only the pinned packages, not the system's (an old TLS module there would be used).
        argv = self.machine.as_user(str(self.machine.python), "-Sm", "patroni", str(self.config))
        processes.launch(argv, self.log, self.pid_file, self.machine.work)

    def alive(self) -> bool:
        """True.

        Raises:
            ConfigError: Patroni ended; its last line tells why.
        """
        if processes.running(self.pid_file):
            return True
        raise ConfigError(f"{self.name} ended: {_last(self.log.read_text())}", f"see {self.log}")

    def ctl(self, *argv: str) -> str:
        """One patronictl command's output."""
        program = "from patroni.ctl import ctl; ctl(prog_name='patronictl')"
        own = self.machine.as_user(
            str(self.machine.python), "-Sc", program, "-c", str(self.config), *argv
        )
        done = _run(own, self.machine.work, 60.0)
        if done.returncode:
            raise ConfigError(f"patronictl {argv[0]}: {_last(done.stderr or done.stdout)}", "")
        return done.stdout

    def sql(self, statement: str) -> str:
        """What psql answers; "" when it fails."""
        argv = self.machine.as_user(
            str(self.machine.binaries / "psql"), "-XAtqw", "-v", "ON_ERROR_STOP=1",
            "-h", HOST, "-p", str(self.pg_port), "-U", "postgres", "-d", "postgres",
            "-c", statement,
            PGPASSFILE=str(self.home / "psql-pgpass"), PGCONNECT_TIMEOUT="3",
        )  # fmt: skip
        try:
            done = _run(argv, self.machine.work, 10.0)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def status(self) -> dict[str, Any]:
        """What the node tells about itself; {} when it does not answer."""
        connection = http.client.HTTPConnection(HOST, self.rest_port, timeout=ASK_S)
        try:
            connection.request("GET", "/patroni")
            found = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        finally:
            connection.close()
        return found if isinstance(found, dict) else {}

    def is_primary(self) -> bool:
        status = self.status()
        # A primary that is still being promoted has the role, but not yet the state.
        return status.get("role") in ("primary", "master") and status.get("state") == "running"

    def streams(self) -> bool:
        """Whether it is a standby that receives from the primary."""
        status = self.status()
        return status.get("role") == "replica" and status.get("replication_state") == "streaming"

    def postmaster(self) -> int:
        """Pid of its PostgreSQL; 0 when it does not run."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            ours = Path(f"/proc/{pid}/cwd").readlink() == self.data
        except (OSError, ValueError, IndexError):
            return 0
        return pid if ours else 0

    def kill(self) -> None:
        """SIGKILL at Patroni and PostgreSQL at once, as when the machine dies."""
        for pid in (processes.running(self.pid_file), self.postmaster()):
            if pid:
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop both; PostgreSQL is killed if Patroni did not stop it."""
        pid = processes.running(self.pid_file)
        if pid:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not processes.running(self.pid_file), STOP_S)
        processes.stop(self.pid_file)
        if left := self.postmaster():
            os.kill(left, signal.SIGQUIT)
            until(lambda: not self.postmaster(), STOP_S)


def until(what: Callable[[], object], seconds: float, pause: float = 0.05) -> float:
    """Seconds until ``what()`` is true.

    Raises:
        TimeoutError: it was not, ``seconds`` long.
    """
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(pause)
    return time.monotonic() - began


def left_over(work: Path) -> list[str]:
    """Processes that still name the nodes' directory or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            where = str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(work) in line or where.startswith(str(work)):
            found.append(f"{entry.name} {line[:80]}")
    return found


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(
                f"port {port} is taken by another program", "PATRONI_PG_PORT=25432 moves it"
            ) from None


def _put(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _run(argv: list[str], cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # the programs that `machine` found
        argv, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no output"
