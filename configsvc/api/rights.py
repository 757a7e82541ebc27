"""What each RPC needs. Every served method has a row; one without stops the start (AZ-1, N1).

The class of a row says where the decision falls: ``APPLY`` in apply, against the state at the
entry's log index; all others in the handler, with the rights at the applied index that answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from configsvc.errors import ConfigError


class Decides(Enum):
    """Who decides."""

    APPLY = "apply, per operation of the one walker"
    SPAN = "handler: READ on the whole canonical span"
    CAPABILITY = "handler: a capability"
    PRINCIPAL = "handler: any standing principal; details by row"
    CERTIFICATE = "an acceptable certificate is enough"
    STEPS = "each KV, lease and watch call that it consists of, by its own row"


class Right(NamedTuple):
    decides: Decides
    action: str = ""  # of CAPABILITY rows, and of APPLY rows with one action


_A, _S, _C, _P, _T, _Q = (
    Decides.APPLY,
    Decides.SPAN,
    Decides.CAPABILITY,
    Decides.PRINCIPAL,
    Decides.CERTIFICATE,
    Decides.STEPS,
)
_AUTH_WRITES: Final = (
    "AuthEnable", "UserAdd", "UserDelete", "UserChangePassword", "UserGrantRole",
    "UserRevokeRole", "RoleAdd", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
)  # fmt: skip

RIGHTS: Final[dict[str, Right]] = {
    "/etcdserverpb.KV/Range": Right(_S, "kv.range"),
    "/etcdserverpb.KV/RangeStream": Right(_S, "kv.range"),
    "/etcdserverpb.KV/Put": Right(_A, "kv.put"),
    "/etcdserverpb.KV/DeleteRange": Right(_A, "kv.delete"),
    "/etcdserverpb.KV/Txn": Right(_A),
    "/etcdserverpb.KV/Compact": Right(_A, "kv.compact"),
    "/etcdserverpb.Watch/Watch": Right(_S, "kv.range"),
    "/etcdserverpb.Lease/LeaseGrant": Right(_A, "lease.grant"),
    "/etcdserverpb.Lease/LeaseRevoke": Right(_A),
    "/etcdserverpb.Lease/LeaseKeepAlive": Right(_P),
    "/etcdserverpb.Lease/LeaseTimeToLive": Right(_P),
    "/etcdserverpb.Lease/LeaseLeases": Right(_P),
    "/etcdserverpb.Cluster/MemberList": Right(_P),
    "/etcdserverpb.Cluster/MemberAdd": Right(_C, "cluster.admin"),
    "/etcdserverpb.Cluster/MemberRemove": Right(_C, "cluster.admin"),
    "/etcdserverpb.Cluster/MemberUpdate": Right(_C, "cluster.admin"),
    "/etcdserverpb.Cluster/MemberPromote": Right(_C, "cluster.admin"),
    "/etcdserverpb.Maintenance/Alarm": Right(_C, "maintenance.alarm"),
    "/etcdserverpb.Maintenance/Status": Right(_P),
    "/etcdserverpb.Maintenance/Defragment": Right(_C, "maintenance.defragment"),
    "/etcdserverpb.Maintenance/Hash": Right(_C, "maintenance.hash"),
    "/etcdserverpb.Maintenance/HashKV": Right(_C, "maintenance.hash"),
    "/etcdserverpb.Maintenance/Snapshot": Right(_C, "snapshot.export"),
    "/etcdserverpb.Maintenance/MoveLeader": Right(_C, "maintenance.move_leader"),
    "/etcdserverpb.Maintenance/Downgrade": Right(_C, "maintenance.downgrade"),
    "/etcdserverpb.Auth/AuthDisable": Right(_C, "auth.admin"),
    "/etcdserverpb.Auth/AuthStatus": Right(_T),
    "/etcdserverpb.Auth/Authenticate": Right(_T),
    "/etcdserverpb.Auth/UserGet": Right(_P),
    "/etcdserverpb.Auth/UserList": Right(_C, "auth.admin"),
    "/etcdserverpb.Auth/RoleGet": Right(_P),
    "/etcdserverpb.Auth/RoleList": Right(_C, "auth.admin"),
    "/v3lockpb.Lock/Lock": Right(_Q),
    "/v3lockpb.Lock/Unlock": Right(_Q),
    "/v3electionpb.Election/Campaign": Right(_Q),
    "/v3electionpb.Election/Proclaim": Right(_Q),
    "/v3electionpb.Election/Leader": Right(_Q),
    "/v3electionpb.Election/Observe": Right(_Q),
    "/v3electionpb.Election/Resign": Right(_Q),
    "/grpc.health.v1.Health/Check": Right(_T),
    "/grpc.health.v1.Health/Watch": Right(_T),
    "/configsvc.v1.History/Log": Right(_S, "kv.range"),
    "/configsvc.v1.History/Blame": Right(_S, "kv.range"),
    "/configsvc.v1.History/Diff": Right(_S, "kv.range"),
    "/configsvc.v1.History/At": Right(_S, "kv.range"),
    "/configsvc.v1.Audit/Checkpoint": Right(_C, "audit.verify"),
    "/configsvc.v1.Audit/Inclusion": Right(_C, "audit.verify"),
    "/configsvc.v1.Audit/Consistency": Right(_C, "audit.verify"),
    "/configsvc.v1.Audit/Export": Right(_C, "audit.read"),
    "/configsvc.v1.Audit/LocalExport": Right(_C, "audit.read"),
    "/configsvc.v1.Fleet/Report": Right(_C, "fleet.report"),
    "/configsvc.v1.Fleet/Status": Right(_C, "fleet.read"),
    "/configsvc.v1.Policy/Show": Right(_C, "policy.read"),
    "/configsvc.v1.Policy/Load": Right(_A, "policy.load"),
    "/configsvc.v1.Policy/CanI": Right(_P),
    "/configsvc.v1.DenyList/Add": Right(_A),
    "/configsvc.v1.DenyList/Remove": Right(_A),
    "/configsvc.v1.DenyList/List": Right(_C, "pki.revoke"),
} | {f"/etcdserverpb.Auth/{name}": Right(_A, "auth.admin") for name in _AUTH_WRITES}


def check_complete(served: Iterable[str]) -> None:
    """Compare the table with what is served.

    Raises:
        ConfigError: a method without a row, or a row without a method: the start is refused.
    """
    paths = set(served)
    missing = sorted(paths - RIGHTS.keys())
    extra = sorted(RIGHTS.keys() - paths)
    if missing or extra:
        raise ConfigError(
            f"table of rights: no row for {missing or 'none'}, no method for {extra or 'none'}",
            "this build is broken; use a release",
        )
