"""Policy rules as they apply to one principal at one source.

Conditions that depend on nothing else are settled here, once; a rule that can no longer apply is
dropped, so that most principals meet no rule at all when they ask.

The meaning of "cannot be evaluated" lives here too: no allow, a deny, no help from ``unless``.
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc.auth.conditions import STATIC, holds
from configsvc.auth.messages import Request
from configsvc.auth.rules import BoundPattern, Condition, Rule, bind_pattern, glob_matches
from configsvc.types import KeySpan

_ALL_KEYS = (BoundPattern(KeySpan(b"", None), (), exact=True),)


class BoundRule(NamedTuple):
    """``when`` and ``unless`` are what is left to judge. ``unless`` None: it can never hold."""

    rule: Rule
    patterns: tuple[BoundPattern, ...]
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] | None

    @property
    def is_static(self) -> bool:
        """Whether its spans alone say what it grants."""
        return not self.when and not any(p.segments for p in self.patterns)

    def touches(self, span: KeySpan | None) -> bool:
        """Whether some key of ``span`` could match; no span, or no patterns, is a match.

        A glob is compared with a span of several keys by the literal text before its first star:
        a refusal may reach too far, never too short.
        """
        if span is None:
            return True
        single = span.end == span.start + b"\0"
        for pattern in self.patterns:
            if pattern.span.intersects(span) and (
                not pattern.segments or not single or glob_matches(pattern.segments, span.start)
            ):
                return True
        return False

    def reach(self, span: KeySpan) -> list[KeySpan]:
        """The spans this rule grants, as far as they matter for ``span``.

        A glob grants single keys only: no other span lies inside it for sure.
        """
        single = span.end == span.start + b"\0"
        found = []
        for pattern in self.patterns:
            if not pattern.segments:
                found.append(pattern.span)
            elif (
                single
                and pattern.span.holds(span.start)
                and glob_matches(pattern.segments, span.start)
            ):
                found.append(span)
        return found

    def allows(self, request: Request, roles: tuple[str, ...]) -> bool:
        """Whether what is left of an allow's ``when`` holds."""
        return all(holds(condition, request, roles) is True for condition in self.when)

    def denies(self, request: Request, roles: tuple[str, ...]) -> bool:
        """Whether a deny applies, given that it touches the span."""
        if any(holds(condition, request, roles) is False for condition in self.when):
            return False
        if self.unless is None:
            return True
        return not all(holds(condition, request, roles) is True for condition in self.unless)


def bind_allow(rule: Rule, asking: Request, roles: tuple[str, ...]) -> BoundRule | None:
    """``rule`` for the principal of ``asking``; None when it can never apply to it."""
    for condition in rule.when:
        if condition.attribute in STATIC and holds(condition, asking, roles) is not True:
            return None
    patterns = tuple(p for p in _patterns(rule, asking) if p.exact)
    if not patterns:
        return None
    return BoundRule(rule, patterns, _dynamic(rule.when), None)


def bind_deny(rule: Rule, asking: Request, roles: tuple[str, ...]) -> BoundRule | None:
    """As ``bind_allow``."""
    for condition in rule.when:
        if condition.attribute in STATIC and holds(condition, asking, roles) is False:
            return None
    unless: tuple[Condition, ...] | None = None
    static = [condition for condition in rule.unless if condition.attribute in STATIC]
    if rule.unless and all(holds(condition, asking, roles) is True for condition in static):
        unless = _dynamic(rule.unless)
        if not unless:
            return None
    return BoundRule(rule, _patterns(rule, asking), _dynamic(rule.when), unless)


def _patterns(rule: Rule, asking: Request) -> tuple[BoundPattern, ...]:
    if not rule.keys:
        return _ALL_KEYS
    return tuple(bind_pattern(pattern, asking.principal.name) for pattern in rule.keys)


def _dynamic(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return tuple(c for c in conditions if c.attribute not in STATIC)
