"""Tests beside rules, lock-out, explanations (POL-10, POL-11, POL-12)."""

from __future__ import annotations

import pytest

from configsvc.auth.bundle import Bundle, parse_bundle
from configsvc.auth.explain import explain
from configsvc.auth.lockout import LOAD, check_lockout
from configsvc.auth.messages import READ, WRITE, Request
from configsvc.auth.policy_tests import run_tests
from configsvc.types import span_of
from tests.support.auth_cases import HOME, principal, state_with

HEAD = 'schema = "configsvc.policy/v1"\nbundle = "prod"\nversion = 7\n'
AGENTS = """
[[rule]]
id = "deny-agents-write-prod"
effect = "deny"
actions = ["kv.put", "kv.delete"]
keys = { prefix = "/prod/" }
when = { "principal.kind" = ["agent"] }
"""
TICKET = """
[[rule]]
id = "deny-prod-app-without-ticket"
effect = "deny"
actions = ["kv.put"]
keys = { prefix = "/prod/app/" }
unless = { "change.ticket_prefix" = "CHG-", "value.max_bytes" = 65536 }
"""
RELEASE = """
[[rule]]
id = "allow-release-write"
effect = "allow"
actions = ["kv.put"]
keys = { prefix = "/prod/app/" }
when = { "principal.role" = ["release"], "auth.method" = ["certificate"] }
"""
TOUCHING = """
[[test]]
name = "delete range touching prod is denied even when mostly elsewhere"
expect = { decision = "deny", rule = "deny-agents-write-prod" }
[test.request]
principal = { kind = "agent", name = "node-1" }
action = "kv.delete"
range = ["/n/", "/q"]
"""
RELEASED = """
[[test]]
name = "release with a ticket"
expect = { decision = "allow", rule = "allow-release-write" }
[test.request]
principal = { name = "hana", roles = ["release"] }
action = "kv.put"
key = "/prod/app/x"
ticket = "CHG-1"
value_bytes = 9
"""
NO_TICKET = """
[[test]]
name = "no ticket"
expect = { decision = "deny", rule = "deny-prod-app-without-ticket" }
[test.request]
principal = { name = "hana", roles = ["release"] }
action = "kv.put"
key = "/prod/app/x"
value_bytes = 9
"""


def load(*parts: str) -> Bundle:
    return parse_bundle(HEAD + "".join(parts))


def test_every_rule_both_ways_passes() -> None:
    assert run_tests(load(AGENTS, TICKET, RELEASE, TOUCHING, RELEASED, NO_TICKET)) == []


def test_strict_names_rules_that_are_not_covered() -> None:
    bundle = load(AGENTS, TICKET, RELEASE, TOUCHING, RELEASED)
    assert run_tests(bundle, strict=False) == []
    assert run_tests(bundle) == [
        "rule deny-prod-app-without-ticket: no test is decided by it",
        "rule allow-release-write: no test of its actions is denied",
    ]


def test_a_wrong_expectation_is_reported_with_both_sides() -> None:
    wrong = TOUCHING.replace('"deny", rule', '"allow", rule')
    (line,) = run_tests(load(AGENTS, wrong), strict=False)
    assert "expected allow by deny-agents-write-prod, found deny by deny-agents-write-prod" in line
    assert line.startswith("policy.toml:12")
    other = TOUCHING.replace('rule = "deny-agents-write-prod"', 'rule = "default"')
    assert len(run_tests(load(AGENTS, other), strict=False)) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kv.delete", "kv.remove"),
        ('kind = "agent"', 'kind = "admin"'),
        ("range =", "span ="),
        ('range = ["/n/", "/q"]', 'glob = "/n/*"'),
        ('range = ["/n/", "/q"]', 'prefix = "/n/"\nkey = "/q"'),
        ('decision = "deny"', 'decision = "no"'),
        ('name = "node-1"', 'title = "node-1"'),
        ("rule =", "because ="),
        ('action = "kv.delete"', 'action = "kv.delete"\nvalue_bytes = -1'),
        ('action = "kv.delete"', 'action = "kv.delete"\nformats = ["xml"]'),
        ('action = "kv.delete"', 'action = "kv.delete"\ngrants = [{ prefix = "/" }]'),
        ('action = "kv.delete"', 'action = "kv.delete"\nmethod = "magic"'),
    ],
)
def test_a_test_that_says_something_unknown_fails(old: str, new: str) -> None:
    assert old in TOUCHING
    assert len(run_tests(load(AGENTS, TOUCHING.replace(old, new)), strict=False)) == 1


# --- lock-out ------------------------------------------------------------------------------

ROOT = principal("root", uid="00")
LOADER = Request(ROOT, HOME, LOAD)
NOBODY = """
[[rule]]
id = "deny-all"
effect = "deny"
actions = ["policy.load"]
"""


def test_pol11_a_bundle_nobody_could_replace_is_refused() -> None:
    problems = check_lockout(load(NOBODY).policy, state_with(), LOADER)
    assert problems == [
        "it would deny its loader's next load (rule deny-all)",
        "under it nobody could load a policy",
    ]


