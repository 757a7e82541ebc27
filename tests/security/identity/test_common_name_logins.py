"""A certificate of etcd's kind, without a URI: nobody, refused, or the user of its common name."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from configsvc.api.callers import ANONYMOUS, Callers
from configsvc.auth.state import AuthState
from configsvc.errors import (
    CertificateNotAcceptableError,
    InvalidAuthTokenError,
    UserEmptyError,
)
from configsvc.types import KIND_USER, Principal
from tests.support.pki import SERVER, TRUST_DOMAIN, Pki, odd_leaf, uri


class FakeMember:
    """What ``Callers`` asks of a member."""

    trust_domain = TRUST_DOMAIN
    issuer = audience = "test"

    def __init__(self) -> None:
        self.auth = AuthState()
        self.auth.bootstrap(insecure=True, root_uid="00")
        self.auth.user_add("hana", "", True, "0a")
        self.token_keys: dict[str, object] = {}

    def time_ns(self) -> int:
        return time.time_ns()


def callers(*, insecure: bool, common_names: bool) -> tuple[Callers, list[str]]:
    heard: list[str] = []
    made = Callers(
        FakeMember(),  # type: ignore[arg-type]
        insecure=insecure,
        common_names=common_names,
        on_rejected=lambda _source, reason: heard.append(reason),
    )
    return made, heard


def foreign(pki: Pki, name: str, uris: Sequence[str] = (), **more: int) -> bytes:
    return odd_leaf(pki.authority("client"), uris=uris, common_name=name, **more).der  # type: ignore[arg-type]


def who(made: Callers, der: bytes, *metadata: tuple[bytes, bytes]) -> Principal:
    return made.connection(der, "127.0.0.1", "TLSv1.3").caller(metadata).principal


def test_the_common_name_is_the_user_where_it_was_asked_for(pki: Pki) -> None:
    made, _ = callers(insecure=True, common_names=True)
    known = who(made, foreign(pki, "hana"))
    assert (known.kind, known.user, known.uid, known.cert_uri) == (KIND_USER, "hana", "0a", "")
    assert known.cert_serial
    unknown = who(made, foreign(pki, "stranger"))
    assert (unknown.user, unknown.uid) == ("stranger", "")


def test_a_secure_member_takes_no_common_name_whatever_the_switch_says(pki: Pki) -> None:
    for switch in (False, True):
        made, heard = callers(insecure=False, common_names=switch)
        with pytest.raises(CertificateNotAcceptableError):
            who(made, foreign(pki, "root"))
        assert heard


def test_without_the_switch_it_says_nothing(pki: Pki) -> None:
    made, _ = callers(insecure=True, common_names=False)
    assert who(made, foreign(pki, "root")) == ANONYMOUS


@pytest.mark.parametrize("switch", [False, True])
def test_beside_a_uri_a_common_name_does_not_count(pki: Pki, switch: bool) -> None:
    made, _ = callers(insecure=True, common_names=switch)
    own = who(made, pki.der("user", "hana"))
    assert (own.user, own.cert_uri) == ("hana", uri("user", "hana"))
    for other in (uri("server", "one"), uri("user", "hana", "elsewhere.example"), "https://x/"):
        with pytest.raises(CertificateNotAcceptableError):
            who(made, foreign(pki, "root", [other]))
    with pytest.raises(CertificateNotAcceptableError):
        who(made, odd_leaf(pki.authority("client"), usages=(SERVER,), common_name="root").der)


@pytest.mark.parametrize("switch", [False, True])
def test_one_that_has_run_out_or_names_nobody_is_refused(pki: Pki, switch: bool) -> None:
    made, heard = callers(insecure=True, common_names=switch)
    for der in (
        foreign(pki, "hana", begins=-7_200, ends=-3_600),
        foreign(pki, "hana", begins=3_600, ends=7_200),
        foreign(pki, ""),
        foreign(pki, "agent/n1"),
        foreign(pki, "Hana\n"),
        b"\x30\x03\x02\x01\x00",
    ):
        with pytest.raises(CertificateNotAcceptableError):
            who(made, der)
    assert len(heard) == 6


def test_a_token_wins_and_a_bad_one_never_falls_back(pki: Pki) -> None:
    made, _ = callers(insecure=True, common_names=True)
    with pytest.raises(InvalidAuthTokenError):
        who(made, foreign(pki, "hana"), (b"token", b"abcdefghijklmnop.7"))


def test_a_foreign_gateways_common_name_is_nobody(pki: Pki) -> None:
    made, _ = callers(insecure=True, common_names=True)
    with pytest.raises(UserEmptyError):
        who(made, foreign(pki, "hana"), (b"grpcgateway-accept", b"*/*"))
