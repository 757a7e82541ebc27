"""Compiled policy rules and their canonical bytes.

What a bundle's TOML becomes (``bundle``), what a log entry carries and every member evaluates.
``encode_policy`` is deterministic and ``decode_policy`` accepts nothing but its output, so equal
rules mean equal bytes on every member and in every version. The first member names the format and
the oldest reader it admits; a newer one is refused.

Patterns match as written, apart from one substitution, ``{principal.name}``, which is taken
literally. There are no regular expressions.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from configsvc.auth.spans import prefix_span
from configsvc.errors import DecodeError
from configsvc.limits import POLICY_COMPILED_BYTES_MAX, POLICY_RULES_MAX
from configsvc.types import KeySpan

FORMAT: Final = 1
NAME_MARK: Final = "{principal.name}"

ALLOW: Final = "allow"
DENY: Final = "deny"

KEY: Final = "key"
PREFIX: Final = "prefix"
RANGE: Final = "range"
GLOB: Final = "glob"

# attribute -> shape of its operand; what each means is conditions.py's
TEXTS: Final = "texts"  # one or more texts, ascending; any of them satisfies
NUMBER: Final = "number"
FLAG: Final = "flag"  # always true: a condition that is either asked for or not there
ATTRIBUTES: Final = {
    "principal.kind": TEXTS,
    "principal.name": TEXTS,
    "principal.role": TEXTS,
    "auth.method": TEXTS,
    "source.cidr": TEXTS,
    "change.reason_required": FLAG,
    "change.ticket_prefix": TEXTS,
    "value.max_bytes": NUMBER,
    "value.format": TEXTS,
}


class KeyPattern(NamedTuple):
    """``texts`` is one text, or start and end of a half-open range (end "" is open)."""

    operator: str
    texts: tuple[str, ...]


class Condition(NamedTuple):
    attribute: str
    operand: tuple[str, ...] | int


class Rule(NamedTuple):
    """``keys`` empty: every key. ``when`` must all hold; a deny rests while ``unless`` all hold."""

    id: str
    effect: str
    actions: tuple[str, ...]  # ascending
    keys: tuple[KeyPattern, ...]
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...]


class Policy(NamedTuple):
    """The rules that judge. ``name`` and ``version`` are the manifest's."""

    name: str
    version: int
    rules: tuple[Rule, ...]


NO_POLICY: Final = Policy("", 0, ())


class BoundPattern(NamedTuple):
    """A pattern for one principal: a span, and for a glob the segments a key must match too."""

    span: KeySpan
    segments: tuple[str, ...]  # empty: the span says it all
    exact: bool  # False: the name cannot be put in; ``span`` is what any name could reach


def bind_pattern(pattern: KeyPattern, name: str) -> BoundPattern:
    """Put ``name`` into ``pattern``.

    A name that is empty or could act as more than one path segment is not put in: a grant then
    reaches nothing and a refusal everything that some name could reach.
    """
    texts = pattern.texts
    if NAME_MARK in "".join(texts):
        if not name or "/" in name or name in ("*", "**"):
            return BoundPattern(_widest(pattern), (), exact=False)
        if pattern.operator == GLOB:
            segments = tuple(part.replace(NAME_MARK, name) for part in texts[0].split("/"))
            literal = texts[0].replace(NAME_MARK, name)
            return BoundPattern(_glob_span(literal), segments, exact=True)
        texts = tuple(text.replace(NAME_MARK, name) for text in texts)
    elif pattern.operator == GLOB:
        return BoundPattern(_glob_span(texts[0]), _segments(texts[0]), exact=True)
    return BoundPattern(_span(pattern.operator, texts), (), exact=True)


def _span(operator: str, texts: tuple[str, ...]) -> KeySpan:
    start = texts[0].encode()
    if operator == KEY:
        return KeySpan(start, start + b"\0")
    if operator == PREFIX:
        return prefix_span(start)
    return KeySpan(start, texts[1].encode() or None)


def _widest(pattern: KeyPattern) -> KeySpan:
    if pattern.operator == RANGE:
        return KeySpan(b"", None)
    return prefix_span(pattern.texts[0].split(NAME_MARK)[0].split("*")[0].encode())


