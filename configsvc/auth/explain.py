"""Why a request is allowed or denied, rule by rule (security.md POL-12).

Written beside ``decide``, not inside it: the hot path remembers nothing. A property test holds
the two together. Who may ask for whom, and whether the texts of conditions are shown, is decided
by the caller (``policy.explain_others``).
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc.auth.binding import BoundRule, bind_allow, bind_deny
from configsvc.auth.conditions import holds, show, show_have
from configsvc.auth.decide import decide, roles_of
from configsvc.auth.messages import READWRITE, ROOT, Decision, Request
from configsvc.auth.rules import ALLOW, DENY, Condition, Rule
from configsvc.auth.spans import asked_span
from configsvc.auth.state import AuthState
from configsvc.types import KeySpan, span_of

MATCH = "MATCH"
NO_MATCH = "no match"
NOT_REACHED = "would match (not reached)"

_PERM_WORDS = ("READ", "WRITE", "READWRITE")


class Considered(NamedTuple):
    """One rule that names the action, or one grant. ``reason``: first condition that failed."""

    effect: str  # "deny", "allow", "rbac"
    rule: str
    verdict: str  # MATCH, NO_MATCH or NOT_REACHED
    reason: str


class Explanation(NamedTuple):
    decision: Decision
    auth_revision: int
    policy: str  # "name@version"; empty without a policy
    considered: tuple[Considered, ...]  # denies, allows, grants: the order of judgement

    def without_texts(self) -> Explanation:
        """For callers that may see rule ids but not what the rules say."""
        bare = tuple(line._replace(reason="") for line in self.considered)
        return self._replace(considered=bare)

    def lines(self) -> list[str]:
        """For a terminal."""
        word = "ALLOW" if self.decision.allowed else "DENY"
        policy = f" policy={self.policy}" if self.policy else ""
        head = f"{word}  rule={self.decision.rule}  auth_rev={self.auth_revision}{policy}"
        body = [
            f"{number:>3} {line.effect:<6} {line.rule}  {line.verdict}  {line.reason}".rstrip()
            for number, line in enumerate(self.considered, start=1)
        ]
        return [head, *body]


def explain(state: AuthState, request: Request) -> Explanation:
    """Account of ``decide(state, request)``."""
    decision = decide(state, request)
    roles = roles_of(state, request.principal)
    # System, auth-off and the like are decided before any rule is looked at.
    reached = decision.rule not in ("system", "auth-off")
    lines = []
    for rule in _naming(state, request, DENY):
        bound = bind_deny(rule, request, roles)
        reason = _deny_mismatch(rule, bound, request, roles)
        lines.append(_line(DENY, rule.id, reason, reached, _guard_text(rule, request, roles)))
        reached = reached and bool(reason)
    if ROOT in roles:
        lines.append(_line("rbac", f"role {ROOT}", "", reached, "passes everything but a deny"))
        reached = False
    for rule in _naming(state, request, ALLOW):
        bound = bind_allow(rule, request, roles)
        reason = _allow_mismatch(rule, bound, request, roles)
        lines.append(_line(ALLOW, rule.id, reason, reached, _extent(bound, request)))
    if request.span is not None:
        lines += _grants(state, request, roles, reached)
    policy = f"{state.policy.name}@{state.policy.version}" if state.policy.version else ""
    return Explanation(decision, state.revision, policy, tuple(lines))


def _naming(state: AuthState, request: Request, effect: str) -> list[Rule]:
    rules = state.policy.rules
    return [rule for rule in rules if rule.effect == effect and request.action in rule.actions]


def _line(effect: str, rule: str, mismatch: str, reached: bool, matched: str) -> Considered:
    if mismatch:
        return Considered(effect, rule, NO_MATCH, mismatch)
    return Considered(effect, rule, MATCH if reached else NOT_REACHED, matched)


def _deny_mismatch(
    rule: Rule, bound: BoundRule | None, request: Request, roles: tuple[str, ...]
) -> str:
    for condition in rule.when:
        if holds(condition, request, roles) is False:
            return _have(condition, request, roles)
    if rule.unless and all(holds(c, request, roles) is True for c in rule.unless):
        return "unless holds: " + ", ".join(show(c) for c in rule.unless)
    if bound is None or not bound.touches(_asked(request)):
        return "keys do not meet"
    return ""


def _guard_text(rule: Rule, request: Request, roles: tuple[str, ...]) -> str:
    for condition in rule.unless:
        if holds(condition, request, roles) is not True:
            have = show_have(condition, request, roles)
            return f"unless failed: {show(condition)}, have {have}"
    return ""


def _allow_mismatch(
    rule: Rule, bound: BoundRule | None, request: Request, roles: tuple[str, ...]
) -> str:
    for condition in rule.when:
        if holds(condition, request, roles) is not True:
            return _have(condition, request, roles)
    span = _asked(request)
    if bound is None:
        return "principal's name does not fit into the keys"
    if span is not None and not any(piece.intersects(span) for piece in bound.reach(span)):
        return "keys do not meet"
    return ""


def _extent(bound: BoundRule | None, request: Request) -> str:
    span = _asked(request)
    if bound is None or span is None:
        return ""
    return "" if any(piece.covers(span) for piece in bound.reach(span)) else "covers a part"


def _grants(
    state: AuthState, request: Request, roles: tuple[str, ...], reached: bool
) -> list[Considered]:
    span = _asked(request)
    lines = []
    for role in roles:
        grants = state.roles.get(role, {}) if role != ROOT else {}
        for (key, range_end), perm_type in sorted(grants.items()):
            granted = span_of(key, range_end)
            if span is None or perm_type not in (request.perm, READWRITE):
                continue
            mismatch = "" if granted.intersects(span) else "keys do not meet"
            extent = "" if granted.covers(span) else ", covers a part"
            text = f"{_PERM_WORDS[perm_type]} {_span_text(granted)}{extent}"
            lines.append(_line("rbac", f"role {role}", mismatch, reached, text))
    return lines


def _have(condition: Condition, request: Request, roles: tuple[str, ...]) -> str:
    return f"{condition.attribute} = {show_have(condition, request, roles)}"


def _asked(request: Request) -> KeySpan | None:
    return None if request.span is None else asked_span(request.span)


def _span_text(span: KeySpan) -> str:
    end = "..." if span.end is None else repr(span.end)[2:-1]
    return f"[{repr(span.start)[2:-1]}, {end})"
