"""Operations of administrators: users, roles, members, maintenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from configsvc.client.operations import Operation
from configsvc.client.retry import Effect
from configsvc.proto import auth_pb2, health_pb2
from configsvc.proto import rpc_pb2 as rpc

R = TypeVar("R", bound=Message)


def _auth(
    name: str, request: Message, response: type[R], effect: Effect = Effect.ONCE
) -> Operation[R]:
    return Operation(f"/etcdserverpb.Auth/{name}", request, response, effect)


def _cluster(
    name: str, request: Message, response: type[R], effect: Effect = Effect.ONCE
) -> Operation[R]:
    return Operation(f"/etcdserverpb.Cluster/{name}", request, response, effect)


def _maintenance(
    name: str, request: Message, response: type[R], effect: Effect = Effect.READ
) -> Operation[R]:
    return Operation(f"/etcdserverpb.Maintenance/{name}", request, response, effect)


# --- users and roles ------------------------------------------------------------------------------


def auth_status() -> Operation[rpc.AuthStatusResponse]:
    """Whether rights are enforced, and the auth revision."""
    return _auth("AuthStatus", rpc.AuthStatusRequest(), rpc.AuthStatusResponse, Effect.READ)


def auth_enable() -> Operation[rpc.AuthEnableResponse]:
    """Enforce rights; a cluster that is not ``--insecure-dev`` always does."""
    return _auth("AuthEnable", rpc.AuthEnableRequest(), rpc.AuthEnableResponse, Effect.REPEATABLE)


def authenticate(user: str, password: str) -> Operation[rpc.AuthenticateResponse]:
    """Turn a password into a token."""
    request = rpc.AuthenticateRequest(name=user, password=password)
    return _auth("Authenticate", request, rpc.AuthenticateResponse, Effect.REPEATABLE)


def user_add(user: str, password: str | None) -> Operation[rpc.AuthUserAddResponse]:
    """Create a user; without a password only its certificate lets it in."""
    request = rpc.AuthUserAddRequest(
        name=user,
        password=password or "",
        options=auth_pb2.UserAddOptions(no_password=password is None),
    )
    return _auth("UserAdd", request, rpc.AuthUserAddResponse)


def user_get(user: str) -> Operation[rpc.AuthUserGetResponse]:
    """A user's roles."""
    return _auth("UserGet", rpc.AuthUserGetRequest(name=user), rpc.AuthUserGetResponse, Effect.READ)


def user_list() -> Operation[rpc.AuthUserListResponse]:
    """All users by name."""
    return _auth("UserList", rpc.AuthUserListRequest(), rpc.AuthUserListResponse, Effect.READ)


def user_delete(user: str) -> Operation[rpc.AuthUserDeleteResponse]:
    """Delete a user; what it holds open ends too."""
    return _auth("UserDelete", rpc.AuthUserDeleteRequest(name=user), rpc.AuthUserDeleteResponse)


def user_change_password(user: str, password: str) -> Operation[rpc.AuthUserChangePasswordResponse]:
    """Set a password; tokens made before it are refused from then on."""
    request = rpc.AuthUserChangePasswordRequest(name=user, password=password)
    return _auth("UserChangePassword", request, rpc.AuthUserChangePasswordResponse)


def user_grant_role(user: str, role: str) -> Operation[rpc.AuthUserGrantRoleResponse]:
    """Give a user a role; twice is fine."""
    request = rpc.AuthUserGrantRoleRequest(user=user, role=role)
    return _auth("UserGrantRole", request, rpc.AuthUserGrantRoleResponse)


def user_revoke_role(user: str, role: str) -> Operation[rpc.AuthUserRevokeRoleResponse]:
    """Take a role away."""
    request = rpc.AuthUserRevokeRoleRequest(name=user, role=role)
    return _auth("UserRevokeRole", request, rpc.AuthUserRevokeRoleResponse)


def role_add(role: str) -> Operation[rpc.AuthRoleAddResponse]:
    """Create a role without permissions."""
    return _auth("RoleAdd", rpc.AuthRoleAddRequest(name=role), rpc.AuthRoleAddResponse)


def role_get(role: str) -> Operation[rpc.AuthRoleGetResponse]:
    """A role's permissions."""
    return _auth("RoleGet", rpc.AuthRoleGetRequest(role=role), rpc.AuthRoleGetResponse, Effect.READ)


def role_list() -> Operation[rpc.AuthRoleListResponse]:
    """All roles by name."""
    return _auth("RoleList", rpc.AuthRoleListRequest(), rpc.AuthRoleListResponse, Effect.READ)


