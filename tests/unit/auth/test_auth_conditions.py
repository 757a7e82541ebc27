"""Conditions, addresses and facts: the same answer on every member."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.auth.conditions import holds, parse_address, parse_network
from configsvc.auth.decide import decide
from configsvc.auth.facts import facts_wanted, format_facts, formats_of
from configsvc.auth.messages import WRITE, Request
from configsvc.auth.rules import NO_POLICY, Condition, Policy, Rule
from configsvc.types import KeySpan
from tests.support.auth_cases import HOME, principal, state_with

ASKED = Request(principal(), HOME, "kv.put", reason="why", ticket="CHG-7", value_bytes=10)


@pytest.mark.parametrize(
    ("attribute", "operand", "expected"),
    [
        ("principal.kind", ("user",), True),
        ("principal.kind", ("agent",), False),
        ("principal.name", ("hana", "omar"), True),
        ("principal.role", ("r",), True),
        ("principal.role", ("s",), False),
        ("auth.method", ("certificate",), True),
        ("auth.method", ("token",), False),
        ("source.cidr", ("10.20.0.0/16",), True),
        ("source.cidr", ("10.21.0.0/16", "2001:db8::/32"), False),
        ("change.reason_required", 1, True),
        ("change.ticket_prefix", ("INC-", "CHG-"), True),
        ("change.ticket_prefix", ("INC-",), False),
        ("value.max_bytes", 10, True),
        ("value.max_bytes", 9, False),
        ("value.format", ("json",), None),
        ("moon.phase", ("full",), None),
        ("moon.phase", 3, None),
    ],
)
def test_conditions(attribute: str, operand: tuple[str, ...] | int, expected: bool | None) -> None:
    assert holds(Condition(attribute, operand), ASKED, ("r",)) is expected


def test_a_blank_reason_is_none() -> None:
    wanted = Condition("change.reason_required", 1)
    assert holds(wanted, ASKED._replace(reason=" \t"), ()) is False


def test_formats_are_facts_of_the_entry() -> None:
    wanted = Condition("value.format", ("json",))
    assert holds(wanted, ASKED._replace(facts={"value.format": "json,utf8"}), ()) is True
    assert holds(wanted, ASKED._replace(facts={"value.format": "utf8"}), ()) is False
    assert holds(wanted, ASKED._replace(facts={"value.format": ""}), ()) is False


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.-4", " 1.2.3.4", "1.2.3.4\n",
     "١.2.3.4", ":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::",
     "fe80::1%eth0", "::1.2.3", "1:2:3:4:5:6:7:8::", "::1.2.3.4:5", "[::1]"],
)  # fmt: skip
def test_addresses_that_are_none(text: str) -> None:
    assert parse_address(text) is None


@given(st.ip_addresses())
def test_addresses_agree_with_the_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    wanted = (address.max_prefixlen, int(address))
    assert parse_address(str(address)) == wanted
    if address.version == 6:
        assert parse_address(address.exploded) == wanted


def test_an_ipv4_tail_is_read() -> None:
    assert parse_address("::ffff:10.1.2.3") == (128, 0xFFFF0A010203)


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_agree_with_the_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    text = f"{address}/{length}"
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        assert parse_network(text) is None
    else:
        assert parse_network(text) == (address.max_prefixlen, int(network.network_address), length)


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/33", "10.0.0.0/ 8", "/8"]
)
def test_networks_that_are_none(text: str) -> None:
    assert parse_network(text) is None


@pytest.mark.parametrize(
    ("value", "formats"),
    [
        pytest.param(b'{"a": 1}', {"utf8", "json"}, id="json"),
        pytest.param(b"a = 1", {"utf8", "toml"}, id="toml"),
        pytest.param(b"", {"utf8", "toml"}, id="empty"),
        pytest.param(b"NaN", {"utf8"}, id="nan-is-not-json"),
        pytest.param(b"\xff", set(), id="not-text"),
        pytest.param(b"[" * 50_000, {"utf8"}, id="deep"),
        pytest.param(b"9" * 60_000, {"utf8", "json"}, id="long-number"),
        pytest.param(b"x" + b".x" * 30_000 + b" = 1", {"utf8"}, id="dotted-bomb"),
        pytest.param(b"1" * (64 * 1024 + 1), set(), id="too-long-to-look"),
    ],
)
def test_formats(value: bytes, formats: set[str]) -> None:
    assert formats_of(value) == formats


def test_a_fact_holds_for_every_value() -> None:
    assert format_facts([b"{}", b'"x"']) == (("value.format", "json,utf8"),)
    assert format_facts([b"\xfe", b"\xff"]) == (("value.format", ""),)
    assert format_facts([]) == ()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"a = 1", b"\xff"], id="beside-another"),
        pytest.param([b"a = 1\n" + b"#" * (64 * 1024)], id="too-long-to-look"),
    ],
)
def test_a_format_that_some_value_may_have_cannot_be_told(values: list[bytes]) -> None:
    """POL-4: no allow, a deny, no help from ``unless``; a second value hides nothing."""
    asked = ASKED._replace(facts=dict(format_facts(values)))
    toml = Condition("value.format", ("toml",))
    assert holds(toml, asked, ()) is None
    for rule, allowed in (
        (Rule("r", "deny", ("kv.put",), (), (toml,), ()), False),
        (Rule("r", "deny", ("kv.put",), (), (), (toml,)), False),
        (Rule("r", "allow", ("kv.put",), (), (toml,), ()), False),
        (Rule("r", "allow", ("kv.put",), (), (), ()), True),
    ):
        decision = decide(state_with(rule), asked._replace(span=KeySpan(b"k", b"k\0"), perm=WRITE))
        assert decision.allowed is allowed


def test_facts_are_worked_out_only_when_wanted() -> None:
    rule = Rule("r", "deny", ("kv.put",), (), (), (Condition("value.format", ("json",)),))
    assert facts_wanted(Policy("p", 1, (rule,)))
    assert not facts_wanted(NO_POLICY)