def _segments(glob: str) -> tuple[str, ...]:
    """Segments of a glob; a glob that its span describes completely has none."""
    if glob.endswith("/**") and "*" not in glob[:-2]:
        return ()
    return tuple(glob.split("/"))


def _glob_span(glob: str) -> KeySpan:
    literal, star, _ = glob.partition("*")
    if not star:
        return KeySpan(literal.encode(), literal.encode() + b"\0")
    return prefix_span(literal.encode())


def glob_matches(segments: tuple[str, ...], key: bytes) -> bool:
    """Whether ``key``'s path matches: ``*`` is one segment, ``**`` any number of them, none too.

    Greedy with one step back, so the cost is at most segments of the key times those of the glob.
    """
    parts = key.split(b"/")
    wanted = [segment.encode() for segment in segments]
    at = want = 0
    resume_at = resume_want = -1
    while at < len(parts):
        if want < len(wanted) and wanted[want] == b"**":
            resume_at, resume_want = at, want
            want += 1
        elif want < len(wanted) and wanted[want] in (b"*", parts[at]):
            at, want = at + 1, want + 1
        elif resume_want >= 0:
            resume_at += 1
            at, want = resume_at, resume_want + 1
        else:
            return False
    return all(rest == b"**" for rest in wanted[want:])


def encode_policy(policy: Policy) -> bytes:
    """Canonical bytes of ``policy``: sorted members, no spaces, ASCII only."""
    tree = {
        "format": FORMAT,
        "reader": FORMAT,
        "name": policy.name,
        "version": policy.version,
        "rules": [
            {
                "id": rule.id,
                "effect": rule.effect,
                "actions": rule.actions,
                "keys": rule.keys,
                "when": rule.when,
                "unless": rule.unless,
            }
            for rule in policy.rules
        ],
    }
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def decode_policy(data: bytes) -> Policy:
    """Inverse of ``encode_policy``.

    Raises:
        DecodeError: not exactly what ``encode_policy`` makes, too large, or a newer format.
    """
    if len(data) > POLICY_COMPILED_BYTES_MAX:
        raise DecodeError("compiled policy is too large")
    try:
        tree = json.loads(data)
        if tree["reader"] > FORMAT:
            raise DecodeError("compiled policy needs a newer program")
        rules = tuple(_rule(item) for item in tree["rules"])
        policy = Policy(_text(tree["name"]), _whole(tree["version"]), rules)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DecodeError("compiled policy cannot be read") from error
    if len(policy.rules) > POLICY_RULES_MAX or encode_policy(policy) != data:
        raise DecodeError("compiled policy is not canonical")
    return policy


def _rule(tree: dict[str, Any]) -> Rule:
    if tree["effect"] not in (ALLOW, DENY):
        raise DecodeError("compiled policy names an unknown effect")
    return Rule(
        _text(tree["id"]),
        tree["effect"],
        tuple(_text(action) for action in tree["actions"]),
        tuple(_pattern(*pattern) for pattern in tree["keys"]),
        tuple(_condition(*condition) for condition in tree["when"]),
        tuple(_condition(*condition) for condition in tree["unless"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DecodeError("compiled policy has something else where a text belongs")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise DecodeError("compiled policy has something else where a number belongs")
    return value


def _pattern(operator: str, texts: list[str]) -> KeyPattern:
    wanted = 2 if operator == RANGE else 1
    if operator not in (KEY, PREFIX, RANGE, GLOB) or len(texts) != wanted:
        raise DecodeError("compiled policy names an unknown key operator")
    return KeyPattern(operator, tuple(_text(text) for text in texts))


def _condition(attribute: str, operand: list[str] | int) -> Condition:
    shape = ATTRIBUTES.get(attribute)
    if shape is None or isinstance(operand, int) != (shape in (NUMBER, FLAG)):
        raise DecodeError("compiled policy names an unknown condition")
    if isinstance(operand, int):
        return Condition(attribute, _whole(operand))
    return Condition(attribute, tuple(_text(text) for text in operand))