def role_delete(role: str) -> Operation[rpc.AuthRoleDeleteResponse]:
    """Delete a role, from all its users too."""
    return _auth("RoleDelete", rpc.AuthRoleDeleteRequest(role=role), rpc.AuthRoleDeleteResponse)


def role_grant(
    role: str, kind: auth_pb2.Permission.Type, key: bytes, range_end: bytes
) -> Operation[rpc.AuthRoleGrantPermissionResponse]:
    """Give a role a range; the same range again replaces the kind."""
    permission = auth_pb2.Permission(permType=kind, key=key, range_end=range_end)
    request = rpc.AuthRoleGrantPermissionRequest(name=role, perm=permission)
    return _auth("RoleGrantPermission", request, rpc.AuthRoleGrantPermissionResponse)


def role_revoke(
    role: str, key: bytes, range_end: bytes
) -> Operation[rpc.AuthRoleRevokePermissionResponse]:
    """Take exactly this range away from a role."""
    request = rpc.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=range_end)
    return _auth("RoleRevokePermission", request, rpc.AuthRoleRevokePermissionResponse)


# --- members --------------------------------------------------------------------------------------


def member_list(*, linearizable: bool = True) -> Operation[rpc.MemberListResponse]:
    """All members, sorted by id."""
    request = rpc.MemberListRequest(linearizable=linearizable)
    return _cluster("MemberList", request, rpc.MemberListResponse, Effect.READ)


def member_add(
    peer_urls: Iterable[str], *, learner: bool = False
) -> Operation[rpc.MemberAddResponse]:
    """Add a member; it is started afterwards with the cluster it joins."""
    request = rpc.MemberAddRequest(peerURLs=list(peer_urls), isLearner=learner)
    return _cluster("MemberAdd", request, rpc.MemberAddResponse)


def member_remove(member_id: int) -> Operation[rpc.MemberRemoveResponse]:
    """Remove a member for ever; its id never comes back."""
    request = rpc.MemberRemoveRequest(ID=member_id)
    return _cluster("MemberRemove", request, rpc.MemberRemoveResponse)


def member_update(member_id: int, peer_urls: Iterable[str]) -> Operation[rpc.MemberUpdateResponse]:
    """Replace a member's peer URLs."""
    request = rpc.MemberUpdateRequest(ID=member_id, peerURLs=list(peer_urls))
    return _cluster("MemberUpdate", request, rpc.MemberUpdateResponse)


def member_promote(member_id: int) -> Operation[rpc.MemberPromoteResponse]:
    """Make a learner that caught up a voter."""
    request = rpc.MemberPromoteRequest(ID=member_id)
    return _cluster("MemberPromote", request, rpc.MemberPromoteResponse)


# --- maintenance ----------------------------------------------------------------------------------


def status() -> Operation[rpc.StatusResponse]:
    """The answering member's own view."""
    return _maintenance("Status", rpc.StatusRequest(), rpc.StatusResponse)


def alarm_list() -> Operation[rpc.AlarmResponse]:
    """All raised alarms."""
    return _maintenance("Alarm", rpc.AlarmRequest(action=rpc.AlarmRequest.GET), rpc.AlarmResponse)


def alarm_disarm(member_id: int, alarm: rpc.AlarmType) -> Operation[rpc.AlarmResponse]:
    """Lower exactly this alarm; member 0 is no wildcard."""
    request = rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=alarm)
    return _maintenance("Alarm", request, rpc.AlarmResponse, Effect.REPEATABLE)


def defragment() -> Operation[rpc.DefragmentResponse]:
    """Give unused space back on the answering member, which may take long."""
    return Operation(
        "/etcdserverpb.Maintenance/Defragment",
        rpc.DefragmentRequest(),
        rpc.DefragmentResponse,
        Effect.REPEATABLE,
        forever=True,
    )


def hash_kv(revision: int = 0) -> Operation[rpc.HashKVResponse]:
    """The answering member's hash of the key space, to be compared with the others'."""
    return _maintenance("HashKV", rpc.HashKVRequest(revision=revision), rpc.HashKVResponse)


def move_leader(target_id: int) -> Operation[rpc.MoveLeaderResponse]:
    """Hand leadership over; only the leader takes this call."""
    request = rpc.MoveLeaderRequest(targetID=target_id)
    return _maintenance("MoveLeader", request, rpc.MoveLeaderResponse, Effect.ONCE)


def health() -> Operation[health_pb2.HealthCheckResponse]:
    """Whether the answering member serves."""
    request = health_pb2.HealthCheckRequest(service="")
    return Operation(
        "/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse, Effect.READ
    )