def test_pol11_a_bundle_that_denies_its_loader_is_refused() -> None:
    rule = NOBODY + 'when = { "principal.name" = ["hana"] }\n'
    hana = Request(principal(), HOME, LOAD)
    assert check_lockout(load(rule).policy, state_with(roles=("root",)), hana) == [
        "it would deny its loader's next load (rule deny-all)"
    ]


def test_pol11_a_guard_that_can_be_met_is_no_lockout() -> None:
    rule = NOBODY + 'unless = { "change.reason_required" = true }\n'
    state = state_with()
    assert check_lockout(load(rule).policy, state, LOADER._replace(reason="why")) == []
    assert len(check_lockout(load(rule).policy, state, LOADER)) == 1


def test_pol11_leaves_the_state_alone() -> None:
    state = state_with()
    before = (state.policy, state.version)
    check_lockout(load(NOBODY).policy, state, LOADER)
    assert (state.policy, state.version) == before


# --- explanations ----------------------------------------------------------------------------


def test_pol12_explains_every_rule_and_grant() -> None:
    rules = load(AGENTS, TICKET, RELEASE).policy.rules
    state = state_with(*rules, grants={"release": {(b"/prod/app/", b"/prod/app0"): WRITE}})
    asked = Request(principal(), HOME, "kv.put", span_of(b"/prod/app/db.json", b""), WRITE)
    account = explain(state, asked._replace(value_bytes=3))
    assert account.lines() == [
        "DENY  rule=deny-prod-app-without-ticket  auth_rev=1 policy=test@1",
        "  1 deny   deny-agents-write-prod  no match  principal.kind = user",
        "  2 deny   deny-prod-app-without-ticket  MATCH  unless failed: "
        "change.ticket_prefix CHG-, have none",
        "  3 allow  allow-release-write  would match (not reached)",
        "  4 rbac   role release  would match (not reached)  WRITE [/prod/app/, /prod/app0)",
    ]
    assert all(line.reason == "" for line in account.without_texts().considered)


def test_pol12_explains_partial_cover_and_root() -> None:
    state = state_with(grants={"r": {(b"a", b"c"): READ}})
    asked = Request(principal(), HOME, "kv.range", span_of(b"a", b"z"), READ)
    assert (
        explain(state, asked).lines()[1] == "  1 rbac   role r  MATCH  READ [a, c), covers a part"
    )
    root = explain(state, asked._replace(principal=ROOT)).lines()
    assert root == [
        "ALLOW  rule=root  auth_rev=1 policy=test@1",
        "  1 rbac   role root  MATCH  passes everything but a deny",
    ]


def test_tests_may_name_formats() -> None:
    rule = """
[[rule]]
id = "json-only"
effect = "deny"
actions = ["kv.put"]
unless = { "value.format" = ["json"] }
"""
    test = """
[[test]]
name = "%s"
expect = { decision = "%s" }
[test.request]
principal = { name = "root", roles = ["root"] }
action = "kv.put"
key = "/a"
formats = ["utf8"%s]
"""
    bundle = load(rule, test % ("json", "allow", ', "json"'), test % ("text", "deny", ""))
    assert run_tests(bundle) == []


@pytest.mark.parametrize(
    ("condition", "have"),
    [
        ('"principal.name" = ["omar"]', "principal.name = hana"),
        ('"auth.method" = ["token"]', "auth.method = certificate"),
        ('"principal.role" = ["x"]', "principal.role = none"),
        ('"source.cidr" = ["192.168.0.0/16"]', "source.cidr = 10.20.1.2"),
        ('"value.format" = ["json"]', "value.format = utf8"),
        ('"value.max_bytes" = 1', "value.max_bytes = 2"),
        ('"change.reason_required" = true', "change.reason_required = none"),
    ],
)
def test_pol12_names_what_was_there_instead(condition: str, have: str) -> None:
    text = '[[rule]]\nid = "r"\neffect = "allow"\nactions = ["kv.put"]\nwhen = { %s }\n'
    state = state_with(*load(text % condition).policy.rules)
    asked = Request(
        principal(),
        HOME,
        "kv.put",
        span_of(b"a", b""),
        WRITE,
        facts={"value.format": "utf8"},
        value_bytes=2,
    )
    (line,) = explain(state, asked).considered
    assert (line.verdict, line.reason) == ("no match", have)


def test_pol12_says_when_a_name_does_not_fit() -> None:
    text = """
[[rule]]
id = "own"
effect = "allow"
actions = ["kv.put"]
keys = { prefix = "/n/{principal.name}/" }
"""
    state = state_with(*load(text).policy.rules)
    asked = Request(principal("", uid=""), HOME, "kv.put", span_of(b"/n//x", b""), WRITE)
    (line,) = explain(state, asked).considered
    assert line.reason == "principal's name does not fit into the keys"
