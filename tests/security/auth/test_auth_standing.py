"""Who still stands: N22, N23, N24, JWT-5 to JWT-10, ID-3, ID-8."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from configsvc import errors
from configsvc.auth.decide import decide
from configsvc.auth.messages import READ, Request
from configsvc.auth.standing import check_principal
from configsvc.auth.state import AuthState
from configsvc.types import KIND_NONE, SYSTEM_PRINCIPAL, Principal, span_of
from tests.support.auth_cases import HOME, principal, state_with, token

NOW = 1_000
OLD = errors.AuthOldRevisionError
BAD = errors.InvalidAuthTokenError
CERT = errors.CertificateNotAcceptableError
NOBODY = Principal(KIND_NONE, "", "", "", "", "", "", "insecure-dev", "", "", 0)


@pytest.fixture
def state() -> AuthState:
    made = state_with(grants={"app": {(b"a", b"b"): READ}})
    made.role_add("other")
    return made


def test_a_good_principal_stands(state: AuthState) -> None:
    for who in (SYSTEM_PRINCIPAL, principal(), principal("unknown", uid=""), token(state.revision)):
        check_principal(state, who, NOW)


def test_no_identity_stands_only_while_auth_is_off_in_an_insecure_store(state: AuthState) -> None:
    with pytest.raises(errors.PermissionDeniedError):
        check_principal(state, NOBODY, NOW)
    fresh = AuthState()
    with pytest.raises(errors.PermissionDeniedError):
        check_principal(fresh, NOBODY, NOW)
    fresh.bootstrap(insecure=True, root_uid="")
    check_principal(fresh, NOBODY, NOW)


def delete_and_recreate(state: AuthState) -> None:
    state.user_delete("hana")
    state.user_add("hana", "", True, "02")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda s: s.user_revoke_role("hana", "app"), OLD, id="role-revoked"),
        pytest.param(lambda s: s.role_delete("app"), OLD, id="role-deleted"),
        pytest.param(lambda s: s.user_change_password("hana", "$"), OLD, id="password"),
        pytest.param(lambda s: s.user_delete("hana"), OLD, id="deleted"),
        pytest.param(delete_and_recreate, OLD, id="re-created"),
        pytest.param(lambda s: s.revoke("user", "hana", 0, NOW), OLD, id="user"),
        pytest.param(lambda s: s.revoke("all", "", 0, NOW), OLD, id="all"),
        pytest.param(lambda s: s.revoke("jti", "abcd", 0, NOW), BAD, id="jti"),
        pytest.param(lambda s: s.revoke("kid", "kid-1", 0, NOW), BAD, id="kid"),
        pytest.param(lambda s: s.revoke("serial", "0a", 0, NOW), CERT, id="serial"),
        pytest.param(
            lambda s: s.revoke("identity", "spiffe://test/user/hana", 0, NOW),
            CERT,
            id="identity",
        ),
    ],
)
def test_n22_n24_a_token_from_before_is_dead(
    state: AuthState, change: Callable[[AuthState], object], error: type[Exception]
) -> None:
    old = token(state.revision)
    version = state.version
    change(state)
    assert state.version > version  # so that every cached view and open watch looks again
    with pytest.raises(error):
        check_principal(state, old, NOW)


def test_a_token_from_after_is_good_again(state: AuthState) -> None:
    changes: tuple[Callable[[], object], ...] = (
        lambda: state.user_change_password("hana", "$"),
        lambda: state.revoke("user", "hana", 0, NOW),
        lambda: state.revoke("all", "", 0, NOW),
    )
    for change in changes:
        change()
        check_principal(state, token(state.revision), NOW)


def test_jwt7_unrelated_changes_do_not_hurt(state: AuthState) -> None:
    old = token(state.revision)
    state.role_add("unrelated")
    state.user_add("somebody", "", True, "09")
    state.user_change_password("somebody", "$")
    state.user_grant_role("hana", "other")
    check_principal(state, old, NOW)


def test_n23_a_token_from_the_future_is_no_token(state: AuthState) -> None:
    with pytest.raises(errors.InvalidAuthTokenError):
        check_principal(state, token(state.revision + 1), NOW)
    with pytest.raises(errors.InvalidAuthTokenError):
        check_principal(state, token(2**62), NOW)


def test_a_token_without_a_user_is_no_token(state: AuthState) -> None:
    with pytest.raises(errors.InvalidAuthTokenError):
        check_principal(state, token(state.revision, name="unknown", uid=""), NOW)


def test_a_certificate_outlives_a_password_change_but_not_its_user(state: AuthState) -> None:
    state.user_change_password("hana", "$")
    check_principal(state, principal(), NOW)
    delete_and_recreate(state)
    with pytest.raises(errors.AuthOldRevisionError):
        check_principal(state, principal(), NOW)
    check_principal(state, principal(uid=""), NOW)  # proven anew: the name's new rights


def test_a_denial_ends_when_it_says(state: AuthState) -> None:
    state.revoke("serial", "0a", NOW + 5, NOW)
    with pytest.raises(errors.CertificateNotAcceptableError):
        check_principal(state, principal(), NOW + 4)
    check_principal(state, principal(), NOW + 5)


def test_another_certificate_is_not_hurt(state: AuthState) -> None:
    state.revoke("serial", "0b", 0, NOW)
    state.revoke("identity", "spiffe://test/user/omar", 0, NOW)
    state.revoke("jti", "0a", 0, NOW)  # another kind of name
    check_principal(state, principal(), NOW)


def test_n24_rights_follow_the_state_that_decides(state: AuthState) -> None:
    asked = Request(principal(), HOME, "kv.range", span_of(b"a", b""), READ)
    assert decide(state, asked).allowed
    state.role_revoke_permission("app", b"a", b"b")
    assert not decide(state, asked).allowed


def test_id8_a_re_created_user_inherits_nothing(state: AuthState) -> None:
    asked = Request(principal(), HOME, "kv.range", span_of(b"a", b""), READ)
    delete_and_recreate(state)
    state.user_grant_role("hana", "app")
    assert not decide(state, asked).allowed
    assert decide(state, asked._replace(principal=principal(uid="02"))).allowed
