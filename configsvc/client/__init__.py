"""The Python client, sync and async: the only door for ``configctl`` and ``configagent``.

``Client`` and ``AsyncClient`` carry out ``operations``; ``Watch`` and ``LeaseKeeper`` live on
them. Errors are ``configsvc.errors`` for what the cluster refused, and ``client.errors`` for what
happened on the way.
"""

from configsvc.client import administration, inquiries, operations, quiet  # noqa: F401
from configsvc.client.aio import AsyncClient
from configsvc.client.aio_recipes import acquire_async, current_leader_async
from configsvc.client.aio_streams import AsyncLeaseKeeper, AsyncWatch, hold_lease_async
from configsvc.client.endpoints import Endpoint, parse_endpoint, parse_endpoints
from configsvc.client.errors import (
    ClientError,
    EndpointError,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    WatchCompactedError,
)
from configsvc.client.operations import Operation, prefix_end, prefix_span
from configsvc.client.recipes import Held, acquire, current_leader
from configsvc.client.settings import ClientSettings, Login, Why
from configsvc.client.sync import Client
from configsvc.client.sync_streams import LeaseKeeper, Watch, hold_lease
from configsvc.client.tls import TlsFiles
from configsvc.client.txn import Txn
from configsvc.client.watching import WatchBatch, WatchOptions

__all__ = [
    "AsyncClient",
    "AsyncLeaseKeeper",
    "AsyncWatch",
    "Client",
    "ClientError",
    "ClientSettings",
    "Endpoint",
    "EndpointError",
    "Held",
    "LeaseKeeper",
    "LeaseLostError",
    "Login",
    "Operation",
    "OutcomeUnknownError",
    "TlsFiles",
    "Txn",
    "UnavailableError",
    "Watch",
    "WatchBatch",
    "WatchCompactedError",
    "WatchOptions",
    "Why",
    "acquire",
    "acquire_async",
    "administration",
    "current_leader",
    "current_leader_async",
    "hold_lease",
    "hold_lease_async",
    "inquiries",
    "operations",
    "parse_endpoint",
    "parse_endpoints",
    "prefix_end",
    "prefix_span",
]
