"""Bundles: closed vocabulary, caps before parsing, canonical bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.auth.bundle import parse_bundle
from configsvc.auth.policy_tests import run_tests
from configsvc.auth.rules import (
    Condition,
    KeyPattern,
    Policy,
    Rule,
    decode_policy,
    encode_policy,
)
from configsvc.auth.state import AuthState
from configsvc.auth.toml_guard import parse_guarded
from configsvc.errors import DecodeError, PolicyInvalidError

HEAD = 'schema = "configsvc.policy/v1"\nbundle = "b"\nversion = 7\n'
RULE = """
[[rule]]
id      = "guard"
effect  = "deny"
actions = ["kv.put"]
keys    = { prefix = "/prod/" }
unless  = { "change.ticket_prefix" = "CHG-", "value.max_bytes" = 65536 }
"""


def with_rule(**parts: str) -> str:
    """A bundle of one rule, parts as TOML text; a part of "" is left out."""
    base = {"id": '"r"', "effect": '"deny"', "actions": '["kv.put"]', **parts}
    body = "".join(f"{word} = {text}\n" for word, text in base.items() if text)
    return f"{HEAD}[[rule]]\n{body}"


def test_a_bundle_becomes_rules() -> None:
    bundle = parse_bundle(HEAD + RULE)
    guard = Rule(
        "guard",
        "deny",
        ("kv.put",),
        (KeyPattern("prefix", ("/prod/",)),),
        (),
        (Condition("change.ticket_prefix", ("CHG-",)), Condition("value.max_bytes", 65536)),
    )
    assert bundle.policy == Policy("b", 7, (guard,))
    assert decode_policy(bundle.compiled) == bundle.policy


def test_golden_bytes_never_change() -> None:
    """Stored logs hold these bytes: another encoding would be another policy."""
    assert parse_bundle(HEAD + RULE).compiled == (
        b'{"format":1,"name":"b","reader":1,"rules":[{"actions":["kv.put"],"effect":"deny",'
        b'"id":"guard","keys":[["prefix",["/prod/"]]],"unless":[["change.ticket_prefix",["CHG-"]],'
        b'["value.max_bytes",65536]],"when":[]}],"version":7}'
    )


def test_writing_order_does_not_matter() -> None:
    text = with_rule(
        actions='["kv.put", "kv.delete"]', when='{ "principal.kind" = ["user", "agent"] }'
    )
    other = with_rule(
        actions='["kv.delete", "kv.put"]', when='{ "principal.kind" = ["agent", "user"] }'
    )
    assert parse_bundle(text).compiled == parse_bundle(other).compiled


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(HEAD + 'owner = "x"', "unknown element 'owner'", id="top"),
        pytest.param(HEAD.replace("v1", "v2"), "schema", id="schema"),
        pytest.param(HEAD.replace("7", "0"), "version", id="version-zero"),
        pytest.param(HEAD.replace("7", "true"), "version", id="version-bool"),
        pytest.param(HEAD.replace("7", "7.0"), "version", id="version-float"),
        pytest.param(HEAD.replace('"b"', '"B b"'), "bundle", id="name"),
        pytest.param(HEAD + 'bundle = "c"', "overwrite", id="duplicate-key"),
        pytest.param(HEAD + "rule = 1", "[[rule]]", id="rule-not-tables"),
        pytest.param(with_rule(priority="1"), "unknown element 'priority'", id="rule-word"),
        pytest.param(with_rule(effect='"permit"'), "unknown effect", id="effect"),
        pytest.param(with_rule(effect=""), "effect", id="no-effect"),
        pytest.param(with_rule(id='"Root Rule"'), "id", id="id"),
        pytest.param(with_rule(id='"default"'), "id", id="reserved-id"),
        pytest.param(with_rule() + with_rule().removeprefix(HEAD), "used twice", id="twice"),
        pytest.param(with_rule(actions='["kv.get"]'), "unknown action 'kv.get'", id="action"),
        pytest.param(with_rule(actions='["maintenance.*"]'), "unknown action", id="wildcard"),
        pytest.param(with_rule(actions="[]"), "actions", id="no-actions"),
        pytest.param(with_rule(actions='"kv.put"'), "actions", id="actions-text"),
        pytest.param(with_rule(actions='["kv.put", "kv.put"]'), "twice", id="action-twice"),
        pytest.param(with_rule(when="{}"), "when must not be empty", id="n35-empty-when"),
        pytest.param(with_rule(unless="{}"), "unless must not be empty", id="n35-empty-unless"),
        pytest.param(
            with_rule(effect='"allow"', unless='{ "principal.kind" = ["user"] }'),
            "unless",
            id="unless-allow",
        ),
        pytest.param(
            with_rule(when='{ "principal.group" = ["x"] }'), "unknown attribute", id="n35-attribute"
        ),
        pytest.param(
            with_rule(when='{ principal.kind = ["user"] }'), "quoted whole", id="n35-dotted"
        ),
        pytest.param(
            with_rule(when='{ "principal.kind" = ["admin"] }'), "principal.kind", id="kind"
        ),
        pytest.param(
            with_rule(when='{ "principal.kind" = "user" }'), "principal.kind", id="kind-text"
        ),
        pytest.param(with_rule(when='{ "principal.kind" = [] }'), "principal.kind", id="kind-none"),
        pytest.param(
            with_rule(when='{ "principal.name" = ["a*"] }'), "principal.name", id="name-star"
        ),
        pytest.param(
            with_rule(when='{ "auth.method" = ["password"] }'), "auth.method", id="method"
        ),
        pytest.param(
            with_rule(when='{ "source.cidr" = ["10.1.0.0/8"] }'), "source.cidr", id="host-bits"
        ),
        pytest.param(
            with_rule(when='{ "source.cidr" = ["10.0.0.0"] }'), "source.cidr", id="no-length"
        ),
        pytest.param(
            with_rule(when='{ "change.reason_required" = false }'),
            "reason_required",
            id="flag-false",
        ),
        pytest.param(
            with_rule(when='{ "change.ticket_prefix" = "" }'), "ticket_prefix", id="ticket-empty"
        ),
        pytest.param(with_rule(when='{ "value.max_bytes" = -1 }'), "max_bytes", id="negative"),
        pytest.param(with_rule(when='{ "value.max_bytes" = true }'), "max_bytes", id="max-bool"),
        pytest.param(with_rule(when='{ "value.max_bytes" = nan }'), "max_bytes", id="n17-nan"),
        pytest.param(
            with_rule(when='{ "value.max_bytes" = 9223372036854775808 }'),
            "max_bytes",
            id="n17-2-63",
        ),
        pytest.param(with_rule(when='{ "value.format" = ["xml"] }'), "value.format", id="format"),
        pytest.param(
            with_rule(actions='["kv.delete", "kv.put"]', when='{ "value.max_bytes" = 1 }'),
            "kv.put alone",
            id="value-of-delete",
        ),
        pytest.param(
            with_rule(when='{ "time.window" = "9-17" }'), "unknown attribute", id="later-word"
        ),
        pytest.param(
            with_rule(keys='{ regex = "a.*" }'), "unknown key operator 'regex'", id="operator"
        ),
        pytest.param(
            with_rule(keys='{ prefix = "/a", key = "/b" }'), "exactly one", id="two-operators"
        ),
        pytest.param(with_rule(keys="{}"), "exactly one", id="no-operator"),
        pytest.param(with_rule(keys="[]"), "keys must not be empty", id="no-keys"),
        pytest.param(with_rule(keys='{ prefix = "" }'), "must not be empty", id="empty-prefix"),
        pytest.param(with_rule(keys="{ prefix = 7 }"), "another type", id="key-number"),
        pytest.param(with_rule(keys='{ range = ["/b", "/a"] }'), "ends before", id="backwards"),
        pytest.param(
            with_rule(keys='{ key = "%s" }' % ("k" * 2049)), "longer than a key", id="long-key"
        ),
        pytest.param(with_rule(keys='{ range = ["/b"] }'), "start and an end", id="half-range"),
        pytest.param(
            with_rule(keys='{ prefix = "/{user}/" }'), "only substitution", id="substitution"
        ),
        pytest.param(
            with_rule(keys='{ prefix = "/{principal.name/" }'), "only substitution", id="open-brace"
        ),
        pytest.param(with_rule(keys='{ glob = "/a/b*" }'), "whole segments", id="partial-star"),
        pytest.param(with_rule(keys='{ glob = "/a/b" }'), "no * segment", id="no-star"),
        pytest.param(with_rule(keys='{ glob = "**/a" }'), "literal", id="starts-with-star"),
        pytest.param(
            with_rule(keys='{ glob = "%s" }' % ("/a" * 40 + "/*")), "segments", id="many-segments"
        ),
        pytest.param(
            with_rule(actions='["auth.admin"]', keys='{ prefix = "/a" }'),
            "keys go with",
            id="capability-keys",
        ),
        pytest.param(HEAD + '[[test]]\nname = "t"', "request", id="test-without-request"),
        pytest.param(HEAD + 'x = """\n"""', "multi-line", id="multi-line"),
        pytest.param("=", ":", id="not-toml"),
    ],
)
def test_pol4_n35_an_unknown_word_refuses_the_whole_bundle(text: str, named: str) -> None:
    with pytest.raises(PolicyInvalidError) as caught:
        parse_bundle(text, "my.toml")
    assert str(caught.value).startswith("my.toml")
    assert named in str(caught.value)


def test_a_refusal_names_the_line() -> None:
    text = HEAD + RULE + RULE.replace('"guard"', '"other"').replace("value.max_bytes", "value.max")
    with pytest.raises(PolicyInvalidError, match=r"^p\.toml:17: rule 2: unknown attribute"):
        parse_bundle(text, "p.toml")


def test_n35_the_running_policy_stays() -> None:
    state = AuthState()
    state.bootstrap(insecure=False, root_uid="0")
    good = parse_bundle(HEAD + RULE)
    state.load_policy(name="b", version=7, source=good.source, compiled=good.compiled)
    bad = good.compiled.replace(b"value.max_bytes", b"value.max_bites").replace(
        b'"version":7', b'"version":8'
    )
    before = state.policy
    with pytest.raises(PolicyInvalidError):
        state.load_policy(name="b", version=8, source="", compiled=bad)
    assert state.policy is before


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" + ".x" * 32_000 + " = 1", id="one-dotted-key"),
        pytest.param("x" + ".x" * 1_500 + " = 1", id="dotted-key-within-a-line"),
        pytest.param("a = { " + "x" + ".x" * 1_500 + " = 1 }", id="dotted-key-inside"),
        pytest.param("[" + "x" + ".x" * 1_500 + "]", id="dotted-header"),
        pytest.param("\n".join(f"[a{'.b' * 9}{i}]" for i in range(3000)), id="many-headers"),
        pytest.param("a = " + "[" * 1_900 + "]" * 1_900, id="nested-arrays"),
        pytest.param("a = " + "{ a = " * 600 + "1" + " }" * 600, id="nested-tables"),
        pytest.param("a = " + "[\n" * 20_000, id="nested-over-lines"),
        pytest.param("# " + "x" * 70_000, id="long-file"),
        pytest.param("# " + "x" * 5_000, id="long-line"),
        pytest.param(f"a = {'9' * 4_050}", id="long-number"),
        pytest.param('"' + "\\u0041" * 600 + "\n", id="open-string"),
        pytest.param('a = "x" # ".' + ".x" * 900 + " = 1", id="comment-is-no-key"),
    ],
)
def test_pol8_bombs_are_refused_in_bounded_time(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(PolicyInvalidError):
        parse_bundle(text)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "legal"),
    [
        pytest.param("a" + ".a" * 8 + " = 1", True, id="eight"),
        pytest.param("a" + ".a" * 9 + " = 1", False, id="nine"),
        pytest.param("x = { a" + ".a" * 9 + " = 1 }", False, id="inside"),
        pytest.param("[a" + ".a" * 9 + "]", False, id="header"),
        pytest.param('a."b.c" = 1' + " # " + "." * 20, True, id="comment"),
        pytest.param('a = "' + "." * 20 + '"', True, id="string"),
        pytest.param("a = '" + "." * 20 + "'", True, id="literal"),
        pytest.param('a = "\\"' + "." * 20 + '"', True, id="escaped-quote"),
        pytest.param("a = [" + "1.5, " * 20 + "]", True, id="numbers"),
    ],
)
def test_pol8_dots_are_counted_in_keys_only(text: str, legal: bool) -> None:
    if legal:
        assert parse_guarded(text, "f")
    else:
        with pytest.raises(PolicyInvalidError, match=r"^f:1: more than 8 dots in a key"):
            parse_guarded(text, "f")


def test_caps_on_numbers() -> None:
    many = HEAD + "".join(RULE.replace("guard", f"g{i}").split("unless")[0] for i in range(501))
    with pytest.raises(PolicyInvalidError):
        parse_bundle(many)


GOOD = parse_bundle(HEAD + RULE).compiled


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"reader":2}',
        b"[" * 100_000,
        b'{"format":1,"name":"b","reader":1,"rules":[],"version":7} ',
        b'{"format":1,"name":"b","reader":1,"rules":[],"rules":[],"version":7}',
        b'{"format":1,"name":"b","reader":1,"rules":[{}],"version":7}',
        GOOD.replace(b"deny", b"maim"),
        GOOD.replace(b'["prefix"', b'["regex"'),
        GOOD.replace(b'["/prod/"]', b'["/prod/","/q"]'),
        GOOD.replace(b'["change.ticket_prefix",["CHG-"]]', b'["moon.phase",["full"]]'),
        GOOD.replace(b"65536", b'["65536"]'),
        GOOD.replace(b'"reader":1', b'"reader":"1"'),
        b" " * (1024 * 1024 + 1),
    ],
)
def test_compiled_rules_have_one_encoding(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_policy(data)


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
rules = st.builds(
    Rule,
    texts,
    st.sampled_from(["allow", "deny"]),
    st.lists(texts, max_size=2).map(tuple),
    st.lists(st.builds(lambda t: KeyPattern("key", (t,)), texts), max_size=2).map(tuple),
    st.lists(st.builds(lambda t: Condition("principal.name", (t,)), texts), max_size=2).map(tuple),
    st.lists(
        st.builds(lambda n: Condition("value.max_bytes", n), st.integers(0, 99)), max_size=1
    ).map(tuple),
)


@given(made=st.lists(rules, max_size=3), name=texts, version=st.integers(1, 2**53))
def test_compiled_rules_come_back(made: list[Rule], name: str, version: int) -> None:
    policy = Policy(name, version, tuple(made))
    assert decode_policy(encode_policy(policy)) == policy


def test_the_shipped_bundle_passes_its_own_tests() -> None:
    path = Path(__file__).parents[3] / "policies" / "default.toml"
    bundle = parse_bundle(path.read_text(), path.name)
    assert run_tests(bundle, strict=True) == []
    assert {rule.id for rule in bundle.policy.rules} >= {"deny-agents-change", "allow-operators"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":"guard"', b'"id":"Guard"'),
        (b'"id":"guard"', b'"id":7'),
        (b'["kv.put"]', b"[]"),
        (b'["kv.put"]', b'["kv.put","kv.delete"]'),
        (b'["kv.put"]', b'["kv.push"]'),
        (b'["kv.put"]', b'["auth.admin"]'),
        (b'"/prod/"', b'"\\ud800"'),
        (b'"/prod/"', b'""'),
        (b'["CHG-"]', b'["b","a"]'),
        (b'["CHG-"]', b"[]"),
        (b"65536", b"-1"),
        (b"65536", b"true"),
        (b'"deny"', b'"allow"'),
    ],
)
def test_apply_believes_no_compiled_rule_that_no_bundle_gives(old: bytes, new: bytes) -> None:
    assert old in GOOD
    state = AuthState()
    with pytest.raises(PolicyInvalidError):
        state.load_policy(name="b", version=7, source="", compiled=GOOD.replace(old, new))
    assert state.policy.version == 0
    state.load_policy(name="b", version=7, source="", compiled=GOOD)


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda at, cut: GOOD[:at] + cut + GOOD[at + len(cut) :],
        st.integers(0, len(GOOD)),
        st.binary(max_size=3),
    )
)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    state = AuthState()
    try:
        state.load_policy(name="b", version=7, source="", compiled=data)
    except PolicyInvalidError:
        return
    assert encode_policy(state.policy) == data
