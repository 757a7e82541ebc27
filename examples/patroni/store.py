"""The store under Patroni: three members of configsvc with mutual TLS, apart from `make up`'s.

Patroni has an identity of its own, ``service/patroni``, and a role that covers exactly
``/service/demo/``.

Not here: starting members and issuing certificates (``configsvc.cli.devcluster``).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Final

from machine import DEV, port_from

from configsvc.cli.devcluster import cluster, processes
from configsvc.cli.devcluster.calls import client
from configsvc.cli.devcluster.layout import Layout, MemberPlan
from configsvc.client import administration as admin
from configsvc.client import inquiries
from configsvc.client.endpoints import parse_endpoints
from configsvc.errors import ConfigError, ConfigServiceError, PermissionDeniedError
from configsvc.identity.pki import issue
from configsvc.proto import auth_pb2

PORT_BASE_DEFAULT: Final = 2579  # with the offsets 20,000 and 30,000 below the ephemeral ports
PREFIX: Final = b"/service/demo/"
PREFIX_END: Final = b"/service/demo0"
LEADER_KEY: Final = PREFIX + b"leader"
USER: Final = "service/patroni"
STEM: Final = "service-patroni"
ROLE: Final = "patroni-demo"
LEADER_S: Final = 15.0


class Store:
    """The members, and what the demonstration asks of them."""

    def __init__(self) -> None:
        base = port_from("PATRONI_PORT_BASE", PORT_BASE_DEFAULT)
        self.layout = Layout(DEV / "store", 3, base)

    def start(self) -> str:
        """A fresh cluster, healthy, with Patroni's user and role."""
        self.stop()  # what a demonstration that was killed left running
        cluster.check_ports(self.layout)
        self.layout.dev.mkdir(mode=0o700, parents=True)
        cluster.prepare_keys(self.layout)
        cluster.start_members(self.layout)
        cluster.wait_healthy(self.layout)
        issue(self.layout.pki, "service", "patroni", out=self.layout.users, stem=STEM)
        with client(self.layout, "root") as c:
            c.do(admin.role_add(ROLE))
            c.do(admin.role_grant(ROLE, auth_pb2.Permission.READWRITE, PREFIX, PREFIX_END))
            c.do(admin.user_add(USER, None))
            c.do(admin.user_grant_role(USER, ROLE))
        return f"3 members at {self.layout.endpoints}"

    def refuses_other_keys(self) -> str:
        """Patroni's certificate is worth nothing outside its prefix."""
        with client(self.layout, STEM) as c:
            try:
                c.put(b"/service/other/leader", b"node9")
            except PermissionDeniedError as error:
                return f"{USER} at /service/other/leader: {error}"
        raise ConfigError("a key outside Patroni's prefix was written", "")

    def leader(self) -> MemberPlan:
        """The member that leads now.

        Raises:
            ConfigError: nobody has said so for LEADER_S seconds.
        """
        deadline = time.monotonic() + LEADER_S
        while time.monotonic() < deadline:
            for member in self.layout.members:
                try:
                    with client(self.layout, "root", member.client_url, 1.0) as c:
                        asked = parse_endpoints(member.client_url)[0]
                        status = c.do(admin.status(), endpoint=asked)
                except ConfigServiceError:
                    continue
                if status.leader == status.header.member_id:
                    return member
            time.sleep(0.05)
        raise ConfigError("the store has no leader", f"see {self.layout.log}")

    def kill_leader(self) -> str:
        """SIGKILL at the leading member; its name."""
        member = self.leader()
        os.kill(processes.running(self.layout.pid_file(member.name)), signal.SIGKILL)
        return member.name

    def revive(self) -> None:
        """Start what was killed."""
        cluster.start_members(self.layout)
        cluster.wait_healthy(self.layout)

    def lock(self) -> tuple[str, int]:
        """Patroni's leader key: its value, and the lease it hangs on (0 and "" when absent)."""
        with client(self.layout, "root") as c:
            found = c.get(LEADER_KEY)
        return (found.value.decode(), found.lease) if found is not None else ("", 0)

    def history(self) -> str:
        """Who moved the leader key, as the audit history tells it."""
        with client(self.layout, "root") as c:
            records = c.do(inquiries.log(LEADER_KEY, limit=100)).records
        actors = sorted({record.actor for record in records})
        if USER not in actors:
            raise ConfigError(f"the history names {', '.join(actors) or 'nobody'}", "")
        return f"{len(records)} changes of the leader key, by {', '.join(actors)}"

    def stop(self) -> None:
        """Stop the members; forget their data and certificates."""
        for member in self.layout.members:
            processes.stop(self.layout.pid_file(member.name))
        shutil.rmtree(self.layout.root, ignore_errors=True)
