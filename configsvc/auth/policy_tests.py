"""Runs the tests that live beside policy rules (security.md POL-10).

A test names a principal with its roles, an action and keys, and what must come out. The roles'
grants are no part of a bundle, so a test that needs one gives it (``grants``). Strict coverage:
each rule decides at least one test, and at least one test of its actions comes out the other way.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from configsvc.auth.actions import ACTIONS, KEY_ACTIONS
from configsvc.auth.bundle import Bundle, Place, PolicyTest, key_pattern
from configsvc.auth.conditions import FORMAT_FACT
from configsvc.auth.decide import decide
from configsvc.auth.messages import READ, READWRITE, WRITE, Decision, Request, User
from configsvc.auth.operands import FORMATS, KINDS, METHODS
from configsvc.auth.rules import DENY, KEY, KeyPattern, Rule, bind_pattern
from configsvc.auth.state import AuthState
from configsvc.errors import PolicyInvalidError
from configsvc.types import KIND_USER, KeySpan, Principal, Source

_REQUEST_WORDS: Final = frozenset(
    {"principal", "action", "key", "prefix", "range", "source", "method", "reason", "ticket"}
    | {"value_bytes", "formats", "grants"}
)
_KEY_WORDS: Final = ("key", "prefix", "range")
_PERMS: Final = {"read": READ, "write": WRITE, "readwrite": READWRITE}
_GRANTS: Final = "test-grants"


class _Case(NamedTuple):
    state: AuthState
    request: Request
    allowed: bool
    rule: str  # empty: any


class _BadTest(Exception):
    """A test that does not say what it must; its text says what is missing."""


def run_tests(bundle: Bundle, *, strict: bool = True) -> list[str]:
    """Everything that keeps the bundle from being loaded; empty when it may be.

    ``strict``: also report rules that no test decides, or that no test sees decided otherwise.
    """
    failures: list[str] = []
    outcomes: list[tuple[str, Decision]] = []
    for test in bundle.tests:
        try:
            case = _case(bundle, test)
        except (_BadTest, PolicyInvalidError) as problem:
            failures.append(f"{test.where}: test {test.name!r}: {problem}")
            continue
        found = decide(case.state, case.request)
        outcomes.append((case.request.action, found))
        right_rule = not case.rule or case.rule in found.rule.split("+")
        if found.allowed != case.allowed or not right_rule:
            failures.append(
                f"{test.where}: test {test.name!r}: expected {_words(case.allowed, case.rule)}, "
                f"found {_words(found.allowed, found.rule)}"
            )
    if strict:
        for rule in bundle.policy.rules:
            failures += _uncovered(rule, outcomes)
    return failures


def _uncovered(rule: Rule, outcomes: list[tuple[str, Decision]]) -> list[str]:
    denies = rule.effect == DENY
    mine = [decision for action, decision in outcomes if action in rule.actions]
    found = []
    if not any(
        decision.allowed != denies and rule.id in decision.rule.split("+") for decision in mine
    ):
        found.append(f"rule {rule.id}: no test is decided by it")
    if not any(decision.allowed == denies for decision in mine):
        other = "allowed" if denies else "denied"
        found.append(f"rule {rule.id}: no test of its actions is {other}")
    return found


def _case(bundle: Bundle, test: PolicyTest) -> _Case:
    asked = test.request
    for word in asked:
        _must(word in _REQUEST_WORDS, f"unknown element {word!r} in request")
    state = AuthState()
    state.policy = bundle.policy
    state.enabled = True
    principal = _principal(state, asked)
    action = asked.get("action")
    _must(isinstance(action, str) and action in ACTIONS, "request names no known action")
    expect = test.expect
    for word in expect:
        _must(word in ("decision", "rule"), f"unknown element {word!r} in expect")
    _must(expect.get("decision") in ("allow", "deny"), "expect.decision must be allow or deny")
    request = Request(
        principal=principal,
        source=Source(_text(asked, "source"), "TLSv1.3", "other", ""),
        action=str(action),
        span=_span(asked, str(action)),
        perm=KEY_ACTIONS.get(str(action), READ),
        facts=_facts(asked),
        reason=_text(asked, "reason"),
        ticket=_text(asked, "ticket"),
        value_bytes=_size(asked),
    )
    return _Case(state, request, expect["decision"] == "allow", _text(expect, "rule"))


def _principal(state: AuthState, asked: dict[str, Any]) -> Principal:
    who = asked.get("principal")
    _must(isinstance(who, dict), "request needs a principal table")
    who = dict(who or {})
    for word in who:
        _must(word in ("kind", "name", "roles"), f"unknown element {word!r} in principal")
    kind, name = who.get("kind", KIND_USER), who.get("name", "somebody")
    method = asked.get("method", "certificate")
    _must(kind in KINDS, "principal.kind is not known")
    _must(method in METHODS, "method is not known")
    roles = who.get("roles", [])
    _must(_is_texts(roles), "principal.roles must be a list of texts")
    user = name if kind == KIND_USER else f"{kind}/{name}"
    state.roles[_GRANTS] = _grants(asked)
    held = tuple(sorted({*roles, _GRANTS}))
    state.users[user] = User(user, "00", "", True, held, 0)
    return Principal(kind, str(name), user, "00", "", "", "", str(method), "", "", 0)


def _grants(asked: dict[str, Any]) -> dict[tuple[bytes, bytes], int]:
    found: dict[tuple[bytes, bytes], int] = {}
    grants = asked.get("grants", [])
    _must(isinstance(grants, list), "grants must be a list of tables")
    for grant in grants:
        _must(isinstance(grant, dict) and grant.get("perm") in _PERMS, "a grant needs perm")
        span = _pattern_span({word: v for word, v in grant.items() if word != "perm"})
        found[(span.start, b"\0" if span.end is None else span.end)] = _PERMS[grant["perm"]]
    return found


def _span(asked: dict[str, Any], action: str) -> KeySpan | None:
    given: dict[str, Any] = {word: asked[word] for word in _KEY_WORDS if word in asked}
    if action not in KEY_ACTIONS:
        _must(not given, "keys do not go with this action")
        return None
    return _pattern_span(given)


def _pattern_span(table: dict[str, Any]) -> KeySpan:
    pattern: KeyPattern = key_pattern(Place("", "test"), table, globs=False)
    bound = bind_pattern(pattern, "")
    _must(bound.exact, "a test names keys as they are")
    _must(pattern.operator != KEY or bool(pattern.texts[0]), "key is empty")
    return bound.span


def _facts(asked: dict[str, Any]) -> dict[str, str]:
    if "formats" not in asked:
        return {}
    formats = asked["formats"]
    _must(_is_texts(formats) and set(formats) <= FORMATS, "formats is a list of known formats")
    return {FORMAT_FACT: ",".join(sorted(formats))}


def _size(asked: dict[str, Any]) -> int | None:
    size = asked.get("value_bytes")
    plain = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    _must(size is None or plain, "value_bytes must be a whole number")
    return size


def _text(table: dict[str, Any], word: str) -> str:
    value = table.get(word, "")
    _must(isinstance(value, str), f"{word} must be a text")
    return str(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _must(condition: bool, problem: str) -> None:
    if not condition:
        raise _BadTest(problem)


def _words(allowed: bool, rule: str) -> str:
    return f"{'allow' if allowed else 'deny'}{f' by {rule}' if rule else ''}"
