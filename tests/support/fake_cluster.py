"""An in-process cluster that speaks gRPC on loopback, with a slow and obvious store behind it.

For tests of the client and the CLI only: no Raft, no rights, no TLS. ``FakeStore.refuse`` makes
the next calls of a path fail, before or after they took effect.
"""

from __future__ import annotations

from concurrent import futures

import grpc

from configsvc.proto import (
    health_pb2_grpc,
    rpc_pb2_grpc,
    v1_pb2_grpc,
    v3election_pb2_grpc,
    v3lock_pb2_grpc,
)
from tests.support.fake_services import Services
from tests.support.fake_store import Abort, FakeAudit, FakeStore

__all__ = ["Abort", "FakeAudit", "FakeCluster", "FakeMember", "FakeStore"]

_SERVICES = [
    ("etcdserverpb.KV", rpc_pb2_grpc.add_KVServicer_to_server),
    ("etcdserverpb.Watch", rpc_pb2_grpc.add_WatchServicer_to_server),
    ("etcdserverpb.Lease", rpc_pb2_grpc.add_LeaseServicer_to_server),
    ("etcdserverpb.Auth", rpc_pb2_grpc.add_AuthServicer_to_server),
    ("etcdserverpb.Cluster", rpc_pb2_grpc.add_ClusterServicer_to_server),
    ("etcdserverpb.Maintenance", rpc_pb2_grpc.add_MaintenanceServicer_to_server),
    ("v3lockpb.Lock", v3lock_pb2_grpc.add_LockServicer_to_server),
    ("v3electionpb.Election", v3election_pb2_grpc.add_ElectionServicer_to_server),
    ("grpc.health.v1.Health", health_pb2_grpc.add_HealthServicer_to_server),
    ("configsvc.v1.History", v1_pb2_grpc.add_HistoryServicer_to_server),
    ("configsvc.v1.Audit", v1_pb2_grpc.add_AuditServicer_to_server),
    ("configsvc.v1.Fleet", v1_pb2_grpc.add_FleetServicer_to_server),
    ("configsvc.v1.Policy", v1_pb2_grpc.add_PolicyServicer_to_server),
    ("configsvc.v1.DenyList", v1_pb2_grpc.add_DenyListServicer_to_server),
]
_STREAMS = {"Watch", "LeaseKeepAlive", "Snapshot", "Export"}
_RENAMED = {"/configsvc.v1.Fleet/Status": "/configsvc.v1.Fleet/FleetStatus"} | {
    f"/configsvc.v1.DenyList/{name}": f"/configsvc.v1.DenyList/Deny{name}"
    for name in ("Add", "Remove", "List")
}


class _Servicer:
    """Routes every method of one service to the member's handlers."""

    def __init__(self, services: Services, service: str) -> None:
        self._services = services
        self._service = service

    def __getattr__(self, name: str):
        path = f"/{self._service}/{name}"
        services = self._services
        if name in _STREAMS and self._service != "grpc.health.v1.Health":
            return getattr(services, name)
        path = _RENAMED.get(path, path)
        return lambda request, context: services.unary(path, request, context)


class FakeMember:
    """One listening member; ``stop`` and ``start`` keep its port."""

    def __init__(
        self,
        store: FakeStore,
        member_id: int,
        ports: list[int],
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._store, self._id, self._ports = store, member_id, ports
        self._credentials = credentials
        self.port = 0
        self.server: grpc.Server | None = None

    def start(self) -> None:
        self.services = Services(self._store, self._id, self._ports)
        self.server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=64), options=(("grpc.so_reuseport", 0),)
        )
        for name, add in _SERVICES:
            add(_Servicer(self.services, name), self.server)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self.server.add_insecure_port(address)
        else:
            self.port = self.server.add_secure_port(address, self._credentials)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.services.stopped.set()
            self.server.stop(grace=None).wait()
            self.server = None

    @property
    def url(self) -> str:
        scheme = "http" if self._credentials is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"


class FakeCluster:
    def __init__(self, size: int = 1, credentials: grpc.ServerCredentials | None = None) -> None:
        self.store = FakeStore()
        self.ports: list[int] = []
        self.members = [
            FakeMember(self.store, number, self.ports, credentials) for number in range(1, size + 1)
        ]

    def __enter__(self) -> FakeCluster:
        for member in self.members:
            member.start()
            self.ports.append(member.port)
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.stop()

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def calls(self, path: str) -> list[tuple[str, dict[str, str | bytes], object]]:
        with self.store.lock:
            return [call for call in self.store.calls if call[0] == path]
