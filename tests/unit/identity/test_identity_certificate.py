"""ID-2, ID-3, ID-4, N47, N50, N51: which leaf is whose identity, and which is nobody's."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import InvariantViolationError
from configsvc.identity.authority import Authority
from configsvc.identity.certificate import (
    CertificateRejected,
    LeafIdentity,
    check_time,
    parse_common_name,
    parse_leaf,
    principal_of,
)
from configsvc.identity.names import (
    CLIENT_KINDS,
    IDENTITY_KINDS,
    IdentityName,
    is_host_name,
    is_name,
    is_trust_domain,
    parse_uri,
)
from configsvc.limits import IDENTITY_URI_CHARS_MAX, LEAF_DER_BYTES_MAX
from tests.support.pki import CLIENT, SERVER, TRUST_DOMAIN, Odd, Pki, odd_leaf, uri

Make = Callable[[Authority], Odd]


def parse(der: bytes, kinds: frozenset[str] = IDENTITY_KINDS) -> LeafIdentity:
    return parse_leaf(der, trust_domain=TRUST_DOMAIN, kinds=kinds)


@pytest.mark.parametrize(
    ("kind", "name", "user"),
    [
        pytest.param("user", "root", "root", id="user"),
        pytest.param("agent", "root", "agent/root", id="an-agent-called-root-is-not-root"),
        pytest.param("service", "billing.eu", "service/billing.eu", id="service"),
    ],
)
def test_what_our_issuer_makes_is_accepted(pki: Pki, kind: str, name: str, user: str) -> None:
    leaf = parse(pki.der(kind, name))
    assert (leaf.kind, leaf.name, leaf.uri) == (kind, name, uri(kind, name))
    assert not leaf.serial_hex.startswith("0")
    assert len(leaf.sha256_hex) == 64
    check_time(leaf, int(time.time()))
    principal = principal_of(leaf)
    assert (principal.kind, principal.name, principal.user) == (kind, name, user)
    assert (principal.method, principal.uid, principal.jti) == ("certificate", "", "")
    assert principal.cert_serial == leaf.serial_hex


@pytest.mark.parametrize("kind", ["member", "server"])
def test_members_and_servers_are_never_data_clients(pki: Pki, kind: str) -> None:
    der = pki.der(kind, "00000000000000aa" if kind == "member" else "m1")
    leaf = parse(der)
    with pytest.raises(CertificateRejected, match="may not use this port"):
        parse(der, CLIENT_KINDS)
    with pytest.raises(InvariantViolationError):
        principal_of(leaf)


def test_time_is_judged_to_the_second(pki: Pki) -> None:
    leaf = parse(pki.der("user", "root"))
    check_time(leaf, leaf.not_before)
    check_time(leaf, leaf.not_after)
    with pytest.raises(CertificateRejected, match="not valid yet"):
        check_time(leaf, leaf.not_before - 1)
    with pytest.raises(CertificateRejected, match="expired"):
        check_time(leaf, leaf.not_after + 1)


DAY = 86_400
BROKEN: list[tuple[str, str, Make]] = [
    ("no-uri", "exactly one URI", lambda ca: odd_leaf(ca, uris=[])),
    ("two-uris", "exactly one URI",
     lambda ca: odd_leaf(ca, uris=[uri("user", "root"), uri("user", "bob")])),
    ("the-same-uri-twice", "exactly one URI", lambda ca: odd_leaf(ca, uris=[uri("user", "a")] * 2)),
    ("other-trust-domain", "another trust domain",
     lambda ca: odd_leaf(ca, uris=[uri("user", "root", "evil.example")])),
    ("no-eku", "has no extended key usage", lambda ca: odd_leaf(ca, usages=None)),
    ("server-eku", "not exact", lambda ca: odd_leaf(ca, usages=[SERVER])),
    ("both-ekus", "not exact", lambda ca: odd_leaf(ca, usages=[CLIENT, SERVER])),
    ("twice-the-eku", "not exact", lambda ca: odd_leaf(ca, usages=[CLIENT, CLIENT])),
    ("any-eku", "not exact",
     lambda ca: odd_leaf(ca, usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
    ("member-with-one-eku", "not exact",
     lambda ca: odd_leaf(ca, uris=[uri("member", "1")], usages=[CLIENT])),
    ("ca-bit", "is a CA", lambda ca: odd_leaf(ca, ca=True)),
    ("no-basic-constraints", "is a CA, or does not say", lambda ca: odd_leaf(ca, ca=None)),
    ("no-digital-signature", "key usage", lambda ca: odd_leaf(ca, digital_signature=False)),
    ("hundred-years", "lives longer", lambda ca: odd_leaf(ca, ends=36_500 * DAY)),
    ("user-for-a-week", "lives longer", lambda ca: odd_leaf(ca, ends=7 * DAY)),
    ("rsa", "key is not",
     lambda ca: odd_leaf(ca, key=rsa.generate_private_key(65_537, 2_048))),
    ("ed25519", "key is not", lambda ca: odd_leaf(ca, key=ed25519.Ed25519PrivateKey.generate())),
    ("p-521", "key is not", lambda ca: odd_leaf(ca, key=ec.generate_private_key(ec.SECP521R1()))),
    ("secp256k1", "key is not",
     lambda ca: odd_leaf(ca, key=ec.generate_private_key(ec.SECP256K1()))),
    ("wildcard", "wildcard", lambda ca: odd_leaf(ca, names=[x509.DNSName("*.example.com")])),
    ("nul-in-dns", "wildcard or not plain",
     lambda ca: odd_leaf(ca, names=[x509.DNSName("good.example\0.evil.example")])),
    ("email", "unknown kind", lambda ca: odd_leaf(ca, names=[x509.RFC822Name("a@example.com")])),
    ("critical-stranger", "nobody knows",
     lambda ca: odd_leaf(ca, adjust=lambda b: b.add_extension(
         x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), critical=True))),
    ("48-kib", "too long",
     lambda ca: odd_leaf(ca, names=[x509.DNSName("a" * 60 + f".n{n}") for n in range(700)])),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "make"), [pytest.param(r, m, id=i) for i, r, m in BROKEN])
def test_leaves_of_the_right_ca_that_are_nobody(pki: Pki, reason: str, make: Make) -> None:
    with pytest.raises(CertificateRejected, match=reason):
        parse(make(pki.authority("client")).der)


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://test.example/user/Root",
        "SPIFFE://test.example/user/root",
        "spiffe://Test.example/user/root",
        "spiffe://test.example/user/root/",
        "spiffe://test.example/user//root",
        "spiffe://test.example//user/root",
        "spiffe://test.example/user/../root",
        "spiffe://test.example/user/%72oot",
        "spiffe://test.example/user/root?x=1",
        "spiffe://test.example/user/root#x",
        "spiffe://test.example:443/user/root",
        "spiffe://a@test.example/user/root",
        "spiffe://test.example/user/root\x00",
        "spiffe://test.example/user/root\n",
        "spiffe://test.example/user/ro\x00ot",
        "spiffe://test.example/user/ro'ot",
        'spiffe://test.example/user/ro"ot',
        "spiffe://test.example/user/{root}",
        "spiffe://test.example/user/",
        "spiffe://test.example/user/-root",
        "spiffe://test.example/user/.root",
        "spiffe://test.example/root/root",
        "spiffe://test.example/USER/root",
        "spiffe://test.example/user",
        "spiffe:///user/root",
        "https://test.example/user/root",
        " spiffe://test.example/user/root",
        "",
        f"spiffe://test.example/user/{'a' * 64}",
        f"spiffe://{'a' * 64}/user/root",
        f"spiffe://test.example/user/{'a' * IDENTITY_URI_CHARS_MAX}",
    ],
)
def test_uris_have_one_spelling(pki: Pki, text: str) -> None:
    assert parse_uri(text) is None
    try:
        odd = odd_leaf(pki.authority("client"), uris=[text])
    except ValueError:
        return  # cannot even be written into a certificate
    with pytest.raises(CertificateRejected):
        parse(odd.der)


def test_hosts_beside_the_uri_change_nothing(pki: Pki) -> None:
    names = [x509.DNSName("db.example"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    leaf = parse(odd_leaf(pki.authority("client"), names=names, common_name="bob").der)
    assert leaf.uri == uri("user", "root")  # with a URI the common name does not count


def test_p_384_is_accepted(pki: Pki) -> None:
    odd = odd_leaf(pki.authority("client"), key=ec.generate_private_key(ec.SECP384R1()))
    assert parse(odd.der).name == "root"


@given(st.binary(max_size=400))
def test_junk_is_rejected_and_nothing_else_raised(data: bytes) -> None:
    with pytest.raises(CertificateRejected):
        parse(data)


def test_changed_bytes_never_raise_anything_else(pki: Pki) -> None:
    der = pki.der("user", "root")
    for at in range(len(der)):
        changed = bytearray(der)
        changed[at] ^= 0x41
        try:
            leaf = parse(bytes(changed))
        except CertificateRejected:
            continue
        assert parse_uri(leaf.uri)  # whatever changed was not the identity's grammar


def test_length_is_judged_before_parsing() -> None:
    with pytest.raises(CertificateRejected, match="too long"):
        parse(bytes(LEAF_DER_BYTES_MAX + 1))


# --- common names (off by default) ----------------------------------------------------------------


def test_a_common_name_counts_only_without_a_uri(pki: Pki) -> None:
    ca = pki.authority("client")
    leaf = parse_common_name(odd_leaf(ca, uris=[], common_name="alice").der)
    assert (leaf.kind, leaf.name, leaf.uri) == ("user", "alice", "")
    for odd in (
        odd_leaf(ca, common_name="alice"),
        odd_leaf(ca, uris=[], common_name="Alice"),
        odd_leaf(ca, uris=[]),
    ):
        with pytest.raises(CertificateRejected):
            parse_common_name(odd.der)


# --- grammar --------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True).filter(str.isascii)


@given(st.sampled_from(sorted(IDENTITY_KINDS)), NAMES)
def test_uri_round_trip(kind: str, name: str) -> None:
    made = IdentityName(TRUST_DOMAIN, kind, name)
    assert parse_uri(made.uri) == made


@given(st.text(max_size=70))
def test_names_by_the_slow_rule(text: str) -> None:
    first = "abcdefghijklmnopqrstuvwxyz0123456789"
    slow = 1 <= len(text) <= 63 and text[0] in first and all(c in first + "._-" for c in text[1:])
    assert is_name(text) == slow


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", True), ("localhost", True), ("db-1.eu.example", True), ("1.example", True),
        ("", False), ("*.example", False), ("a..b", False), ("a.", False), (".a", False),
        ("A.example", False), ("-a.example", False), ("a-.example", False), ("a_b.example", False),
        ("10.0.0.1", False), ("example.1", False), ("ä.example", False), ("a\0b", False),
        ("a" * 64, False), (".".join(["a" * 63] * 4), False), ("a\n", False),
    ],
)  # fmt: skip
def test_host_names(text: str, expected: bool) -> None:
    assert is_host_name(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("prod.example", True), ("a", True), ("", False), ("a..b", False), ("a_b", False),
     ("Prod", False), ("a/b", False), ("a" * 64, False), ("a.", False)],
)  # fmt: skip
def test_trust_domains(text: str, expected: bool) -> None:
    assert is_trust_domain(text) == expected
