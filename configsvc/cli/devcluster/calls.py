"""What the development cluster's commands ask of its members, through the Python client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from configsvc.cli.devcluster.layout import Layout, MemberPlan
from configsvc.client.endpoints import parse_endpoints
from configsvc.client.settings import ClientSettings
from configsvc.client.sync import Client
from configsvc.client.tls import TlsFiles
from configsvc.errors import ConfigServiceError


@contextlib.contextmanager
def client(
    layout: Layout, user: str, endpoints: str = "", timeout: float = 5.0
) -> Iterator[Client]:
    """A client of the cluster as one of its users."""
    pair = layout.users / user
    settings = ClientSettings(
        endpoints=tuple(parse_endpoints(endpoints or layout.endpoints)),
        tls=TlsFiles(str(layout.pki / "ca-server.pem"), f"{pair}.pem", f"{pair}.key"),
        timeout_s=timeout,
    )
    with Client(settings) as made:
        yield made


def healthy(layout: Layout, member: MemberPlan) -> bool:
    """Whether a linearizable read through this member succeeds."""
    if not Path(f"{layout.users / 'root'}.pem").exists():
        return False
    try:
        with client(layout, "root", member.client_url, 1.0) as c:
            c.get(b"health")
    except ConfigServiceError:
        return False
    return True
