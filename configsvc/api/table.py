"""The table of served RPCs: path, handler, message classes. What is not here does not exist."""

from __future__ import annotations

from typing import Any

from configsvc.api.audit import AuditService
from configsvc.api.auth import AuthService
from configsvc.api.call_counts import CallCounts
from configsvc.api.callers import ANONYMOUS, Callers, Connection
from configsvc.api.cluster import ClusterService
from configsvc.api.contract import Method, RefusedFactory, StreamFactory, UnaryHandler
from configsvc.api.deny_list import DenyListService
from configsvc.api.election import ElectionService
from configsvc.api.fleet import FleetService
from configsvc.api.health import HealthService
from configsvc.api.history import HistoryService
from configsvc.api.kv import KvService
from configsvc.api.late_callers import LateCallers
from configsvc.api.learners import bounded
from configsvc.api.lease import LeaseService
from configsvc.api.lock import LockService
from configsvc.api.maintenance import MaintenanceService
from configsvc.api.policy import PolicyService
from configsvc.api.refusals import Refusals
from configsvc.api.rights import check_complete
from configsvc.api.watch import WatchService
from configsvc.proto import health_pb2, rpc_pb2, v1_pb2, v3election_pb2, v3lock_pb2
from configsvc.runtime.member import Member
from configsvc.types import Source

_PACKAGES = {
    "etcdserverpb": rpc_pb2,
    "v3lockpb": v3lock_pb2,
    "v3electionpb": v3election_pb2,
    "configsvc.v1": v1_pb2,
    "grpc.health.v1": health_pb2,
}


