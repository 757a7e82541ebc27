"""Whether the author of a command may do what it says, with the rights of the state it meets.

One function per kind of operation, whether it stands alone or inside a transaction (N2, N3): the
list of what a request touches comes from ``mvcc.shape.walk``. Nothing here looks at alarms, modes
or leadership, and nothing in apply can leave it out (N26).

Not here: the rules themselves (``auth``), authentication (``identity``), reads (``api``).
"""

from __future__ import annotations

from typing import Final

from configsvc.apply.commands import Envelope
from configsvc.auth.actions import KEY_ACTIONS, KV_DELETE, KV_PUT, KV_RANGE
from configsvc.auth.decide import Decider, View
from configsvc.auth.messages import ROOT, Request
from configsvc.auth.standing import ETCD_JWT, check_principal, check_revision
from configsvc.auth.state import AuthState
from configsvc.errors import PermissionDeniedError
from configsvc.lease.lessor import Lessor
from configsvc.lease.messages import Lease, creator_of
from configsvc.mvcc.messages import DeleteOp, PutOp, RequestOp
from configsvc.mvcc.shape import DELETE, PUT, walk
from configsvc.types import KIND_MEMBER, KIND_SYSTEM, KeySpan, Principal, Source

LEASES_REMEMBERED_MAX: Final = 4_096  # leases whose keys were all judged; emptied when full
VIEWS_REMEMBERED_MAX: Final = 8_192  # decoded actors seen; emptied when full
RULES_NAMED_MAX: Final = 4  # rules joined in one record

_Actor = tuple[Principal, Source, View]


