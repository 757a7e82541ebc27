"""One function per kind of operation: judge, check, then change (A2).

Each takes (command, context) and returns a ``Change``; a refusal is an exception, raised before
anything was changed. What may change very many keys is only computed here and made by the
applier, which tells it first.

Rights come first, alarms second, conditions of the state third, so that an alarm never changes who
may do what (N26) and a refused author learns nothing about the state.

Not here: the order of a whole entry, leaf and digest (``applier``); what is allowed (``rights``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from configsvc.apply import cluster
from configsvc.apply import commands as c
from configsvc.apply.cluster import table_changes
from configsvc.apply.rights import Rights, is_cluster
from configsvc.apply.state import CORRUPT, META_COMPACT, NO_SPACE, ApplyState, meta_change
from configsvc.auth.actions import revoking
from configsvc.auth.messages import Change as AuthChange
from configsvc.errors import (
    ConflictError,
    CorruptError,
    InvalidArgumentError,
    NoSpaceError,
)
from configsvc.lease.messages import Lease, creator_of
from configsvc.mvcc.messages import DeleteOp, KeyValue, PutOp, Row, TxnOp
from configsvc.mvcc.shape import check_request, is_write, quota_cost
from configsvc.mvcc.store import Staged
from configsvc.mvcc.txn import stage_txn

# Put by the accepting member once it has checked the old password of a user's own change.
OLD_PASSWORD_FACT: Final = ("auth.old_password", "verified")

_NO_TABLES: Final[tuple[c.TableChange, ...]] = ()


class Change(NamedTuple):
    """What an operation did."""

    result: c.Result
    rows: tuple[Row, ...] = ()
    prevs: tuple[KeyValue | None, ...] = ()
    tables: tuple[c.TableChange, ...] = _NO_TABLES
    keys: bool = False  # the leaf tells the changed keys, be they none
    make: Callable[[], None] | None = None  # the change itself, still to be made; cannot fail


class Context(NamedTuple):
    """Where an operation runs."""

    state: ApplyState
    rights: Rights
    index: int  # type: ignore[assignment]
    term: int


Operate = Callable[[c.Envelope, Any, Context], Change]


def refuse_alarms(state: ApplyState, *, grows: bool) -> None:
    """Refuse under CORRUPT, and under NOSPACE what ``grows`` (N3, N4)."""
    if state.has_alarm(CORRUPT):
        raise CorruptError
    if grows and state.has_alarm(NO_SPACE):
        raise NoSpaceError


def commit(state: ApplyState, staged: Staged) -> None:
    """Make a staged change of keys and move their leases."""
    moves = state.store.commit(staged)
    if moves is not None:
        move = state.lessor.move
        for key, before, after in moves:
            move(key, before, after)


def _staged(state: ApplyState, staged: Staged) -> Change:
    """A change of keys that ``make`` makes."""
    rows, prevs, result = staged
    return Change(result, rows, prevs, keys=True, make=partial(commit, state, staged))


# --- keys ----------------------------------------------------------------------------------------


def put(env: c.Envelope, op: PutOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.put(rights.view(env), env, op)
    if state.alarms:
        refuse_alarms(state, grows=True)
    check_request(op)
    staged = state.store.stage_put(op, state.lessor.leases)
    commit(state, staged)
    return Change(staged.result, staged.rows, staged.prevs, keys=True)


def delete(env: c.Envelope, op: DeleteOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.delete(rights.view(env), env, op)
    if state.alarms:
        refuse_alarms(state, grows=False)
    check_request(op)
    return _staged(state, state.store.stage_delete(op))


def txn(env: c.Envelope, op: TxnOp, context: Context) -> Change:
    state, rights, _, _ = context
    view = rights.view(env)
    check_request(op)  # first: it bounds what the walker has to look at
    rights.request(view, env, op)
    if state.alarms and is_write(op):
        refuse_alarms(state, grows=quota_cost(op) > 0)
    return _staged(state, stage_txn(state.store, op, state.lessor.leases))


def compact(env: c.Envelope, op: c.CompactOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, "kv.compact")
    refuse_alarms(state, grows=False)
    state.store.compact(op.revision)
    return Change(c.Done(), tables=(meta_change(META_COMPACT, b"%d" % op.revision),))


# --- leases --------------------------------------------------------------------------------------


def lease_grant(env: c.Envelope, op: c.LeaseGrantOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, "lease.grant")
    refuse_alarms(state, grows=True)
    if not op.id:
        raise InvalidArgumentError("configsvc: lease without an id")
    lease = state.lessor.grant(op.id, op.ttl, creator_of(env.principal))
    return Change(c.Granted(lease.id, lease.ttl_s), tables=(_lease_row(lease),))


def lease_revoke(env: c.Envelope, op: c.LeaseRevokeOp, context: Context) -> Change:
    """A client's revoke names one lease; an expiry names many and skips those that are gone.

    All keys go in one revision, in key order (W18).
    """
    state, rights, _, term = context
    view = rights.view(env)
    lessor = state.lessor
    if op.decided_term:
        rights.cluster_itself(env)
        if op.decided_term != term:
            raise ConflictError("configsvc: expiry was decided in another term")
        leases = [lessor.leases[i] for i in sorted(set(op.ids)) if i in lessor.leases]
    else:
        leases = [lessor.get(i) for i in dict.fromkeys(op.ids)]
        for lease in leases:
            rights.lease_write(view, env, lease)
    refuse_alarms(state, grows=False)
    keys = sorted(key for lease in leases for key in lease.keys)
    tables = tuple(c.TableChange("leases", (lease.id,), None) for lease in leases)
    staged = state.store.stage_delete_keys(keys)

    def make() -> None:
        state.store.commit(staged)  # each key hung on one of the leases, which end with it
        for lease in leases:
            lessor.revoke(lease.id)

    return Change(c.Done(), staged.rows, staged.prevs, tables, keys=True, make=make)


def lease_checkpoint(env: c.Envelope, op: c.LeaseCheckpointOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.cluster_itself(env)
    lessor = state.lessor
    noted = [lease_id for lease_id, left in op.remaining if lessor.checkpoint(lease_id, left)]
    return Change(c.Done(), tables=tuple(_lease_row(lessor.leases[i]) for i in noted))


def _lease_row(lease: Lease) -> c.TableChange:
    return c.TableChange("leases", (lease.id,), (lease.ttl_s, lease.creator, lease.remaining_s))


# --- users, roles, revocation --------------------------------------------------------------------


def _administer(
    make: Callable[[ApplyState, Any, c.Envelope], tuple[AuthChange, ...]],
    capability: str | None = "auth.admin",
) -> Operate:
    """An operation on the auth state that needs ``capability``; None: judged by ``make``."""

    def operate(env: c.Envelope, op: Any, context: Context) -> Change:
        rights = context.rights
        view = rights.view(env)
        if capability is not None:
            rights.capability(view, env, capability)
        return Change(c.Done(), tables=table_changes(make(context.state, op, env)))

    return operate


def change_password(env: c.Envelope, op: c.UserChangePasswordOp, context: Context) -> Change:
    """An administrator's, or the user's own once the old password was checked (3.5)."""
    state, rights, _, _ = context
    view = rights.view(env)
    own = env.principal.uid and env.principal.user == op.name
    if own and OLD_PASSWORD_FACT in env.facts:
        rights.rule = "own-password"
    else:
        rights.capability(view, env, "auth.admin")
    changes = state.auth.user_change_password(op.name, op.password_hash)
    return Change(c.Done(), tables=table_changes(changes))


def revoke(env: c.Envelope, op: c.RevokeOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, revoking(op.what))
    changes = state.auth.revoke(op.what, op.value, op.until_ns, env.time_ns)
    return Change(c.Done(), tables=table_changes(changes))


def unrevoke(env: c.Envelope, op: c.UnrevokeOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, revoking(op.what))
    return Change(c.Done(), tables=table_changes(state.auth.unrevoke(op.what, op.value)))


# --- the cluster ---------------------------------------------------------------------------------


def bootstrap(env: c.Envelope, op: c.BootstrapOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.cluster_itself(env)
    return Change(c.Done(), tables=cluster.bootstrap(state, op, env.new_uid))


def policy_load(env: c.Envelope, op: c.PolicyLoadOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, "policy.load")
    return Change(c.Done(), tables=cluster.load_policy(state, op))


def alarm(env: c.Envelope, op: c.AlarmOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.capability(rights.view(env), env, "maintenance.alarm")
    tables, listed = cluster.alarm(state, op)
    return Change(c.Done(listed), tables=tables)


def member_attributes(env: c.Envelope, op: c.MemberAttributesOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.cluster_itself(env, op.member)
    return Change(c.Done(), tables=state.members.publish(op))


def member_change(env: c.Envelope, op: c.MemberChangeOp, context: Context) -> Change:
    state, rights, index, _ = context
    rights.capability(rights.view(env), env, "cluster.admin")
    tables = state.members.change(op)
    if op.action == "remove":
        tables += cluster.drop_keys_of(state, op.member, index)
    return Change(c.Done(), tables=tables)


def cluster_version(env: c.Envelope, op: c.ClusterVersionOp, context: Context) -> Change:
    """The cluster raises it; lowering it takes an administrator."""
    state, rights, _, _ = context
    view = rights.view(env)
    may_lower = not is_cluster(env)
    if may_lower:
        rights.capability(view, env, "maintenance.downgrade")
    else:
        rights.cluster_itself(env)
    return Change(c.Done(), tables=cluster.cluster_version(state, op, may_lower=may_lower))


def signing_key(env: c.Envelope, op: c.SigningKeyOp, context: Context) -> Change:
    """A member publishes its own; an administrator may retire any."""
    state, rights, index, _ = context
    view = rights.view(env)
    if is_cluster(env):
        rights.cluster_itself(env, op.member)
    else:
        rights.capability(view, env, "keys.rotate")
    return Change(c.Done(), tables=cluster.signing_key(state, op, index))


def audit_anchor(env: c.Envelope, op: c.AuditAnchorOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.cluster_itself(env, op.member)
    return Change(c.Done(), tables=cluster.audit_anchor(state, op))


def checkpoint_signature(env: c.Envelope, op: c.CheckpointSignatureOp, context: Context) -> Change:
    state, rights, _, _ = context
    rights.cluster_itself(env, op.member)
    return Change(c.Done(), tables=cluster.checkpoint_signature(state, op))


OPERATIONS: Final[dict[type, Operate]] = {
    PutOp: put,
    DeleteOp: delete,
    TxnOp: txn,
    c.CompactOp: compact,
    c.LeaseGrantOp: lease_grant,
    c.LeaseRevokeOp: lease_revoke,
    c.LeaseCheckpointOp: lease_checkpoint,
    c.AuthEnableOp: _administer(lambda s, _op, _e: s.auth.enable()),
    c.AuthDisableOp: _administer(lambda s, _op, _e: s.auth.disable()),
    c.UserAddOp: _administer(
        lambda s, op, e: s.auth.user_add(op.name, op.password_hash, op.no_password, e.new_uid)
    ),
    c.UserDeleteOp: _administer(lambda s, op, _e: s.auth.user_delete(op.name)),
    c.UserChangePasswordOp: change_password,
    c.UserGrantRoleOp: _administer(lambda s, op, _e: s.auth.user_grant_role(op.user, op.role)),
    c.UserRevokeRoleOp: _administer(lambda s, op, _e: s.auth.user_revoke_role(op.user, op.role)),
    c.RoleAddOp: _administer(lambda s, op, _e: s.auth.role_add(op.name)),
    c.RoleDeleteOp: _administer(lambda s, op, _e: s.auth.role_delete(op.name)),
    c.RoleGrantPermissionOp: _administer(
        lambda s, op, _e: s.auth.role_grant_permission(op.role, op.perm_type, op.key, op.range_end)
    ),
    c.RoleRevokePermissionOp: _administer(
        lambda s, op, _e: s.auth.role_revoke_permission(op.role, op.key, op.range_end)
    ),
    c.BootstrapOp: bootstrap,
    c.PolicyLoadOp: policy_load,
    c.AlarmOp: alarm,
    c.MemberAttributesOp: member_attributes,
    c.MemberChangeOp: member_change,
    c.ClusterVersionOp: cluster_version,
    c.SigningKeyOp: signing_key,
    c.RevokeOp: revoke,
    c.UnrevokeOp: unrevoke,
    c.AuditAnchorOp: audit_anchor,
    c.CheckpointSignatureOp: checkpoint_signature,
}
