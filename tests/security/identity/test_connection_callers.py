"""Who calls over a connection of a secure member: tokens of agents, denied leaves, gateways."""

from __future__ import annotations

import time

import pytest

from configsvc.api.callers import Callers, Connection
from configsvc.auth.state import AuthState
from configsvc.errors import CertificateNotAcceptableError, UserEmptyError
from configsvc.identity.certificate import LeafIdentity, parse_leaf
from configsvc.identity.names import CLIENT_KINDS
from configsvc.identity.tokens import TokenKey, mint, public_key
from configsvc.types import KIND_AGENT, KIND_SERVICE, KIND_USER
from tests.support.pki import TRUST_DOMAIN, Pki, uri

UID = "0a" * 16


class SecureMember:
    """What ``Callers`` asks of a member; the key is its own."""

    trust_domain = TRUST_DOMAIN
    issuer = audience = "test"

    def __init__(self) -> None:
        self.auth = AuthState()
        self.auth.bootstrap(insecure=False, root_uid="00" * 16)
        self.key = TokenKey.generate()
        self.token_keys = {self.key.kid: public_key(self.key.public_bytes, accepted=True)}
        self.applied = 1

    def time_ns(self) -> int:
        return time.time_ns()

    def token(self, user: str, cid: str) -> bytes:
        made = mint(
            self.key, iss="test", aud="test", sub=user, uid=UID, cid=cid, arev=1,
            now=int(time.time()), ttl=60,
        )  # fmt: skip
        return made.encode()


@pytest.fixture
def member() -> SecureMember:
    return SecureMember()


def connect(member: SecureMember, pki: Pki, kind: str, name: str) -> Connection:
    callers = Callers(member, insecure=False)
    return callers.connection(pki.der(kind, name), "127.0.0.1", "TLSv1.3")


def leaf_of(pki: Pki, kind: str, name: str) -> LeafIdentity:
    return parse_leaf(pki.der(kind, name), trust_domain=TRUST_DOMAIN, kinds=CLIENT_KINDS)


@pytest.mark.parametrize(
    ("user", "kind", "name"),
    [
        ("agent/node-1", KIND_AGENT, "node-1"),
        ("service/billing", KIND_SERVICE, "billing"),
        ("hana", KIND_USER, "hana"),
    ],
)
def test_an_agent_with_a_password_stays_an_agent(
    member: SecureMember, pki: Pki, user: str, kind: str, name: str
) -> None:
    """Rules that bind agents bind them however they logged in."""
    connection = connect(member, pki, "agent", "node-1")
    token = member.token(user, uri("agent", "node-1"))
    who = connection.caller(((b"token", token),)).principal
    assert (who.kind, who.name, who.user) == (kind, name, user)
    assert (who.method, who.uid) == ("token", UID)


@pytest.mark.parametrize("what", ["serial", "identity"])
def test_a_denied_certificate_makes_no_request_whatever_it_needs(
    member: SecureMember, pki: Pki, what: str
) -> None:
    """PKI-13: also where a certificate is enough, and on a connection that was known before."""
    connection = connect(member, pki, "user", "hana")
    metadata = ((b"user-agent", b"curl/8"),)
    assert connection.caller(metadata).principal.user == "hana"
    leaf = leaf_of(pki, "user", "hana")
    member.auth.revoke(what, leaf.serial_hex if what == "serial" else leaf.uri, 0, time.time_ns())
    for _ in range(2):
        with pytest.raises(CertificateNotAcceptableError):
            connection.caller(metadata)
    assert connect(member, pki, "user", "omar").caller(metadata).principal.user == "omar"


@pytest.mark.parametrize("field", [b"grpcgateway-accept", b"grpcgateway-user-agent"])
def test_a_foreign_gateway_is_known_by_any_field_it_passes_on(
    member: SecureMember, pki: Pki, field: bytes
) -> None:
    """ID-7: its client may leave out the one that etcd looks for."""
    connection = connect(member, pki, "service", "proxy")
    with pytest.raises(UserEmptyError):
        connection.caller(((field, b"x"),))
    token = member.token("hana", uri("service", "proxy"))
    assert connection.caller(((field, b"x"), (b"token", token))).principal.user == "hana"


def test_a_caller_knows_when_its_certificate_runs_out(member: SecureMember, pki: Pki) -> None:
    caller = connect(member, pki, "user", "hana").caller(())
    assert caller.expires_ns == leaf_of(pki, "user", "hana").not_after * 1_000_000_000