class Rights:
    """Judges commands.

    ``rule`` is who decided last, allowed or denied, and ``roles`` are those the author held then;
    both go into the audit record.
    """

    __slots__ = ("_actors", "_auth", "_decider", "_lease_views", "_lessor", "roles", "rule")

    def __init__(self, auth: AuthState, decider: Decider, lessor: Lessor) -> None:
        self._auth = auth
        self._decider = decider
        self._lessor = lessor
        self.rule = ""
        self.roles: tuple[str, ...] = ()
        # By identity of the principal object: one decoded actor writes many entries.
        self._actors: dict[int, _Actor] = {}
        # (view, lease, epoch) by the lease's id: its keys up to that epoch are writable under that
        # view. An id may be granted anew: then it is another lease, with epochs of its own.
        self._lease_views: dict[int, tuple[View, Lease, int]] = {}

    def forget(self) -> None:
        """Before an entry: nobody has decided anything."""
        self.rule = ""
        self.roles = ()

    def view(self, env: Envelope) -> View:
        """The author's rights now.

        Raises:
            RequestError: the author does not stand any more (see ``auth.standing``).
        """
        principal, source = env[1], env[2]
        check_principal(self._auth, principal, env[8])
        known = self._actors.get(id(principal))
        if (
            known is not None
            and known[0] is principal
            and known[1] is source
            and known[2].version == self._auth.version
        ):
            view = known[2]
            self.roles = view.roles
            return view
        view = self._decider.view(principal, source)
        self.roles = view.roles
        if len(self._actors) >= VIEWS_REMEMBERED_MAX:
            self._actors.clear()
        self._actors[id(principal)] = (principal, source, view)
        return view

    # --- keys ------------------------------------------------------------------------------------

    def put(self, view: View, env: Envelope, op: PutOp) -> None:
        """Raise ``PermissionDeniedError`` unless ``op`` is allowed.

        WRITE on the key; READ for prev_kv; for a lease WRITE on every key already on it, or being
        its creator while it is empty.
        """
        check_revision(self._auth, env[1])
        key = op.key
        rule = view.granted_put(key)
        if rule is None:
            self._key(view, env, KV_PUT, KeySpan(key, key + b"\0"), len(op.value))
        else:
            self.rule = rule
        if op.prev_kv:
            self._key(view, env, KV_RANGE, KeySpan(key, key + b"\0"))
        if op.lease:
            lease = self._lessor.leases.get(op.lease)
            if lease is not None:  # an unknown lease is told as such, after this
                self.lease_write(view, env, lease)

    def sure_view(self, principal: Principal, source: Source) -> View | None:
        """The author's rights if it surely stands; None: ask ``view``, which tells the same.

        Who stood when its view was made stands while the state has that version, unless there are
        denials, which name times. A put that this view grants may be made without ``put``.
        """
        known = self._actors.get(id(principal))
        auth = self._auth
        if known is None or known[0] is not principal or known[1] is not source or auth.denied:
            return None
        view = known[2]
        return None if view.version != auth.version or principal.key_id == ETCD_JWT else view

    def delete(self, view: View, env: Envelope, op: DeleteOp) -> None:
        """WRITE on the whole span; READ too for prev_kv."""
        check_revision(self._auth, env[1])
        self._key(view, env, KV_DELETE, op.span)
        if op.prev_kv:
            self._key(view, env, KV_RANGE, op.span)

    def request(self, view: View, env: Envelope, op: RequestOp) -> None:
        """Every compare and operation, both branches, every depth."""
        check_revision(self._auth, env[1])
        rules: dict[str, None] = {}
        for visit in walk(op):
            inner = visit.op
            if visit.kind == PUT and isinstance(inner, PutOp):
                self.put(view, env, inner)
            elif visit.kind == DELETE and isinstance(inner, DeleteOp):
                self.delete(view, env, inner)
            else:
                self._key(view, env, KV_RANGE, visit.span)
            rules[self.rule] = None
        self.rule = "+".join(list(rules)[:RULES_NAMED_MAX])

    def _key(
        self, view: View, env: Envelope, action: str, span: KeySpan, value_bytes: int | None = None
    ) -> None:
        rule = view.granted(action, span)
        if rule is not None:
            self.rule = rule
            return
        decision = view.judge(
            Request(
                env.principal,
                env.source,
                action,
                span,
                KEY_ACTIONS[action],
                dict(env.facts),
                env.reason,
                env.ticket,
                value_bytes,
                env.time_ns,
            )
        )
        self.rule = decision.rule
        if not decision.allowed:
            raise PermissionDeniedError

    # --- leases ----------------------------------------------------------------------------------

    def lease_write(self, view: View, env: Envelope, lease: Lease) -> None:
        """WRITE on every attached key; an empty lease is its creator's and root's."""
        if not lease.keys:
            if creator_of(env.principal) == lease.creator:
                self.rule = self.rule or "lease-creator"
            elif view.is_root:
                self.rule = self.rule or ROOT
            else:
                self.rule = "default"
                raise PermissionDeniedError
            return
        known = self._lease_views.get(lease.id)
        judged = known[2] if known is not None and known[0] is view and known[1] is lease else 0
        rule = self.rule
        certain = True
        # Newest keys come last: what was judged before is not judged again.
        for key, epoch in reversed(lease.keys.items()):
            if epoch <= judged:
                break
            granted = view.granted_put(key)
            if granted is None:
                certain = False
                self._key(view, env, KV_PUT, KeySpan(key, key + b"\0"), 0)
            else:
                self.rule = granted
        self.rule = rule or self.rule
        if certain:
            if len(self._lease_views) >= LEASES_REMEMBERED_MAX:
                self._lease_views.clear()
            self._lease_views[lease.id] = (view, lease, lease.epoch)

    def judge_lease(
        self, principal: Principal, source: Source, lease_id: int, time_ns: int
    ) -> None:
        """Whether a caller may renew or revoke a lease; one that does not exist harms nobody.

        Raises:
            PermissionDeniedError: it may not.
            RequestError: the caller does not stand any more.
        """
        self.forget()
        env = Envelope(0, principal, source, "", "", b"", (), "", time_ns, False, 0, 0)
        view = self.view(env)
        lease = self._lessor.leases.get(lease_id)
        if lease is not None:
            self.lease_write(view, env, lease)

    # --- everything else -------------------------------------------------------------------------

    def capability(self, view: View, env: Envelope, action: str) -> None:
        """Raise ``PermissionDeniedError`` unless the author holds ``action``."""
        decision = view.judge(
            Request(
                env.principal,
                env.source,
                action,
                facts=dict(env.facts),
                reason=env.reason,
                ticket=env.ticket,
                time_ns=env.time_ns,
            )
        )
        self.rule = decision.rule
        if not decision.allowed:
            raise PermissionDeniedError

    def cluster_itself(self, env: Envelope, member: int = 0) -> None:
        """Raise unless the cluster is the author, on the named member's behalf if one is named."""
        self.rule = "system"
        if not is_cluster(env) or (member and env.accepted_by != member):
            self.rule = "default"
            raise PermissionDeniedError


def is_cluster(env: Envelope) -> bool:
    """Whether the cluster itself or a member is the author."""
    return env.principal.kind in (KIND_SYSTEM, KIND_MEMBER)
