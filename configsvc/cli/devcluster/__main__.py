"""``python -m configsvc.cli.devcluster up|down|clean|tour``: what the Makefile calls."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from configsvc.cli.devcluster import cluster, processes
from configsvc.cli.devcluster.agent import agent_running, file_follows, start_agent
from configsvc.cli.devcluster.first_change import ensure_users, first_change
from configsvc.cli.devcluster.layout import Layout, from_environment, remember
from configsvc.errors import ConfigServiceError, FatalError


def up(layout: Layout) -> int:
    """Certificates, members, health, a first change with its audit record."""
    members_run = all(processes.running(layout.pid_file(m.name)) for m in layout.members)
    if members_run and agent_running(layout):
        print(f"runs already: {layout.endpoints}")
        cluster.write_env(layout)
        _next_steps()
        return 0
    steps = cluster.Steps()
    cluster.check_ports(layout)
    layout.dev.mkdir(mode=0o700, exist_ok=True)
    remember(layout)
    try:
        steps.run("certificates and keys", lambda: cluster.prepare_keys(layout))
        steps.run("start the members", lambda: cluster.start_members(layout))
        steps.run("wait until they are healthy", lambda: cluster.wait_healthy(layout))
        steps.run("shell settings", lambda: cluster.write_env(layout))
        steps.run("users alice, bob, carol", lambda: ensure_users(layout))
        steps.run("a first change, by alice", lambda: first_change(layout))
        steps.run("an agent on this machine", lambda: start_agent(layout))
        steps.run("its file follows a change", lambda: file_follows(layout))
    except BaseException:
        cluster.down(layout)
        raise
    print(f"\nready after {steps.total:.1f} s: {layout.endpoints}")
    _next_steps()
    return 0


def _next_steps() -> None:
    print(
        "\nTry next:\n"
        "  . .dev/env.sh                      act as user root of this cluster\n"
        "  etcdctl get --prefix /demo/        stock etcdctl works as it is\n"
        "  configctl put /demo/color green --reason 'trying it'\n"
        "  configctl log /demo/color          who changed it, when, why\n"
        "  configctl audit verify             nothing was tampered with\n"
        "  make tour                          the rest, in a minute\n"
        "  make down                          stop it; make clean forgets it"
    )


def main() -> int:
    """Run one command; errors are one line with the way out."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    root = Path(__file__).resolve().parents[3]
    os.umask(0o077)
    try:
        layout = from_environment(root)
        if command == "up":
            return up(layout)
        if command == "down":
            return cluster.down(layout)
        if command == "clean":
            return cluster.clean(layout)
        if command == "tour":
            from configsvc.cli.devcluster.tour import tour

            return tour(layout)
    except FatalError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.remedy:
            print(f"  {error.remedy}", file=sys.stderr)
        return 1
    except ConfigServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(f"error: {'disk full' if full else error}", file=sys.stderr)
        return 1
    print("usage: up | down | clean | tour", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
