"""A13, A16: etcd's simple tokens, on every member, sliding, gone with what they stood for."""

from __future__ import annotations

import re

import pytest

from configsvc.auth.messages import ROOT
from configsvc.auth.state import AuthState
from configsvc.identity import etcd_tokens
from configsvc.identity.errors import InvalidToken
from configsvc.identity.etcd_tokens import SimpleTokens
from configsvc.limits import TOKEN_LEEWAY_S

S = 1_000_000_000
NOW = 1_800_000_000 * S
TTL = 300


@pytest.fixture
def auth() -> AuthState:
    state = AuthState()
    state.bootstrap(insecure=True, root_uid="")
    for name in (ROOT, "hana", "bare"):
        state.user_add(name, "" if name == "bare" else f"$hash-of-{name}", name == "bare", name)
    state.user_grant_role(ROOT, ROOT)
    state.role_add("r")
    state.enable()
    return state


def member(started_ns: int = NOW - S) -> SimpleTokens:
    return SimpleTokens(TTL, started_ns)


def given(auth: AuthState, maker: SimpleTokens, name: str = "hana", now_ns: int = NOW) -> str:
    return maker.assign(auth, auth.users[name], 42, now_ns)


def test_the_form_is_etcds(auth: AuthState) -> None:
    assert re.fullmatch(r"[A-Za-z]{16}\.42", given(auth, member()))


def test_every_member_knows_whose_it_is(auth: AuthState) -> None:
    maker, other = member(), member()
    token = given(auth, maker)
    for where in (maker, other, other):
        bearer = where.bearer(auth, token, NOW + S)
        assert (bearer.user, bearer.uid) == ("hana", "hana")
    assert token not in repr(bearer)
    assert given(auth, maker, ROOT) != token


def test_it_lives_after_its_last_use_on_each_member(auth: AuthState) -> None:
    maker, other = member(), member()
    token = given(auth, maker)
    maker.bearer(auth, token, NOW + TTL * S - 1)
    maker.bearer(auth, token, NOW + 2 * TTL * S - 2)
    with pytest.raises(InvalidToken, match="run out"):
        other.bearer(auth, token, NOW + TTL * S)
    with pytest.raises(InvalidToken, match="not been used"):
        maker.bearer(auth, token, NOW + 3 * TTL * S)
    with pytest.raises(InvalidToken):  # and once dead it stays dead
        maker.bearer(auth, token, NOW + 3 * TTL * S)


def test_changes_of_rights_do_not_end_it(auth: AuthState) -> None:
    where = member()
    token = given(auth, where)
    auth.user_grant_role("hana", "r")
    auth.user_revoke_role("hana", "r")
    assert where.bearer(auth, token, NOW).auth_revision == auth.revision
    assert member().bearer(auth, token, NOW).user == "hana"


def _password(auth: AuthState) -> None:
    auth.user_change_password("hana", "$another")


def _delete(auth: AuthState) -> None:
    auth.user_delete("hana")


def _recreate(auth: AuthState) -> None:
    auth.user_delete("hana")
    auth.user_add("hana", "$hash-of-hana", False, "another")


def _disable(auth: AuthState) -> None:
    auth.disable()
    auth.enable()


def _revoke_all(auth: AuthState) -> None:
    auth.revoke("all", "", 0, NOW)


@pytest.mark.parametrize("change", [_password, _delete, _recreate, _disable, _revoke_all])
def test_what_ends_it_ends_it_everywhere(auth: AuthState, change: object) -> None:
    maker = member()
    token = given(auth, maker)
    change(auth)  # type: ignore[operator]
    for where in (maker, member()):
        with pytest.raises(InvalidToken):
            where.bearer(auth, token, NOW)


def test_a_restarted_member_takes_none_of_before(auth: AuthState) -> None:
    token = given(auth, member())
    with pytest.raises(InvalidToken):
        member(NOW + S).bearer(auth, token, NOW + 2 * S)


@pytest.mark.parametrize("at", [*range(16), 17])
def test_a_changed_letter_makes_it_nobodys(auth: AuthState, at: int) -> None:
    token = given(auth, member())
    other = "1" if at > 15 else "Q" if token[at] != "Q" else "R"
    with pytest.raises(InvalidToken):
        member().bearer(auth, token[:at] + other + token[at + 1 :], NOW)


@pytest.mark.parametrize(
    "token", ["", ".", "bad.1", "A" * 16, "A" * 16 + ".", "A" * 16 + ".x", "A" * 16 + ".-1",
              "A" * 16 + ".1\n", "1" * 16 + ".1", "a.b.c"],
)  # fmt: skip
def test_other_texts_are_no_tokens(auth: AuthState, token: str) -> None:
    with pytest.raises(InvalidToken):
        member().bearer(auth, token, NOW)


def test_one_of_the_future_is_refused(auth: AuthState) -> None:
    token = given(auth, member(), now_ns=NOW + (TOKEN_LEEWAY_S + 1) * S)
    with pytest.raises(InvalidToken, match="future"):
        member().bearer(auth, token, NOW)


def test_a_user_without_password_has_none(auth: AuthState) -> None:
    token = given(auth, member(), "bare")  # nobody is given this one: the key would be empty
    with pytest.raises(InvalidToken, match="nobody"):
        member().bearer(auth, token, NOW)


def test_what_is_remembered_is_bounded(auth: AuthState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_tokens, "SIMPLE_TOKENS_MAX", 2)
    where = member()
    first, second, third = (given(auth, where, now_ns=NOW + i * S) for i in range(3))
    late = NOW + TTL * S + S // 2  # past the first one's own time, within the others'
    with pytest.raises(InvalidToken):
        where.bearer(auth, first, late)
    assert [where.bearer(auth, t, late).user for t in (second, third)] == ["hana", "hana"]
