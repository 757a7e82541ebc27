"""What an audit leaf says an operation is: its event and what it is about.

The leaf of a refused operation says the same as that of a done one. Passwords, values and policy
texts are never part of it; names are, cut to the bound of ``audit``.

Not here: the leaf's bytes (``audit.record``), the keys that changed (``applier``).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from configsvc.apply import commands as c
from configsvc.audit.record import NOTHING, Resource
from configsvc.mvcc.messages import DeleteOp, PutOp, TxnOp
from configsvc.mvcc.store import single_key

Described = tuple[str, Resource]

# Operations that are bookkeeping of the cluster and leave no leaf (AUD-4).
SILENT: Final = (c.LeaseCheckpointOp, c.CheckpointSignatureOp)

_MEMBER_EVENTS: Final = {
    "add": "member.add",
    "promote": "member.promote",
    "remove": "member.remove",
    "update": "member.update",
}
_HASH_BYTES: Final = 32


def describe(op: c.Operation) -> Described:
    """Event and resource of ``op``; raises ``KeyError`` for a kind without a row here."""
    return _DESCRIBE[type(op)](op)


def _delete(op: DeleteOp) -> Described:
    start, end = op.span
    if single_key(op.span) is not None:
        return "kv.delete", Resource(start)
    return "kv.delete", Resource(start, range_end=b"\0" if end is None else end)


def _lease_revoke(op: c.LeaseRevokeOp) -> Described:
    lease = op.ids[0] if len(op.ids) == 1 else None
    return "lease.expire" if op.decided_term else "lease.revoke", Resource(lease=lease)


def _permission(op: c.RoleGrantPermissionOp) -> Described:
    perm_type = op.perm_type if 0 <= op.perm_type <= 2 else None
    resource = Resource(op.key, op.range_end or None, role=op.role, perm_type=perm_type)
    return "permission.grant", resource


def _revoke(op: c.RevokeOp) -> Described:
    event = "cert.revoke" if op.what in ("serial", "identity") else "token.revoke"
    until = op.until_ns if op.until_ns > 0 else None
    return event, Resource(object=f"{op.what}:{op.value}", until_ns=until)


def _unrevoke(op: c.UnrevokeOp) -> Described:
    event = "cert.unrevoke" if op.what in ("serial", "identity") else "token.unrevoke"
    return event, Resource(object=f"{op.what}:{op.value}")


def _alarm(op: c.AlarmOp) -> Described:
    event = "alarm.set" if op.activate else "alarm.clear"
    return event, Resource(object=f"alarm:{op.alarm}", target_member=op.member)


def _anchor(op: c.AuditAnchorOp) -> Described:
    root = op.root if len(op.root) == _HASH_BYTES else None
    return "audit.anchor", Resource(
        object=op.origin, size=op.size, digest=root, target_member=op.member
    )


def _bundle(event: str, name: str, version: int, source: str) -> Described:
    digest = sha256(source.encode()).digest()
    return event, Resource(object=name, version=max(version, 0), digest=digest)


_DESCRIBE: Final[dict[type, Callable[[Any], Described]]] = {
    PutOp: lambda op: ("kv.put", Resource(op.key)),
    DeleteOp: _delete,
    TxnOp: lambda _: ("kv.txn", NOTHING),
    c.CompactOp: lambda op: ("kv.compact", Resource(version=max(op.revision, 0))),
    c.LeaseGrantOp: lambda op: ("lease.grant", Resource(lease=op.id)),
    c.LeaseRevokeOp: _lease_revoke,
    c.AuthEnableOp: lambda _: ("auth.enable", NOTHING),
    c.AuthDisableOp: lambda _: ("auth.disable", NOTHING),
    c.UserAddOp: lambda op: ("user.add", Resource(user=op.name)),
    c.UserDeleteOp: lambda op: ("user.delete", Resource(user=op.name)),
    c.UserChangePasswordOp: lambda op: ("user.password", Resource(user=op.name)),
    c.UserGrantRoleOp: lambda op: ("role.grant", Resource(user=op.user, role=op.role)),
    c.UserRevokeRoleOp: lambda op: ("role.revoke", Resource(user=op.user, role=op.role)),
    c.RoleAddOp: lambda op: ("role.add", Resource(role=op.name)),
    c.RoleDeleteOp: lambda op: ("role.delete", Resource(role=op.name)),
    c.RoleGrantPermissionOp: _permission,
    c.RoleRevokePermissionOp: lambda op: (
        "permission.revoke",
        Resource(op.key, op.range_end or None, role=op.role),
    ),
    c.BootstrapOp: lambda op: _bundle(
        "bootstrap", op.trust_domain, op.policy_version, op.policy_source
    ),
    c.PolicyLoadOp: lambda op: _bundle("policy.load", op.name, op.version, op.source),
    c.AlarmOp: _alarm,
    c.MemberAttributesOp: lambda op: (
        "member.publish",
        Resource(target_member=op.member, object=op.name),
    ),
    c.MemberChangeOp: lambda op: (
        _MEMBER_EVENTS.get(op.action, "member.update"),
        Resource(target_member=op.member, object=",".join(op.peer_urls)),
    ),
    c.ClusterVersionOp: lambda op: ("cluster.version", Resource(object=op.version)),
    c.SigningKeyOp: lambda op: (
        "key.publish",
        Resource(target_member=op.member, object=f"{op.use}:{op.kid}:{op.state}"),
    ),
    c.RevokeOp: _revoke,
    c.UnrevokeOp: _unrevoke,
    c.AuditAnchorOp: _anchor,
}
