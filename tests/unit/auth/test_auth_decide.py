"""Decisions: order of rules, and the fast code against a slow, obvious twin."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.auth.decide import Decider, View, check_key, decide
from configsvc.auth.explain import explain
from configsvc.auth.messages import READ, READWRITE, WRITE, Decision, Request
from configsvc.auth.rules import Condition, KeyPattern, Rule
from configsvc.auth.spans import prefix_span
from configsvc.auth.state import AuthState
from configsvc.errors import InvariantViolationError
from configsvc.types import (
    KIND_AGENT,
    KIND_MEMBER,
    KIND_NONE,
    NO_SOURCE,
    SYSTEM_PRINCIPAL,
    KeySpan,
    Principal,
    span_of,
)
from tests.support.auth_cases import HOME, principal, state_with

ROOT = principal("root", uid="00")
PUT_A = Request(principal(), HOME, "kv.put", span_of(b"a", b""), WRITE)


def deny(
    *conditions: Condition,
    actions: tuple[str, ...] = ("kv.put",),
    name: str = "no",
    **parts: object,
) -> Rule:
    return Rule(name, "deny", actions, (), conditions, ())._replace(**parts)  # type: ignore[arg-type]


def allow(
    *conditions: Condition,
    actions: tuple[str, ...] = ("kv.put",),
    name: str = "yes",
    **parts: object,
) -> Rule:
    return Rule(name, "allow", actions, (), conditions, ())._replace(**parts)  # type: ignore[arg-type]


def prefix(text: str) -> tuple[KeyPattern, ...]:
    return (KeyPattern("prefix", (text,)),)


# --- who ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        pytest.param(SYSTEM_PRINCIPAL, Decision(True, "system"), id="system"),
        pytest.param(ROOT, Decision(True, "root"), id="root"),
        pytest.param(ROOT._replace(uid="99"), Decision(False, "default"), id="re-created-root"),
        pytest.param(principal("root", KIND_AGENT), Decision(False, "default"), id="agent-root"),
        pytest.param(principal("nobody", uid=""), Decision(False, "default"), id="unknown"),
        pytest.param(
            Principal(KIND_NONE, "", "", "", "", "", "", "insecure-dev", "", "", 0),
            Decision(False, "default"),
            id="nobody-while-auth-is-on",
        ),
        pytest.param(
            ROOT._replace(kind=KIND_MEMBER), Decision(False, "default"), id="n7-member-kind"
        ),
    ],
)
def test_who_passes(who: Principal, expected: Decision) -> None:
    assert decide(state_with(), PUT_A._replace(principal=who)) == expected


def test_an_insecure_store_is_open_only_while_auth_is_off() -> None:
    state = AuthState()
    nobody = Principal(KIND_NONE, "", "", "", "", "", "", "insecure-dev", "", "", 0)
    asked = PUT_A._replace(principal=nobody)
    assert decide(state, asked) == Decision(False, "default")  # not even before bootstrap
    state.bootstrap(insecure=True, root_uid="")
    assert decide(state, asked) == Decision(True, "auth-off")
    state.user_add("root", "", True, "00")
    state.user_grant_role("root", "root")
    state.enable()
    assert decide(state, asked) == Decision(False, "default")


# --- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("allowing", ["", "a", "aa", "b"])
@pytest.mark.parametrize("denying", ["", "a", "aa", "b"])
def test_n52_deny_wins_whatever_else_grants(
    denying: str, allowing: str, order: tuple[int, int], root: bool, granted: bool
) -> None:
    """Every (deny, allow, none) by order, overlap, root and RBAC."""
    rules = [deny(keys=prefix(denying)) if denying else None]
    rules.append(allow(keys=prefix(allowing)) if allowing else None)
    made = [rules[i] for i in order if rules[i] is not None]
    who = ROOT if root else principal()
    state = state_with(
        *(r for r in made if r), grants={"r": {(b"a", b"b"): WRITE}} if granted else {}
    )
    for key in (b"a", b"aa", b"b"):
        found = decide(state, PUT_A._replace(principal=who, span=span_of(key, b"")))
        if denying and key.startswith(denying.encode()):
            assert found == Decision(False, "no")
        else:
            rbac = granted and key < b"b"
            assert found.allowed == (
                root or rbac or bool(allowing and key.startswith(allowing.encode()))
            )


def test_n53_a_right_must_contain_the_span_and_a_deny_only_touch_it() -> None:
    state = state_with(grants={"r": {(b"/a/", b"/a0"): WRITE}})
    wide = PUT_A._replace(action="kv.delete", span=span_of(b"/a/", b"/b0"))
    assert decide(state, wide) == Decision(False, "default")
    exact = wide._replace(span=span_of(b"/a/", b"/a0"))
    assert decide(state, exact) == Decision(True, "rbac:r")
    guarded = state_with(deny(actions=("kv.delete",), keys=prefix("/p/")))
    touching = wide._replace(principal=ROOT, span=span_of(b"/n/", b"/q"))
    assert decide(guarded, touching) == Decision(False, "no")
    beside = touching._replace(span=span_of(b"/n/", b"/p/"))
    assert decide(guarded, beside) == Decision(True, "root")


def test_n4_a_right_on_one_key_is_no_right_from_that_key_on() -> None:
    state = state_with(grants={"r": {(b"k", b""): READ}})
    for span in (span_of(b"k", b"\0"), span_of(b"", b"\0"), span_of(b"\0", b"\0")):
        asked = Request(principal(), HOME, "kv.range", span, READ)
        assert not decide(state, asked).allowed
    assert decide(state, Request(principal(), HOME, "kv.range", span_of(b"k", b""), READ)).allowed


def test_grant_and_allow_cover_together() -> None:
    state = state_with(
        allow(keys=(KeyPattern("range", ("c", "e")),)), grants={"r": {(b"a", b"c"): WRITE}}
    )
    asked = PUT_A._replace(span=KeySpan(b"a", b"e"))
    assert decide(state, asked) == Decision(True, "rbac:r+yes")


def test_read_is_not_write() -> None:
    state = state_with(grants={"r": {(b"a", b"b"): READ}})
    assert not decide(state, PUT_A).allowed
    assert decide(state, PUT_A._replace(perm=READ)) == Decision(True, "rbac:r")


@pytest.mark.parametrize(
    ("grants", "allowed"),
    [({}, False), ({(b"a", b""): READ}, False), ({(b"a", b""): WRITE}, True)],
)
def test_lease_grant_goes_to_whoever_may_write(
    grants: dict[tuple[bytes, bytes], int], allowed: bool
) -> None:
    state = state_with(grants={"r": grants})
    asked = Request(principal(), HOME, "lease.grant")
    assert decide(state, asked).allowed == allowed
    denied = state_with(deny(actions=("lease.grant",)), grants={"r": grants})
    assert decide(denied, asked) == Decision(False, "no")


def test_capabilities_come_from_rules_and_from_root_alone() -> None:
    state = state_with(allow(actions=("kv.compact",)), grants={"r": {(b"\0", b"\0"): READWRITE}})
    asked = Request(principal(), HOME, "kv.compact")
    assert decide(state, asked) == Decision(True, "yes")
    assert decide(state, asked._replace(action="auth.admin")) == Decision(False, "default")
    assert decide(state, asked._replace(action="auth.admin", principal=ROOT)).allowed


def test_spans_and_actions_go_together() -> None:
    with pytest.raises(InvariantViolationError):
        decide(state_with(), PUT_A._replace(span=None))
    with pytest.raises(InvariantViolationError):
        decide(state_with(), PUT_A._replace(action="kv.compact"))


# --- conditions that cannot be evaluated (POL-4) ------------------------------------------------


def test_what_cannot_be_evaluated_denies() -> None:
    at_home = Condition("source.cidr", ("10.20.0.0/16",))
    known = PUT_A._replace(principal=ROOT)
    unknown = known._replace(source=NO_SOURCE)
    deny_when = state_with(deny(at_home))
    assert not decide(deny_when, known).allowed
    assert not decide(deny_when, unknown).allowed
    deny_unless = state_with(deny(unless=(at_home,)))
    assert decide(deny_unless, known).allowed
    assert not decide(deny_unless, unknown).allowed
    allow_when = state_with(allow(at_home))
    assert decide(allow_when, known._replace(principal=principal())).allowed
    assert not decide(allow_when, unknown._replace(principal=principal())).allowed


def test_a_guard_binds_even_root() -> None:
    guard = deny(
        unless=(Condition("change.ticket_prefix", ("CHG-",)), Condition("value.max_bytes", 10)),
        keys=prefix("a"),
    )
    state = state_with(guard)
    asked = PUT_A._replace(principal=ROOT, ticket="CHG-1", value_bytes=10)
    assert decide(state, asked) == Decision(True, "root")
    for worse in (
        asked._replace(ticket="X"),
        asked._replace(value_bytes=11),
        asked._replace(value_bytes=None),
    ):
        assert decide(state, worse) == Decision(False, "no")


# --- substitution and globs (POL-6) -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [("n1", b"/n/n1/x", b"/n/n10/x"), ("n.1", b"/n/n.1/x", b"/n/nx1/x")],
)
def test_a_name_is_put_in_literally(name: str, own: bytes, other: bytes) -> None:
    agent = principal(name, KIND_AGENT)
    state = state_with(allow(keys=prefix("/n/{principal.name}/")))
    asked = PUT_A._replace(principal=agent)
    assert decide(state, asked._replace(span=span_of(own, b""))).allowed
    assert not decide(state, asked._replace(span=span_of(other, b""))).allowed


@pytest.mark.parametrize("name", ["", "a/b", "*", "**", "n1/../n2"])
def test_a_name_that_could_be_a_path_grants_nothing_and_is_denied_everything(name: str) -> None:
    odd = PUT_A._replace(principal=principal(name, KIND_AGENT, uid=""))
    for keys in (prefix("/n/{principal.name}/"), (KeyPattern("glob", ("/n/{principal.name}/*",)),)):
        granting, refusing = state_with(allow(keys=keys)), state_with(allow(), deny(keys=keys))
        for key in (b"/n/a/b", b"/n//", b"/n/x/y"):
            asked = odd._replace(span=span_of(key, b""))
            assert not decide(granting, asked).allowed
            assert not decide(refusing, asked).allowed
        assert decide(refusing, odd._replace(span=span_of(b"/m", b""))).allowed


@pytest.mark.parametrize(
    ("glob", "key", "matches"),
    [
        ("/a/*/c", b"/a/b/c", True),
        ("/a/*/c", b"/a//c", True),
        ("/a/*/c", b"/a/b/b/c", False),
        ("/a/*/c", b"/a/b/c/d", False),
        ("/a/**/c", b"/a/c", True),
        ("/a/**/c", b"/a/b/b/c", True),
        ("/a/**/c", b"/a/b/c/d", False),
        ("/a/**/b/**/c", b"/a/b/x/b/c", True),
        ("/a/**", b"/a/", True),
        ("/a/**", b"/a/x/y", True),
        ("/a/**", b"/a", False),
        ("/a/*", b"/a/\xff\xfe", True),
    ],
)
def test_globs(glob: str, key: bytes, matches: bool) -> None:
    keys = (KeyPattern("glob", (glob,)),)
    asked = PUT_A._replace(span=span_of(key, b""))
    assert decide(state_with(allow(keys=keys)), asked).allowed == matches
    assert decide(state_with(allow(), deny(keys=keys)), asked).allowed != matches


def test_globs_take_the_name_as_one_segment() -> None:
    keys = (KeyPattern("glob", ("/n/{principal.name}/*/x",)),)
    agent = principal("n1", KIND_AGENT)
    state = state_with(
        allow(keys=keys), allow(name="key", keys=(KeyPattern("key", ("/k/{principal.name}",)),))
    )
    for key, allowed in (
        (b"/n/n1/a/x", True),
        (b"/n/n2/a/x", False),
        (b"/n/n1/x", False),
        (b"/k/n1", True),
        (b"/k/n10", False),
    ):
        asked = PUT_A._replace(principal=agent, span=span_of(key, b""))
        assert decide(state, asked).allowed == allowed
    odd = PUT_A._replace(principal=principal("a/b", KIND_AGENT, uid=""))
    ranged = (KeyPattern("range", ("/n/{principal.name}", "/o")),)
    refusing = state_with(allow(), deny(keys=ranged))
    assert not decide(refusing, odd).allowed  # no name, no end: everything could be meant


def test_what_a_principal_may_read() -> None:
    state = state_with(
        allow(actions=("kv.range",), keys=prefix("c")), grants={"r": {(b"a", b"b"): READ}}
    )
    assert View(state, principal(), HOME).readable() == [KeySpan(b"a", b"b"), KeySpan(b"c", b"d")]
    root = View(state, ROOT, HOME)
    assert root.readable() == [KeySpan(b"", None)]
    assert root.is_root
    assert root.may_write_something
    assert check_key(root, b"x", write=False)
    assert not check_key(View(state, principal(), HOME), b"x", write=False)
    assert View(state, principal("m", KIND_MEMBER), HOME).granted_put(b"x") is None


def test_a_glob_grants_no_range_and_denies_every_range_it_may_touch() -> None:
    glob = (KeyPattern("glob", ("/a/*/c",)),)
    asked = PUT_A._replace(action="kv.delete", span=KeySpan(b"/a/b/c", b"/a/b/d"))
    delete = ("kv.delete",)
    assert not decide(state_with(allow(actions=delete, keys=glob)), asked).allowed
    assert not decide(
        state_with(allow(actions=delete), deny(actions=delete, keys=glob)), asked
    ).allowed
    for span in (prefix_span(b"/a/"), KeySpan(b"/", None), KeySpan(b"/a/b", b"/a/b/c\0")):
        # The glob does not match where the span starts, yet somewhere inside it may.
        wide = asked._replace(span=span)
        assert not decide(
            state_with(allow(actions=delete), deny(actions=delete, keys=glob)), wide
        ).allowed
    whole = asked._replace(span=prefix_span(b"/a/"))
    tree = (KeyPattern("glob", ("/a/**",)),)
    assert decide(state_with(allow(actions=delete, keys=tree)), whole).allowed


def test_hostile_globs_cost_little() -> None:
    glob = "/a/" + "/".join(["**", "x"] * 15) + "/y"
    key = b"/a" + b"/x" * 1000
    state = state_with(allow(keys=(KeyPattern("glob", (glob,)),)))
    assert not decide(state, PUT_A._replace(span=span_of(key, b""))).allowed


# --- caching ------------------------------------------------------------------------------------


def test_az2_a_view_is_rebuilt_when_anything_that_decides_changes() -> None:
    state = state_with(grants={"r": {(b"a", b"b"): WRITE}})
    decider = Decider(state)
    view = decider.view(principal(), HOME)
    assert decider.view(principal(), HOME) is view
    assert view.granted_put(b"a") == "rbac:r"
    state.role_revoke_permission("r", b"a", b"b")
    assert decider.view(principal(), HOME).granted_put(b"a") is None
    assert not decider.decide(PUT_A).allowed


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.auth.decide.DECISION_VIEWS_MAX", 2)
    decider = Decider(state_with())
    views = [decider.view(principal(name), HOME) for name in ("a", "b", "c", "d")]
    assert decider.view(principal("d"), HOME) is views[3]
    assert decider.view(principal("a"), HOME) is not views[0]


# --- twin ---------------------------------------------------------------------------------------

ENDS = ["a", "b", "aa", "ab", "ba"]
POINTS = sorted({bytes(p) for n in range(4) for p in product(b"\0abc", repeat=n)})
ACTIONS = ("kv.range", "kv.put", "kv.delete")

patterns = st.one_of(
    st.builds(lambda k: KeyPattern("key", (k,)), st.sampled_from(ENDS)),
    st.builds(lambda k: KeyPattern("prefix", (k,)), st.sampled_from(ENDS)),
    st.builds(
        lambda a, b: KeyPattern("range", (min(a, b), max(a, b) if a != b else "")),
        st.sampled_from(ENDS),
        st.sampled_from(ENDS),
    ),
)
conditions = st.one_of(
    st.builds(lambda k: Condition("principal.kind", (k,)), st.sampled_from(["user", "agent"])),
    st.just(Condition("principal.role", ("r1",))),
    st.just(Condition("change.ticket_prefix", ("T",))),
    st.just(Condition("value.max_bytes", 5)),
    st.just(Condition("source.cidr", ("10.0.0.0/8",))),
)
rules = st.builds(
    lambda number, effect, actions, keys, when, unless: Rule(
        f"rule{number}",
        effect,
        tuple(sorted(actions)),
        tuple(keys),
        tuple(when),
        tuple(unless) if effect == "deny" else (),
    ),
    st.integers(0, 9),
    st.sampled_from(["allow", "deny"]),
    st.sets(st.sampled_from(ACTIONS), min_size=1),
    st.lists(patterns, max_size=2),
    st.lists(conditions, max_size=2),
    st.lists(conditions, max_size=2),
)
grants = st.dictionaries(
    st.tuples(
        st.sampled_from([e.encode() for e in ENDS]),
        st.sampled_from([b"", b"\0", b"b", b"c"]),
    ).filter(lambda pair: pair[1] in (b"", b"\0") or pair[1] > pair[0]),
    st.sampled_from([READ, WRITE, READWRITE]),
    max_size=3,
)
requests = st.builds(
    lambda who, ip, action, start, end, ticket, size: Request(
        who,
        HOME._replace(ip=ip),
        action,
        span_of(start.encode(), end),
        READ if action == "kv.range" else WRITE,
        ticket=ticket,
        value_bytes=size,
    ),
    st.sampled_from([principal(), ROOT, principal("n", KIND_AGENT)]),
    st.sampled_from(["10.1.2.3", "192.168.0.1", ""]),
    st.sampled_from(ACTIONS),
    st.sampled_from(ENDS),
    st.sampled_from([b"", b"\0", b"b", b"c", b"a"]),
    st.sampled_from(["", "T-1"]),
    st.sampled_from([None, 5, 6]),
)


def truth(condition: Condition, request: Request, roles: set[str]) -> bool | None:
    match condition.attribute:
        case "principal.kind":
            return request.principal.kind in condition.operand  # type: ignore[operator]
        case "principal.role":
            return "r1" in roles
        case "change.ticket_prefix":
            return request.ticket.startswith("T")
        case "value.max_bytes":
            return None if request.value_bytes is None else request.value_bytes <= 5
        case _:
            return request.source.ip.startswith("10.") if request.source.ip else None


def reached_by(rule: Rule) -> set[bytes]:
    def one(pattern: KeyPattern) -> set[bytes]:
        first, last = pattern.texts[0].encode(), pattern.texts[-1].encode()
        match pattern.operator:
            case "key":
                return {point for point in POINTS if point == first}
            case "prefix":
                return {point for point in POINTS if point.startswith(first)}
            case _:
                return {p for p in POINTS if p >= first and (not last or p < last)}

    return set(POINTS) if not rule.keys else set().union(*map(one, rule.keys))


def slow_decide(state: AuthState, request: Request) -> bool:
    """Point by point, rule by rule."""
    assert request.span is not None
    span = request.span
    asked = {span.start} if span.is_empty() else {p for p in POINTS if span.holds(p)}
    user = state.users.get(request.principal.user)
    roles = set(user.roles) if user and user.uid == request.principal.uid else set()
    mine = [rule for rule in state.policy.rules if request.action in rule.actions]
    for rule in mine:
        when = [truth(c, request, roles) for c in rule.when]
        unless = [truth(c, request, roles) for c in rule.unless]
        lifted = bool(unless) and all(value is True for value in unless)
        if rule.effect == "deny" and False not in when and not lifted and asked & reached_by(rule):
            return False
    if "root" in roles:
        return True
    granted: set[bytes] = set()
    for rule in mine:
        if rule.effect == "allow" and all(truth(c, request, roles) is True for c in rule.when):
            granted |= reached_by(rule)
    for role in roles:
        for pair, perm in state.roles[role].items():
            if perm in (request.perm, READWRITE):
                granted |= {point for point in POINTS if span_of(*pair).holds(point)}
    return asked <= granted


@settings(max_examples=400, deadline=None)
@given(
    made=st.lists(rules, max_size=5),
    first=grants,
    second=grants,
    request=requests,
)
def test_decide_agrees_with_counting_points(
    made: list[Rule],
    first: dict[tuple[bytes, bytes], int],
    second: dict[tuple[bytes, bytes], int],
    request: Request,
) -> None:
    state = state_with(*made, grants={"r1": first, "r2": second})
    found = decide(state, request)
    assert found.allowed == slow_decide(state, request)
    view = View(state, request.principal, request.source)
    assert request.span is not None
    label = view.granted(request.action, request.span)
    if label is not None:  # the fast path may only say what the whole judgement says
        assert found == Decision(True, label)
    if request.action == "kv.put" and request.span == span_of(request.span.start, b""):
        assert view.granted_put(request.span.start) == label
        assert check_key(view, request.span.start, write=True) == (label is not None)
    if not any(rule.effect == "deny" or rule.when for rule in made):
        assert (label is not None) == found.allowed
    account = explain(state, request)
    assert account.decision == found
    matched = [line.rule for line in account.considered if line.verdict == "MATCH"]
    if not found.allowed and found.rule != "default":
        assert matched == [found.rule]
    if found.rule.startswith("rule") and "+" not in found.rule:
        assert found.rule in matched
