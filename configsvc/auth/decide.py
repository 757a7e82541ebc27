"""Principal + action + key span -> decision with its reason.

Order (POL-2): a matching deny refuses, also root; then an RBAC grant or a matching allow permits;
then nothing permits. An allow, like a grant, must cover the whole span, alone or together with
others; a deny matches as soon as it intersects it (POL-3, N52, N53).

A ``View`` is what the state says about one principal at one source, worked out once: which rules
can still apply, and the merged spans per action. ``Decider`` keeps views until the state's
version changes (AZ-2). ``View.granted`` is the hot path: it says who grants, or None when only
``View.judge``, which looks at the whole request, can tell.

Not here: whether the principal still stands (``standing``), which operation needs which action
(``api``, ``apply``), the account of a decision for people (``explain``).
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.actions import KEY_ACTIONS, KV_DELETE, KV_PUT, KV_RANGE, LEASE_GRANT
from configsvc.auth.binding import BoundRule, bind_allow, bind_deny
from configsvc.auth.messages import READ, READWRITE, ROOT, WRITE, Decision, Request
from configsvc.auth.rules import DENY
from configsvc.auth.spans import SpanUnion, asked_span
from configsvc.auth.state import AuthState
from configsvc.errors import ensure
from configsvc.limits import DECISION_VIEWS_MAX
from configsvc.types import (
    KIND_MEMBER,
    KIND_SERVER,
    KIND_SYSTEM,
    KeySpan,
    Principal,
    Source,
    span_of,
)

BY_DEFAULT: Final = Decision(False, "default")

_Piece = tuple[KeySpan, str]
_NO_SPANS: Final = SpanUnion()


class View:
    """Rights of one principal at one source, as of one state version. Immutable once built."""

    __slots__ = (
        "_allows",
        "_denied",
        "_denies",
        "_fixed",
        "_pieces",
        "_put_denied",
        "_put_grants",
        "_unions",
        "put_always",
        "roles",
        "version",
    )

    def __init__(self, state: AuthState, principal: Principal, source: Source) -> None:
        self.version = state.version
        self.roles = roles_of(state, principal)
        self._fixed = _fixed(state, principal, self.roles)
        self._denies: dict[str, list[BoundRule]] = {}
        self._allows: dict[
            str, list[BoundRule]
        ] = {}  # those that need the request, and capabilities
        self._pieces: dict[int, list[_Piece]] = {READ: [], WRITE: []}
        static: dict[str, list[_Piece]] = {action: [] for action in KEY_ACTIONS}
        if self._fixed is None or self._fixed.rule == ROOT:
            self._bind_rules(state, principal, source, static)
        if self._fixed is None:
            self._collect_grants(state)
        self._denied = {
            action: SpanUnion((p.span, "") for bound in rules for p in bound.patterns)
            for action, rules in self._denies.items()
            if action in KEY_ACTIONS
        }
        self._unions = {
            action: SpanUnion(self._pieces[perm] + static[action])
            for action, perm in KEY_ACTIONS.items()
        }
        self._put_grants = self._unions[KV_PUT]
        self._put_denied = self._denied.get(KV_PUT)
        # Who lets every key be written, whatever else a request says; None: it depends.
        self.put_always: str | None = None
        if self._put_denied is None and self._fixed is not None and self._fixed.allowed:
            self.put_always = self._fixed.rule

    def _bind_rules(
        self,
        state: AuthState,
        principal: Principal,
        source: Source,
        static: dict[str, list[_Piece]],
    ) -> None:
        asking = Request(principal, source, "")
        for rule in state.policy.rules:
            bind = bind_deny if rule.effect == DENY else bind_allow
            bound = bind(rule, asking, self.roles)
            if bound is None:
                continue
            for action in rule.actions:
                if rule.effect == DENY:
                    self._denies.setdefault(action, []).append(bound)
                elif bound.is_static and action in KEY_ACTIONS:
                    static[action] += [(p.span, rule.id) for p in bound.patterns]
                else:
                    self._allows.setdefault(action, []).append(bound)

    def _collect_grants(self, state: AuthState) -> None:
        for role in self.roles:
            label = f"rbac:{role}"
            for (key, range_end), perm_type in state.roles.get(role, {}).items():
                piece = (span_of(key, range_end), label)
                for perm in (READ, WRITE):
                    if perm_type in (perm, READWRITE):
                        self._pieces[perm].append(piece)

    # --- hot ----------------------------------------------------------------------------------

    def granted_put(self, key: bytes) -> str | None:
        """Who surely lets ``key`` be written, whatever else the request says; None: ask judge."""
        denied = self._put_denied
        if denied is not None and denied.holds(key):
            return None
        if self._fixed is not None:
            return self._fixed.rule if self._fixed.allowed else None
        return self._put_grants.granting(key)

    def granted(self, action: str, span: KeySpan) -> str | None:
        """Who surely grants a key action on ``span``; None: ask judge."""
        end = span.end
        if end is not None and end <= span.start:
            span = asked_span(span)
        denied = self._denied.get(action)
        if denied is not None and denied.intersects(span):
            return None
        if self._fixed is not None:
            return self._fixed.rule if self._fixed.allowed else None
        return self._unions[action].covering(span)

    # --- whole --------------------------------------------------------------------------------

    def judge(self, request: Request) -> Decision:
        """The decision on ``request``, whose principal and source are this view's."""
        action, span = request.action, request.span
        ensure(
            (span is not None) == (action in KEY_ACTIONS), "key actions, and only they, have spans"
        )
        if span is not None:
            span = asked_span(span)
        for bound in self._denies.get(action, ()):
            if bound.touches(span) and bound.denies(request, self.roles):
                return Decision(False, bound.rule.id)
        if self._fixed is not None:
            return self._fixed
        if span is None:
            return self._judge_capability(request)
        label = self._covering(request, span)
        return BY_DEFAULT if label is None else Decision(True, label)

    def _judge_capability(self, request: Request) -> Decision:
        for bound in self._allows.get(request.action, ()):
            if bound.allows(request, self.roles):
                return Decision(True, bound.rule.id)
        if request.action == LEASE_GRANT and self.may_write_something:
            return Decision(True, "any-write")
        return BY_DEFAULT

    def _covering(self, request: Request, span: KeySpan) -> str | None:
        if request.perm != KEY_ACTIONS[request.action]:
            # A right beside the action's own, which only RBAC can give.
            return SpanUnion(self._pieces[request.perm]).covering(span)
        union = self._unions[request.action]
        label = union.covering(span)
        if label is not None:  # the answer ``granted`` gives, so both always name the same grant
            return label
        extra = [
            (piece, bound.rule.id)
            for bound in self._allows.get(request.action, ())
            if bound.allows(request, self.roles)
            for piece in bound.reach(span)
        ]
        return SpanUnion([*union.pieces(), *extra]).covering(span) if extra else None

    @property
    def may_write_something(self) -> bool:
        """Whether any key could be written at all: the default right to grant leases (3.5)."""
        if self._fixed is not None:
            return self._fixed.allowed
        writes = (KV_PUT, KV_DELETE)
        return any(self._unions[action] or self._allows.get(action) for action in writes)

    @property
    def is_root(self) -> bool:
        """Whether everything but an explicit deny passes."""
        return self._fixed is not None and self._fixed.allowed

    def readable(self) -> list[KeySpan]:
        """Spans that RBAC and unconditional rules let this principal read; denies not taken out."""
        if self.is_root:
            return [KeySpan(b"", None)]
        return self._unions[KV_RANGE].spans()


