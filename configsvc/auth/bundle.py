"""A policy bundle's TOML -> rules, tests and manifest. Edge and proposer only; apply never parses.

The vocabulary is closed (POL-4): an unknown element, operator, action, attribute, type or value
refuses the whole bundle, with file, line and element in the text. Nothing is ignored.

A bundle: ``schema``, ``bundle`` (name), ``version``, optionally ``cluster`` (its id), then
``[[rule]]`` (id, effect, actions, keys, when, unless, note) and ``[[test]]`` (name, request,
expect). ``keys`` is one table, or a list of tables, with one of ``key``, ``prefix``, ``range``,
``glob``; without it a rule means every key.

Not here: meaning of conditions (``conditions``), running tests (``policy_tests``), lock-out
(``lockout``), TOML's caps (``toml_guard``).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, NoReturn

from configsvc.auth.actions import ACTIONS, KEY_ACTIONS, KV_PUT
from configsvc.auth.names import is_name
from configsvc.auth.operands import key_pattern_problem, operand_of
from configsvc.auth.rules import (
    ALLOW,
    ATTRIBUTES,
    DENY,
    GLOB,
    KEY,
    PREFIX,
    RANGE,
    Condition,
    KeyPattern,
    Policy,
    Rule,
    encode_policy,
)
from configsvc.auth.toml_guard import parse_guarded
from configsvc.errors import PolicyInvalidError
from configsvc.limits import POLICY_RULES_MAX, POLICY_TESTS_MAX

SCHEMA: Final = "configsvc.policy/v1"
VERSION_MAX: Final = 2**53

_BUNDLE_WORDS: Final = frozenset({"schema", "bundle", "version", "cluster", "rule", "test"})
_RULE_WORDS: Final = frozenset({"id", "effect", "actions", "keys", "when", "unless", "note"})
_TEST_WORDS: Final = frozenset({"name", "request", "expect"})
_RESERVED_IDS: Final = frozenset({"root", "system", "auth-off", "any-write", "default"})


class PolicyTest(NamedTuple):
    """One ``[[test]]``, its tables unread: ``policy_tests`` knows their words."""

    name: str
    request: dict[str, Any]
    expect: dict[str, Any]
    where: str  # "file:line", for messages


class Bundle(NamedTuple):
    policy: Policy
    tests: tuple[PolicyTest, ...]
    cluster: str  # id as the manifest names it; empty: any
    source: str

    @property
    def compiled(self) -> bytes:
        """Canonical rules, for the log entry that activates the bundle."""
        return encode_policy(self.policy)


class Place:
    """Where in the source we are, for messages: the n-th table of a kind and a word in it."""

    def __init__(self, source: str, file: str) -> None:
        self._lines = source.split("\n")
        self._file = file
        self._first = 0
        self._element = ""
        self._headers: dict[str, list[int]] = {}  # "[[rule]]" -> its lines
        for number, line in enumerate(self._lines):
            if line.lstrip().startswith("[["):
                head = line.partition("#")[0].replace(" ", "").replace("\t", "").rstrip()
                self._headers.setdefault(head, []).append(number)

    def enter(self, kind: str, number: int) -> None:
        """Go to the ``number``-th (from 0) ``[[kind]]``."""
        self._element = f"{kind} {number + 1}"
        headers = self._headers.get(f"[[{kind}]]", [])
        self._first = headers[number] if number < len(headers) else 0

    def where(self, word: str = "") -> str:
        """``file:line`` of ``word`` in the current table, or of the table."""
        line = self._first
        for i in range(self._first, len(self._lines)):
            if i > self._first and self._lines[i].lstrip().startswith("[["):
                break
            if word and word in self._lines[i]:
                line = i
                break
        return f"{self._file}:{line + 1}"

    def refuse(self, word: str, problem: str) -> NoReturn:
        """Raise for ``word``, which must not be a secret: it comes from the bundle's own text."""
        shown = f"{self._element}: " if self._element else ""
        raise PolicyInvalidError(f"{self.where(word)}: {shown}{problem}")


def parse_bundle(text: str, file: str = "policy.toml") -> Bundle:
    """Read a bundle.

    Raises:
        PolicyInvalidError: anything about it is not known or not allowed; it names ``file``, the
            line and the element.
    """
    tree = parse_guarded(text, file)
    place = Place(text, file)
    _known(place, tree, _BUNDLE_WORDS)
    if tree.get("schema") != SCHEMA:
        place.refuse("schema", f'schema must be "{SCHEMA}"')
    name = _text(place, tree, "bundle")
    if not is_name(name):
        place.refuse("bundle", "bundle is not an acceptable name")
    version = tree.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < VERSION_MAX:
        place.refuse("version", "version must be a whole number above 0")
    cluster = _text(place, tree, "cluster") if "cluster" in tree else ""
    rules: list[Rule] = []
    ids: set[str] = set()
    for number, item in enumerate(_tables(place, tree, "rule", POLICY_RULES_MAX)):
        place.enter("rule", number)
        rule = _rule(place, item)
        if rule.id in ids:
            place.refuse(rule.id, f"id {rule.id} is used twice")
        ids.add(rule.id)
        rules.append(rule)
    tests = []
    for number, item in enumerate(_tables(place, tree, "test", POLICY_TESTS_MAX)):
        place.enter("test", number)
        tests.append(_test(place, item))
    return Bundle(Policy(name, version, tuple(rules)), tuple(tests), cluster, text)