class Api:
    """What the frontend and the gateway are handed."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.refusals = Refusals(member)
        self._callers = Callers(
            member,
            insecure=member.config.insecure_dev,
            common_names=member.config.client_cert_auth,
            etcd_tokens=member.etcd_tokens,
            on_rejected=self._rejected,
        )
        self.methods: dict[bytes, Method] = {}
        # Callers can be late where etcd's tokens are taken, and nowhere else.
        self._late = LateCallers(member.reads) if member.etcd_tokens is not None else None
        self.kv = KvService(member)
        self.fleet = FleetService(member)
        self._fill(member)
        check_complete(path.decode() for path in self.methods)

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> Connection:
        return self._callers.connection(der, peer_ip, tls_version)

    def status_of(self, error: BaseException) -> tuple[int, str]:
        """Code and text of anything; an unexpected error is logged and named by an id (FC-6)."""
        return self.refusals.status_of(error)

    def _rejected(self, source: Source, reason: str) -> None:
        self._member.audit.note(
            "auth.denied", ANONYMOUS, source, code="UNAUTHENTICATED", detail=f"certificate {reason}"
        )

    def _fill(self, member: Member) -> None:
        kv, lease, auth = self.kv, LeaseService(member), AuthService(member)
        cluster, maintenance = ClusterService(member), MaintenanceService(member)
        self._unary("etcdserverpb.KV", {
            "Range": kv.range, "Put": kv.put, "DeleteRange": kv.delete_range, "Txn": kv.txn,
            "Compact": kv.compact,
        })  # fmt: skip
        self._stream("etcdserverpb.KV", "RangeStream", kv.range_stream)
        watch = WatchService(member, self.refusals)
        self._stream("etcdserverpb.Watch", "Watch", watch.watch, watch.refused)
        self._unary("etcdserverpb.Lease", {
            "LeaseGrant": lease.grant, "LeaseRevoke": lease.revoke,
            "LeaseTimeToLive": lease.time_to_live, "LeaseLeases": lease.leases,
        })  # fmt: skip
        self._stream("etcdserverpb.Lease", "LeaseKeepAlive", lease.keep_alive)
        self._unary("etcdserverpb.Auth", {
            "AuthEnable": auth.enable, "AuthDisable": auth.disable, "AuthStatus": auth.status,
            "Authenticate": auth.authenticate, "UserAdd": auth.user_add, "UserGet": auth.user_get,
            "UserList": auth.user_list, "UserDelete": auth.user_delete,
            "UserChangePassword": auth.change_password, "UserGrantRole": auth.user_grant_role,
            "UserRevokeRole": auth.user_revoke_role, "RoleAdd": auth.role_add,
            "RoleGet": auth.role_get, "RoleList": auth.role_list, "RoleDelete": auth.role_delete,
            "RoleGrantPermission": auth.role_grant_permission,
            "RoleRevokePermission": auth.role_revoke_permission,
        })  # fmt: skip
        self._unary("etcdserverpb.Cluster", {
            "MemberAdd": cluster.member_add, "MemberRemove": cluster.member_remove,
            "MemberUpdate": cluster.member_update, "MemberList": cluster.member_list,
            "MemberPromote": cluster.member_promote,
        })  # fmt: skip
        self._unary("etcdserverpb.Maintenance", {
            "Alarm": maintenance.alarm, "Status": maintenance.status,
            "Defragment": maintenance.defragment, "Hash": maintenance.hash,
            "HashKV": maintenance.hash_kv, "MoveLeader": maintenance.move_leader,
            "Downgrade": maintenance.downgrade,
        })  # fmt: skip
        self._stream("etcdserverpb.Maintenance", "Snapshot", maintenance.snapshot)
        self._queues(
            LockService(member, kv, lease, watch), ElectionService(member, kv, lease, watch)
        )
        self._own(member)

    def _queues(self, lock: LockService, election: ElectionService) -> None:
        self._unary("v3lockpb.Lock", {"Lock": lock.lock, "Unlock": lock.unlock})
        self._unary("v3electionpb.Election", {
            "Campaign": election.campaign, "Proclaim": election.proclaim,
            "Leader": election.leader, "Resign": election.resign,
        })  # fmt: skip
        self._stream("v3electionpb.Election", "Observe", election.observe)

    def _own(self, member: Member) -> None:
        history, audit, policy = HistoryService(member), AuditService(member), PolicyService(member)
        health = HealthService(member)
        self._unary("configsvc.v1.History", {
            "Log": history.log, "Blame": history.blame, "Diff": history.diff, "At": history.at,
        })  # fmt: skip
        self._unary("configsvc.v1.Audit", {
            "Checkpoint": audit.checkpoint, "Inclusion": audit.inclusion,
            "Consistency": audit.consistency,
        })  # fmt: skip
        self._stream("configsvc.v1.Audit", "Export", audit.export)
        self._stream("configsvc.v1.Audit", "LocalExport", audit.local_export)
        self._unary(
            "configsvc.v1.Fleet", {"Report": self.fleet.report, "Status": self.fleet.status}
        )
        self._unary(
            "configsvc.v1.Policy",
            {"Show": policy.show, "Load": policy.load, "CanI": policy.can_i},
        )
        denying = DenyListService(member)
        self._unary(
            "configsvc.v1.DenyList",
            {"Add": denying.add, "Remove": denying.remove, "List": denying.list},
        )
        self._unary("grpc.health.v1.Health", {"Check": health.check})
        self._stream("grpc.health.v1.Health", "Watch", health.watch)

    def _unary(self, service: str, handlers: dict[str, UnaryHandler]) -> None:
        for name, handler in handlers.items():
            self._put(service, name, handler, None)

    def _stream(
        self,
        service: str,
        name: str,
        factory: StreamFactory,
        refused: RefusedFactory | None = None,
    ) -> None:
        self._put(service, name, None, factory, refused)

    def _put(
        self,
        service: str,
        name: str,
        unary: UnaryHandler | None,
        stream: StreamFactory | None,
        refused: RefusedFactory | None = None,
    ) -> None:
        rpc = descriptor(service).methods_by_name[name]
        path = f"/{service}/{name}"
        if self._late is not None:
            unary = self._late.unary(unary) if unary is not None else None
            stream = self._late.stream(stream, refused) if stream is not None else None
        method = Method(
            path,
            unary,
            stream,
            rpc.client_streaming,
            rpc.server_streaming,
            _class_of(rpc.input_type),
            _class_of(rpc.output_type),
            refused,
            CallCounts(),
        )
        self.methods[path.encode()] = bounded(self._member, method)


def descriptor(service: str) -> Any:
    """Descriptor of a service by its full name."""
    package, _, name = service.rpartition(".")
    return _PACKAGES[package].DESCRIPTOR.services_by_name[name]


def _class_of(message: Any) -> Any:
    module = _PACKAGES[message.file.package]
    return getattr(module, message.name)
