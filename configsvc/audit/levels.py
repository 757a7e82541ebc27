"""How much is recorded of what: ``policies/audit.toml`` (security.md AUD-1).

Levels: ``none``, ``metadata``, ``commitment`` (metadata and salted commitments), ``full`` (values
into the sealed openings). The first ``[[rule]]`` that names the event and touches the keys says
the level. Whatever the file says, every change and every security event is at least ``metadata``:
only events of ``MAY_BE_SILENT`` can be set to ``none``.
"""

from __future__ import annotations

import tomllib
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn

from configsvc.audit.events import EVENTS
from configsvc.errors import PolicyInvalidError
from configsvc.limits import (
    AUDIT_LEVEL_BYTES_MAX,
    AUDIT_LEVEL_LINE_BYTES_MAX,
    AUDIT_LEVEL_RULES_MAX,
)
from configsvc.types import KeySpan

SCHEMA: Final = "configsvc.audit/v1"
MAY_BE_SILENT: Final = frozenset({"kv.range", "kv.watch", "history.read", "cluster.read"})


class Level(IntEnum):
    NONE = 0
    METADATA = 1
    COMMITMENT = 2
    FULL = 3


_NAMES: Final = {
    "none": Level.NONE,
    "metadata": Level.METADATA,
    "metadata+commitment": Level.COMMITMENT,
    "full": Level.FULL,
}


class LevelRule(NamedTuple):
    events: frozenset[str]
    spans: tuple[KeySpan, ...]  # empty: whatever the keys
    level: Level


class Levels(NamedTuple):
    rules: tuple[LevelRule, ...]

    def level(self, event: str, span: KeySpan | None = None) -> Level:
        """Level of an ``event`` about ``span`` (None: about no keys)."""
        for rule in self.rules:
            touched = not rule.spans or (
                span is not None and any(own.intersects(span) for own in rule.spans)
            )
            if event in rule.events and touched:
                return _floored(event, rule.level)
        return _floored(event, Level.COMMITMENT)


def parse_levels(text: str, file: str = "audit.toml") -> Levels:
    """Read the file. Raises ``PolicyInvalidError`` naming file and element; nothing is ignored."""
    lines = text.split("\n")
    if len(text.encode()) > AUDIT_LEVEL_BYTES_MAX or any(
        len(line.encode()) > AUDIT_LEVEL_LINE_BYTES_MAX for line in lines
    ):
        _refuse(file, "it, or a line of it, is too long")
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyInvalidError(f"{file}: not TOML") from error
    if set(tree) - {"schema", "rule"} or tree.get("schema") != SCHEMA:
        _refuse(file, f'needs schema = "{SCHEMA}" and [[rule]] only')
    rules = tree.get("rule", [])
    if not isinstance(rules, list) or len(rules) > AUDIT_LEVEL_RULES_MAX:
        _refuse(file, "rule must be written as [[rule]], and not too often")
    return Levels(tuple(_rule(file, number, item) for number, item in enumerate(rules, start=1)))


def _rule(file: str, number: int, item: Any) -> LevelRule:
    where = f"{file}: rule {number}"
    if not isinstance(item, dict) or set(item) - {"events", "prefixes", "level"}:
        _refuse(where, "unknown element")
    events, prefixes = item.get("events"), item.get("prefixes", [])
    if not isinstance(events, list) or not events or not all(event in EVENTS for event in events):
        _refuse(where, "events must be known events")
    if not isinstance(prefixes, list) or not all(isinstance(text, str) for text in prefixes):
        _refuse(where, "prefixes must be texts")
    level = item.get("level")
    if not isinstance(level, str) or level not in _NAMES:
        _refuse(where, "unknown level")
    if _NAMES[level] is Level.NONE and not set(events) <= MAY_BE_SILENT:
        _refuse(where, "changes and security events cannot be silenced")
    if "prefixes" in item and not prefixes:
        _refuse(where, "prefixes must not be empty")
    return LevelRule(
        frozenset(events), tuple(_span(text.encode()) for text in prefixes), _NAMES[level]
    )


def _span(prefix: bytes) -> KeySpan:
    stem = prefix.rstrip(b"\xff")
    return KeySpan(prefix, stem[:-1] + bytes((stem[-1] + 1,)) if stem else None)


def _floored(event: str, level: Level) -> Level:
    return level if event in MAY_BE_SILENT else max(level, Level.METADATA)


def _refuse(where: str, problem: str) -> NoReturn:
    raise PolicyInvalidError(f"{where}: {problem}")
