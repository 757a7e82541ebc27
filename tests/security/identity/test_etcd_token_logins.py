"""Tokens of etcd's kinds count in a store of the insecure mode, and never in a secure member."""

from __future__ import annotations

import pytest

from configsvc.api.callers import Callers
from configsvc.auth.state import AuthState
from configsvc.errors import CertificateNotAcceptableError, InvalidAuthTokenError
from configsvc.identity.etcd_tokens import SIMPLE_KEY_ID, SimpleTokens
from configsvc.types import KIND_USER, Principal
from tests.support.pki import TRUST_DOMAIN, Pki

NOW = 1_800_000_000_000_000_000


class FakeMember:
    """What ``Callers`` asks of a member."""

    trust_domain = TRUST_DOMAIN
    issuer = audience = "test"
    applied = 9

    def __init__(self) -> None:
        self.auth = AuthState()
        self.auth.bootstrap(insecure=True, root_uid="")
        self.auth.user_add("root", "$hash", False, "0a")
        self.auth.user_grant_role("root", "root")
        self.token_keys: dict[str, object] = {}

    def time_ns(self) -> int:
        return NOW


@pytest.fixture
def member() -> FakeMember:
    return FakeMember()


def who(member: FakeMember, token: str) -> Principal:
    tokens = SimpleTokens(300, NOW - 1)
    made = Callers(member, insecure=True, etcd_tokens=tokens)  # type: ignore[arg-type]
    connection = made.connection(None, "127.0.0.1", "")
    return connection.caller(((b"token", token.encode()),)).principal


def given(member: FakeMember) -> str:
    return SimpleTokens(300, NOW - 1).assign(member.auth, member.auth.users["root"], 9, NOW)


def test_a_simple_token_is_its_user(member: FakeMember) -> None:
    member.auth.enable()
    token = given(member)
    found = who(member, token)
    assert (found.kind, found.name, found.user, found.uid) == (KIND_USER, "root", "root", "0a")
    assert (found.method, found.key_id) == ("token", SIMPLE_KEY_ID)
    assert token not in repr(found)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_bad_one_does_not_fall_back(member: FakeMember, enabled: bool) -> None:
    if enabled:
        member.auth.enable()
    with pytest.raises(InvalidAuthTokenError):
        who(member, "A" * 16 + ".9")


def test_a_secure_member_takes_none(member: FakeMember, pki: Pki) -> None:
    member.auth.enable()
    tokens = SimpleTokens(300, NOW - 1)
    made = Callers(member, insecure=False, etcd_tokens=tokens)  # type: ignore[arg-type]
    with pytest.raises(CertificateNotAcceptableError):
        made.connection(None, "127.0.0.1", "")
    assert made._etcd_tokens is None
