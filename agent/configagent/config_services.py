"""Reads services and commands out of ``agent.toml``: programs, users, health."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import Final

from configagent.settings import Command, Health, Service
from configagent.toml_text import Table

NAME: Final = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")


def command_of(table: Table, key: str, argv: tuple[str, ...], timeout_s: float) -> Command:
    """A command with its timeout and user."""
    if not argv or not argv[0].startswith("/"):
        table.problem(key, "must start with the absolute path of a program")
    if timeout_s <= 0:
        table.problem("timeout", "must be above 0")
    user = table.text("user")
    if user:
        uid_of(table, "user", user)
    return Command(argv, timeout_s, user)


def services_of(root: Table) -> dict[str, Service]:
    """Every ``[[service]]`` by name."""
    found: dict[str, Service] = {}
    for table in root.tables("service"):
        name = table.text("name", required=True)
        if not NAME.match(name) or name in found:
            table.problem("name", "must be a name in lower case, used once")
        timeout = table.seconds("timeout", 60.0)
        restart = table.texts("restart") if "restart" in table else ()
        found[name] = Service(
            name=name,
            reload=command_of(table, "reload", _reload_argv(table), timeout),
            restart=command_of(table, "restart", restart, timeout) if restart else None,
            health=_health(table.table("health")) if "health" in table else None,
            min_interval_s=table.seconds("min_interval", 0.0),
            splay_s=table.seconds("splay", 0.0),
        )
        table.done()
    return found


def _reload_argv(table: Table) -> tuple[str, ...]:
    """``reload`` is an argv, or a signal to a unit."""
    if not table.is_table("reload"):
        return table.texts("reload")
    signal = table.table("reload")
    name, unit = signal.text("signal", required=True), signal.text("unit", required=True)
    if not re.fullmatch(r"[A-Z0-9]{2,10}", name) or not re.fullmatch(r"[A-Za-z0-9@._:-]+", unit):
        signal.problem("signal", "must be a signal's name such as HUP, and a unit's name")
    signal.done()
    return ("/usr/bin/systemctl", "kill", "--kill-whom=main", f"--signal={name}", unit)


def _health(table: Table) -> Health:
    argv = table.texts("cmd")
    tcp = table.text("tcp")
    host, _, port = tcp.rpartition(":")
    if bool(argv) == bool(tcp) or (tcp and not (host and port.isdigit())):
        table.problem("", 'needs either cmd = ["/program", …] or tcp = "host:port"')
        port = "0"
    every = max(table.seconds("every", 1.0), 0.05)
    made = Health(
        command=command_of(table, "cmd", argv, table.seconds("timeout", 10.0)) if argv else None,
        tcp=(host, int(port)) if tcp else None,
        every_s=every,
        window_s=table.seconds("window", 15.0),
        successes=table.number("successes", 1, 1, 100),
    )
    table.done()
    return made


def uid_of(table: Table, key: str, name: str) -> int:
    """Number of a user; "" is our own, -1 after a problem was noted."""
    if not name:
        return os.geteuid()
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        table.problem(key, f"there is no user {name}")
        return -1


def gid_of(table: Table, key: str, name: str) -> int:
    """Number of a group; "" is our own, -1 after a problem was noted."""
    if not name:
        return os.getegid()
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        table.problem(key, f"there is no group {name}")
        return -1
