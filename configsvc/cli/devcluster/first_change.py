"""The first things that happen on a fresh development cluster: users, a change, its record."""

from __future__ import annotations

from typing import Final

from configsvc.cli.devcluster.calls import client
from configsvc.cli.devcluster.layout import Layout
from configsvc.client import administration as admin
from configsvc.client import inquiries, operations
from configsvc.client.settings import Why
from configsvc.errors import RoleAlreadyExistError, UserAlreadyExistError
from configsvc.proto import auth_pb2

DEMO: Final = b"/demo/"
FIRST_KEY: Final = b"/demo/greeting"
REASON: Final = "first change of this cluster"


def ensure_users(layout: Layout) -> str:
    """Alice operates, carol audits, bob may read /demo/ only once somebody lets him."""
    with client(layout, "root") as c:
        for role in ("operator", "auditor", "demo-writer", "demo-reader"):
            try:
                c.do(admin.role_add(role))
            except RoleAlreadyExistError:
                continue
        c.do(admin.role_grant("demo-writer", auth_pb2.Permission.READWRITE, DEMO, b"/demo0"))
        c.do(admin.role_grant("demo-reader", auth_pb2.Permission.READ, DEMO, b"/demo0"))
        for user, roles in (
            ("alice", ("operator", "demo-writer")),
            ("bob", ()),
            ("carol", ("auditor",)),
            ("agent/dev-node", ("demo-reader",)),
        ):
            try:
                c.do(admin.user_add(user, None))
            except UserAlreadyExistError:
                pass
            for role in roles:
                c.do(admin.user_grant_role(user, role))
    return "alice: operator, carol: auditor, bob: nothing yet"


def first_change(layout: Layout) -> str:
    """Alice puts a key with a reason; the record of it is shown."""
    with client(layout, "alice") as c:
        if c.get(FIRST_KEY) is None:
            c.do(operations.put(FIRST_KEY, b"hello"), why=Why(REASON))
        record = c.do(inquiries.log(FIRST_KEY, limit=1)).records[0]
    return (
        f"revision {record.revision} by {record.actor} ({record.method}) "
        f"from {record.source}: {record.reason}"
    )
