"""How much is recorded (AUD-1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from configsvc.audit.events import EVENTS
from configsvc.audit.levels import MAY_BE_SILENT, Level, Levels, parse_levels
from configsvc.auth.spans import prefix_span
from configsvc.errors import PolicyInvalidError
from configsvc.types import KeySpan, span_of

SHIPPED = (Path(__file__).parents[3] / "policies" / "audit.toml").read_text()
HEAD = 'schema = "configsvc.audit/v1"\n'


def test_shipped_reads_are_silent_but_for_marked_prefixes() -> None:
    levels = parse_levels(SHIPPED)
    assert levels.level("kv.range", span_of(b"/app", b"")) is Level.NONE
    assert levels.level("kv.range", span_of(b"/secret/x", b"")) is Level.METADATA
    assert levels.level("kv.range", span_of(b"\0", b"\0")) is Level.METADATA  # touches a marked one
    assert levels.level("kv.watch", prefix_span(b"/prod/secret/a")) is Level.METADATA
    assert levels.level("history.read", span_of(b"/app", b"")) is Level.METADATA
    assert levels.level("kv.put", span_of(b"/app", b"")) is Level.COMMITMENT


@pytest.mark.parametrize("event", sorted(set(EVENTS) - MAY_BE_SILENT))
def test_changes_and_security_events_cannot_be_silenced(event: str) -> None:
    with pytest.raises(PolicyInvalidError):
        parse_levels(f'{HEAD}[[rule]]\nevents = ["{event}"]\nlevel = "none"')
    for levels in (parse_levels(SHIPPED), Levels(())):
        assert levels.level(event) >= Level.METADATA


def test_the_first_match_decides() -> None:
    rule = '[[rule]]\nevents = ["kv.put"]\nprefixes = ["/a/"]\nlevel = "{}"\n'
    levels = parse_levels(HEAD + rule.format("full") + rule.format("metadata"))
    assert levels.level("kv.put", KeySpan(b"/a/x", b"/a/y")) is Level.FULL
    assert levels.level("kv.put", KeySpan(b"/b", b"/c")) is Level.COMMITMENT
    assert levels.level("kv.put") is Level.COMMITMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        'schema = "configsvc.audit/v2"',
        HEAD + "level = 1",
        HEAD + "rule = 1",
        "=",
        HEAD + "[[rule]]",
        HEAD + '[[rule]]\nevents = ["kv.get"]\nlevel = "full"',
        HEAD + '[[rule]]\nevents = []\nlevel = "full"',
        HEAD + '[[rule]]\nevents = ["kv.put"]\nlevel = "all"',
        HEAD + '[[rule]]\nevents = ["kv.put"]\nlevel = 3',
        HEAD + '[[rule]]\nevents = ["kv.put"]\nprefixes = []\nlevel = "full"',
        HEAD + '[[rule]]\nevents = ["kv.put"]\nprefixes = [1]\nlevel = "full"',
        HEAD + '[[rule]]\nevents = ["kv.put"]\nlevel = "full"\nuser = "x"',
        HEAD + "x" + ".x" * 300 + " = 1",
        HEAD + "# " + "\n#" * 17_000,
        HEAD + "a = " + "[" * 400 + "]" * 400,
    ],
)
def test_what_is_not_known_refuses_the_file(text: str) -> None:
    with pytest.raises(PolicyInvalidError):
        parse_levels(text)