def _rule(place: Place, item: dict[str, Any]) -> Rule:
    _known(place, item, _RULE_WORDS)
    rule_id = _text(place, item, "id")
    if not is_name(rule_id) or rule_id in _RESERVED_IDS:
        place.refuse("id", "id is not an acceptable name")
    effect = _text(place, item, "effect")
    if effect not in (ALLOW, DENY):
        place.refuse("effect", f"unknown effect {effect!r}")
    if effect == ALLOW and "unless" in item:
        place.refuse("unless", "unless belongs to deny rules")
    if "note" in item:
        _text(place, item, "note")
    actions = _actions(place, item)
    keys = _keys(place, item, actions)
    when = _conditions(place, item, "when", actions)
    unless = _conditions(place, item, "unless", actions)
    return Rule(rule_id, effect, actions, keys, when, unless)


def _actions(place: Place, item: dict[str, Any]) -> tuple[str, ...]:
    found = item.get("actions")
    if not isinstance(found, list) or not found:
        place.refuse("actions", "actions must be a list that is not empty")
    for action in found:
        if not isinstance(action, str) or action not in ACTIONS:
            place.refuse(str(action), f"unknown action {action!r}")
    if len(set(found)) != len(found):
        place.refuse("actions", "an action is named twice")
    return tuple(sorted(found))


def _keys(place: Place, item: dict[str, Any], actions: tuple[str, ...]) -> tuple[KeyPattern, ...]:
    if "keys" not in item:
        return ()
    if not set(actions) <= set(KEY_ACTIONS):
        place.refuse("keys", "keys go with kv.range, kv.put and kv.delete only")
    found = item["keys"] if isinstance(item["keys"], list) else [item["keys"]]
    if not found:
        place.refuse("keys", "keys must not be empty")
    return tuple(key_pattern(place, table) for table in found)


def key_pattern(place: Place, table: object, *, globs: bool = True) -> KeyPattern:
    """One table of ``keys``, as rules and tests write it."""
    operators = (KEY, PREFIX, RANGE, GLOB) if globs else (KEY, PREFIX, RANGE)
    if not isinstance(table, dict) or len(table) != 1:
        place.refuse("keys", f"keys needs exactly one of {', '.join(operators)}")
    operator, value = next(iter(table.items()))
    if operator not in operators:
        place.refuse(operator, f"unknown key operator {operator!r}")
    texts = value if operator == RANGE else [value]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        place.refuse(operator, f"{operator} has a value of another type")
    pattern = KeyPattern(operator, tuple(texts))
    problem = key_pattern_problem(pattern)
    if problem:
        place.refuse(operator, problem)
    return pattern


def _conditions(
    place: Place, item: dict[str, Any], word: str, actions: tuple[str, ...]
) -> tuple[Condition, ...]:
    if word not in item:
        return ()
    table = item[word]
    if not isinstance(table, dict) or not table:
        place.refuse(word, f"{word} must not be empty")  # an empty guard would guard nothing
    found = []
    for attribute, value in table.items():
        if attribute not in ATTRIBUTES:
            place.refuse(attribute, f"unknown attribute {attribute!r} (its name is quoted whole)")
        if attribute.startswith("value.") and actions != (KV_PUT,):
            place.refuse(attribute, f"{attribute} goes with kv.put alone")
        operand = operand_of(attribute, value)
        if operand is None:
            place.refuse(attribute, f"{attribute} has a value that is not allowed")
        found.append(Condition(attribute, operand))
    return tuple(sorted(found, key=lambda condition: condition.attribute))


def _test(place: Place, item: dict[str, Any]) -> PolicyTest:
    _known(place, item, _TEST_WORDS)
    request, expect = item.get("request"), item.get("expect")
    if not isinstance(request, dict) or not isinstance(expect, dict):
        place.refuse("request", "a test needs a request and an expect table")
    return PolicyTest(_text(place, item, "name"), request, expect, place.where())


def _known(place: Place, table: dict[str, Any], words: frozenset[str]) -> None:
    for word in table:
        if word not in words:
            place.refuse(word, f"unknown element {word!r}")


def _text(place: Place, table: dict[str, Any], word: str) -> str:
    value = table.get(word)
    if not isinstance(value, str) or not value:
        place.refuse(word, f"{word} must be a text that is not empty")
    return value


def _tables(place: Place, tree: dict[str, Any], word: str, most: int) -> list[dict[str, Any]]:
    found = tree.get(word, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        place.refuse(word, f"{word} must be written as [[{word}]]")
    if len(found) > most:
        place.refuse(word, f"more than {most} of {word}")
    return found
