"""Which values the words of the policy language may take, and their canonical form.

Functions answer with None or a text instead of raising: ``bundle`` knows where in the file it is.
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.actions import ACTIONS, KEY_ACTIONS
from configsvc.auth.conditions import parse_network
from configsvc.auth.names import is_name
from configsvc.auth.rules import (
    ALLOW,
    ATTRIBUTES,
    FLAG,
    GLOB,
    NAME_MARK,
    NUMBER,
    RANGE,
    KeyPattern,
    Policy,
    Rule,
)
from configsvc.limits import (
    KEY_BYTES_MAX,
    POLICY_GLOB_SEGMENTS_MAX,
    POLICY_OPERANDS_MAX,
    REQUEST_BYTES_MAX,
)
from configsvc.types import KIND_AGENT, KIND_SERVICE, KIND_USER

KINDS: Final = frozenset({KIND_USER, KIND_AGENT, KIND_SERVICE})
METHODS: Final = frozenset({"certificate", "token"})
FORMATS: Final = frozenset({"utf8", "json", "toml"})


def operand_of(attribute: str, value: object) -> tuple[str, ...] | int | None:
    """Canonical operand of a condition; None when ``value`` is not allowed."""
    shape = ATTRIBUTES[attribute]
    if shape == FLAG:
        return 1 if value is True else None
    if shape == NUMBER:
        plain = isinstance(value, int) and not isinstance(value, bool)
        return (
            value if plain and isinstance(value, int) and 0 <= value <= REQUEST_BYTES_MAX else None
        )
    if attribute == "change.ticket_prefix" and isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= POLICY_OPERANDS_MAX:
        return None
    texts = [text for text in value if isinstance(text, str) and _is_operand(attribute, text)]
    if len(texts) != len(value) or len(set(texts)) != len(texts):
        return None
    return tuple(sorted(texts))


def _is_operand(attribute: str, text: str) -> bool:
    match attribute:
        case "principal.kind":
            return text in KINDS
        case "principal.name":
            return is_name(text)
        case "auth.method":
            return text in METHODS
        case "source.cidr":
            return parse_network(text) is not None
        case "value.format":
            return text in FORMATS
        case _:
            return bool(text) and text.isprintable()


def key_pattern_problem(pattern: KeyPattern) -> str:
    """What is wrong with a pattern; empty when nothing is."""
    operator, texts = pattern
    if operator == RANGE:
        if len(texts) != 2:
            return "range needs a start and an end"
        start, end = (text.encode() for text in texts)
        if end and end <= start:
            return "range ends before it starts"
    for text in texts:
        if "{" in text.replace(NAME_MARK, "") or "}" in text.replace(NAME_MARK, ""):
            return f"the only substitution is {NAME_MARK}"
        if len(text.encode()) > KEY_BYTES_MAX:
            return f"{operator} is longer than a key may be"
    if not texts[0]:
        return f"{operator} must not be empty; leave keys out to mean every key"
    return _glob_problem(texts[0]) if operator == GLOB else ""


def _glob_problem(glob: str) -> str:
    segments = glob.split("/")
    if len(segments) > POLICY_GLOB_SEGMENTS_MAX:
        return f"glob has more than {POLICY_GLOB_SEGMENTS_MAX} segments"
    if any("*" in segment and segment not in ("*", "**") for segment in segments):
        return "* and ** stand for whole segments"
    if "*" not in glob:
        return "glob has no * segment; use key or prefix"
    if segments[0] in ("*", "**"):
        return "glob must start with literal text"
    return ""


def policy_problem(policy: Policy) -> str:
    """What no bundle could have been compiled to; empty when nothing.

    Compiled rules come out of a log entry, thus from another member: apply believes that they were
    tested, not that every text and number in them is one that the language allows.
    """
    if policy.version < 1 or not is_name(policy.name):
        return "name or version is not acceptable"
    ids = [rule.id for rule in policy.rules]
    if len(set(ids)) != len(ids):
        return "an id is used twice"
    for rule in policy.rules:
        problem = _rule_problem(rule)
        if problem:
            return problem
    return ""


def _rule_problem(rule: Rule) -> str:
    if not is_name(rule.id) or (rule.effect == ALLOW and rule.unless):
        return "a rule has an id or a guard that is not acceptable"
    if not rule.actions or list(rule.actions) != sorted(set(rule.actions) & ACTIONS):
        return f"rule {rule.id} names actions that are not acceptable"
    if rule.keys and not set(rule.actions) <= set(KEY_ACTIONS):
        return f"rule {rule.id} has keys where none go"
    for pattern in rule.keys:
        if not all(_is_encodable(text) for text in pattern.texts) or key_pattern_problem(pattern):
            return f"rule {rule.id} has keys that are not acceptable"
    for condition in (*rule.when, *rule.unless):
        operand = condition.operand
        value: object = list(operand) if isinstance(operand, tuple) else operand
        if ATTRIBUTES[condition.attribute] == FLAG:
            value = operand == 1
        if operand_of(condition.attribute, value) != operand:
            return f"rule {rule.id} has a condition that is not acceptable"
    return ""


def _is_encodable(text: str) -> bool:
    """Whether ``text`` is Unicode that UTF-8 can carry: no lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