class Decider:
    """Views by principal and source, all dropped when the state's version has moved."""

    __slots__ = ("_state", "_version", "_views")

    def __init__(self, state: AuthState) -> None:
        self._state = state
        self._version = state.version
        self._views: dict[tuple[str, str, str, str, str, str], View] = {}

    def view(self, principal: Principal, source: Source) -> View:
        """What ``principal`` may do from ``source`` now."""
        if self._version != self._state.version or len(self._views) > DECISION_VIEWS_MAX:
            self._views.clear()
            self._version = self._state.version
        # All that a decision reads of them: two tokens of one user share a view.
        key = (
            principal.kind,
            principal.name,
            principal.user,
            principal.uid,
            principal.method,
            source.ip,
        )
        found = self._views.get(key)
        if found is None:
            found = self._views[key] = View(self._state, principal, source)
        return found

    def decide(self, request: Request) -> Decision:
        """As ``decide``, with the view cached."""
        return self.view(request.principal, request.source).judge(request)


def decide(state: AuthState, request: Request) -> Decision:
    """The decision on ``request`` with the rights of ``state``."""
    return View(state, request.principal, request.source).judge(request)


def check_key(view: View, key: bytes, write: bool) -> bool:
    """Whether ``key`` may surely be put or read; False means: ask ``View.judge``."""
    if write:
        return view.granted_put(key) is not None
    return view.granted(KV_RANGE, KeySpan(key, key + b"\0")) is not None


def roles_of(state: AuthState, principal: Principal) -> tuple[str, ...]:
    """Roles that count for ``principal``; none for an unknown or re-created user (ID-5, ID-8)."""
    if principal.kind in (KIND_MEMBER, KIND_SERVER):
        return ()
    user = state.users.get(principal.user)
    if user is None or (principal.uid and principal.uid != user.uid):
        return ()
    return user.roles


def _fixed(state: AuthState, principal: Principal, roles: tuple[str, ...]) -> Decision | None:
    """What is decided without looking for grants; only root can still meet a deny."""
    if principal.kind == KIND_SYSTEM:
        return Decision(True, "system")
    if state.insecure and not state.enabled:
        return Decision(True, "auth-off")
    if principal.kind in (KIND_MEMBER, KIND_SERVER):
        return BY_DEFAULT
    return Decision(True, ROOT) if ROOT in roles else None
