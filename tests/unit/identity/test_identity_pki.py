"""PKI-1 to PKI-8, N62: authorities, leaves in files, requests, bundles."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from configsvc.errors import ConfigError
from configsvc.identity import authority as authority_module
from configsvc.identity import pki as product
from configsvc.identity.authority import certificate_pem, make_issuing, make_root
from configsvc.identity.bundles import check_issued_by, validate_bundle
from configsvc.identity.certificate import CertificateRejected, parse_leaf
from configsvc.identity.errors import BundleRejected, IssueRefused
from configsvc.identity.profiles import LIFETIME_MAX, PROFILES
from configsvc.identity.requests import Enrolment, check_csr, issue_from_csr, renew_from_csr
from configsvc.limits import CSR_BYTES_MAX, LEAF_HOSTS_MAX
from configsvc.storage.seal.keyfile import KeyFile
from tests.support.pki import TRUST_DOMAIN, Pki, odd_leaf, uri

NOW = int(time.time())
DAY = 86_400


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


# --- authorities ----------------------------------------------------------------------------------


def test_a_new_pki(tmp_path: Path) -> None:
    where = tmp_path / "pki"
    product.init_pki(where, "prod.example")
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    for path in where.iterdir():
        expected = 0o644 if path.suffix in (".pem", ".json") else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
        assert b"PRIVATE KEY" not in path.read_bytes()  # CA keys are sealed
    root = load(where / "root.pem")
    for purpose in ("peer", "server", "client"):
        ca = load(where / f"ca-{purpose}.pem")
        ca.verify_directly_issued_by(root)
        basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
        assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
        validate_bundle((where / f"ca-{purpose}.pem").read_bytes(), int(time.time()))
    assert product.trust_domain_of(where) == "prod.example"
    assert root.not_valid_after_utc.timestamp() - NOW > 3_600 * DAY


def test_a_pki_is_never_overwritten(tmp_path: Path) -> None:
    product.init_pki(tmp_path / "pki", "prod.example")
    before = {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()}
    with pytest.raises(ConfigError, match="not empty"):
        product.init_pki(tmp_path / "pki", "prod.example")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "pki").iterdir()}


@pytest.mark.parametrize("trust_domain", ["", "Prod", "a/b", "a b", "x" * 64])
def test_bad_trust_domains_leave_nothing_behind(tmp_path: Path, trust_domain: str) -> None:
    with pytest.raises(IssueRefused):
        product.init_pki(tmp_path / "pki", trust_domain)
    assert not (tmp_path / "pki").exists()


def test_directories_that_others_reach_are_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="others may reach") as caught:
        product.init_pki(open_to_all, "prod.example")
    assert "chmod 700" in caught.value.remedy
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    with pytest.raises(ConfigError):
        product.init_pki(tmp_path / "link", "prod.example")


def test_ca_keys_open_with_their_key_file_only(tmp_path: Path) -> None:
    kek = KeyFile.create(tmp_path / "kek")
    product.init_pki(tmp_path / "pki", "prod.example", key_file=kek)
    assert not (tmp_path / "pki" / "ca.kek").exists()
    product.issue(tmp_path / "pki", "user", "root", key_file=kek)
    with pytest.raises(ConfigError):
        product.issue(tmp_path / "pki", "user", "root")
    other = KeyFile.create(tmp_path / "other")
    with pytest.raises(ConfigError, match="does not open"):
        product.issue(tmp_path / "pki", "user", "root", key_file=other)
    # A sealed key in the place of another's does not open either.
    swapped = tmp_path / "pki" / "ca-client.key"
    swapped.write_bytes((tmp_path / "pki" / "ca-peer.key").read_bytes())
    with pytest.raises(ConfigError, match="does not open"):
        product.issue(tmp_path / "pki", "user", "root", key_file=kek)


# --- leaves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(PROFILES))
def test_leaves_are_what_their_profile_says(pki: Pki, kind: str) -> None:
    name = "00000000000000b1" if kind == "member" else "leaf-1"
    files = pki.leaf(kind, name)
    cert = load(files.cert_path)
    assert stat.S_IMODE(files.key_path.stat().st_mode) == 0o600
    assert list(cert.subject) == []
    extensions = {type(e.value): e for e in cert.extensions}
    assert extensions[x509.SubjectAlternativeName].critical  # the subject is empty
    assert extensions[x509.BasicConstraints].critical
    assert extensions[x509.KeyUsage].critical
    assert x509.SubjectKeyIdentifier in extensions
    assert x509.AuthorityKeyIdentifier in extensions
    assert isinstance(cert.signature_hash_algorithm, hashes.SHA256)
    assert cert.serial_number.bit_length() > 100
    ca = load(pki.directory / f"ca-{PROFILES[kind].authority}.pem")
    cert.verify_directly_issued_by(ca)
    life = cert.not_valid_after_utc - cert.not_valid_before_utc
    assert life.total_seconds() == PROFILES[kind].lifetime_max + 120  # development, back-dated
    leaf = parse_leaf(
        cert.public_bytes(Encoding.DER), trust_domain=TRUST_DOMAIN, kinds=frozenset({kind})
    )
    assert leaf.name == name
    key = serialization.load_pem_private_key(files.key_path.read_bytes(), None)
    assert key.public_key() == cert.public_key()


def test_default_lifetimes_outside_development(tmp_path: Path) -> None:
    product.init_pki(tmp_path / "pki", "prod.example")
    cert = load(product.issue(tmp_path / "pki", "user", "root", now=NOW).cert_path)
    assert cert.not_valid_after_utc.timestamp() == NOW + 12 * 3_600


def test_both_leaves_of_a_member(pki: Pki) -> None:
    files = product.issue_member(
        pki.directory, "m1", 0xABC, dns=["m1.example"], ips=["10.0.0.1", "::1"]
    )
    assert files.peer.cert_path == pki.directory / "m1" / "peer.pem"
    sans = load(files.peer.cert_path).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert sans.value.get_values_for_type(x509.UniformResourceIdentifier) == [
        uri("member", "0000000000000abc")
    ]
    assert sans.value.get_values_for_type(x509.DNSName) == ["m1.example"]
    assert len(sans.value.get_values_for_type(x509.IPAddress)) == 2
    server = load(files.server.cert_path).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert server.value.get_values_for_type(x509.UniformResourceIdentifier) == [uri("server", "m1")]


def test_a_member_may_be_named_as_lists_show_it(pki: Pki) -> None:
    first = product.issue(pki.directory, "member", "abc1")
    assert "member-000000000000abc1" in str(first.cert_path)
    with pytest.raises(IssueRefused, match="id in hex"):
        product.issue(pki.directory, "member", "m1")


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("kind", {"kind": "root"}, "kind"),
    ("kind-empty", {"kind": ""}, "kind"),
    ("upper-case", {"name": "Root"}, "name"),
    ("slash", {"name": "a/b"}, "name"),
    ("nul", {"name": "root\0"}, "name"),
    ("newline", {"name": "root\n"}, "name"),
    ("quote", {"name": "ro'ot"}, "name"),
    ("brace", {"name": "{root}"}, "name"),
    ("unicode", {"name": "rööt"}, "name"),
    ("long", {"name": "a" * 64}, "name"),
    ("empty", {"name": ""}, "name"),
    ("user-too-long", {"lifetime_s": DAY + 1}, "lifetime"),
    ("no-life", {"lifetime_s": 0}, "lifetime"),
    ("negative", {"lifetime_s": -1}, "lifetime"),
    ("user-with-host", {"dns": ["a.example"]}, "hosts"),
    ("wildcard", {"kind": "server", "dns": ["*.example"]}, "wildcard"),
    ("ip-as-dns", {"kind": "server", "dns": ["10.0.0.1"]}, "DNS"),
    ("bad-ip", {"kind": "server", "ips": ["10.0.0.256"]}, "IP"),
    ("many", {"kind": "server", "dns": [f"h{n}" for n in range(LEAF_HOSTS_MAX + 1)]}, "at most"),
]


@pytest.mark.parametrize(("change", "reason"), [pytest.param(c, r, id=i) for i, c, r in REFUSED])
def test_what_is_never_issued(pki: Pki, change: dict[str, object], reason: str) -> None:
    before = set(pki.directory.rglob("*"))
    arguments: dict[str, object] = {"kind": "user", "name": "bob", **change}
    with pytest.raises(IssueRefused, match=reason) as caught:
        product.issue(pki.directory, **arguments)  # type: ignore[arg-type]
    for value in change.values():
        if isinstance(value, str) and len(value) > 1:
            assert value not in str(caught.value)
    assert set(pki.directory.rglob("*")) == before


def test_nothing_outlives_its_ca() -> None:
    root = make_root("prod.example", NOW)
    ca = make_issuing(root, "client", NOW)
    key = authority_module.new_key().public_key()
    late = NOW + authority_module.ISSUING_DAYS * DAY - 3_600
    ca.issue("user", "bob", key, now=late, lifetime_s=3_600)
    with pytest.raises(IssueRefused, match="outlive"):
        ca.issue("user", "bob", key, now=late, lifetime_s=3_601)


def test_renewal_is_due_after_half_the_life(pki: Pki, tmp_path: Path) -> None:
    files = product.issue(pki.directory, "user", "half", lifetime_s=7_200 - 120, now=NOW)
    begin = NOW - 120
    assert not product.needs_reissue(files.cert_path, begin + 3_599)
    assert product.needs_reissue(files.cert_path, begin + 3_600)
    assert product.needs_reissue(tmp_path / "missing.pem", NOW)
    (tmp_path / "junk.pem").write_text("junk")
    assert product.needs_reissue(tmp_path / "junk.pem", NOW)


def test_openssl_agrees(pki: Pki) -> None:
    files = pki.leaf("server", "m1")
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-partial_chain", "-purpose", "sslserver",
         "-verify_hostname", "localhost", "-CAfile", pki.ca("server"), str(files.cert_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


# --- requests -------------------------------------------------------------------------------------


def csr(
    *,
    key: object = None,
    subject: list[tuple[x509.ObjectIdentifier, str]] | None = None,
    names: list[x509.GeneralName] | None = None,
    extension: x509.ExtensionType | None = None,
    attribute: bool = False,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(oid, value) for oid, value in subject or []])
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    if attribute:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
    private = key or ec.generate_private_key(ec.SECP256R1())
    digest = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, digest).public_bytes(Encoding.DER)  # type: ignore[arg-type]


BOB = Enrolment("user", "bob")


@pytest.mark.parametrize(
    "request_der",
    [
        pytest.param(csr(), id="bare"),
        pytest.param(csr(subject=[(NameOID.COMMON_NAME, "bob")]), id="own-name"),
        pytest.param(csr(names=[x509.UniformResourceIdentifier(uri("user", "bob"))]), id="own-uri"),
        pytest.param(csr(key=ec.generate_private_key(ec.SECP384R1())), id="p-384"),
    ],
)
def test_requests_for_what_was_enrolled(pki: Pki, request_der: bytes) -> None:
    cert = issue_from_csr(pki.authority("client"), request_der, BOB, NOW)
    leaf = parse_leaf(
        cert.public_bytes(Encoding.DER), trust_domain=TRUST_DOMAIN, kinds=frozenset({"user"})
    )
    assert leaf.uri == uri("user", "bob")


def _forged() -> bytes:
    der = bytearray(csr())
    der[-1] ^= 1
    return bytes(der)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: csr(subject=[(NameOID.COMMON_NAME, "root")]), "another name",
                     id="other-name"),
        pytest.param(lambda: csr(subject=[(NameOID.ORGANIZATION_NAME, "x")]), "subject",
                     id="organization"),
        pytest.param(lambda: csr(names=[x509.UniformResourceIdentifier(uri("user", "root"))]),
                     "other names", id="other-uri"),
        pytest.param(lambda: csr(names=[x509.UniformResourceIdentifier(uri("user", "bob")),
                                        x509.UniformResourceIdentifier(uri("user", "root"))]),
                     "other names", id="two-uris-n50"),
        pytest.param(lambda: csr(names=[x509.DNSName("*.example")]), "other names", id="wildcard"),
        pytest.param(lambda: csr(extension=x509.BasicConstraints(True, None)), "extension",
                     id="ca"),
        pytest.param(lambda: csr(attribute=True), "attribute", id="attribute"),
        pytest.param(lambda: csr(key=rsa.generate_private_key(65_537, 2_048)), "key", id="rsa"),
        pytest.param(lambda: csr(key=ec.generate_private_key(ec.SECP521R1())), "key", id="p-521"),
        pytest.param(lambda: csr(key=ed25519.Ed25519PrivateKey.generate()), "key", id="ed25519"),
        pytest.param(_forged, "signature|parsed", id="forged"),
        pytest.param(lambda: b"junk", "parsed", id="junk"),
        pytest.param(lambda: bytes(CSR_BYTES_MAX + 1), "too long", id="too-long"),
    ],
)  # fmt: skip
def test_requests_that_ask_for_more_are_refused(
    pki: Pki, make: Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(IssueRefused, match=reason):
        issue_from_csr(pki.authority("client"), make(), BOB, NOW)


def test_renewal_needs_a_valid_leaf_and_a_new_key(pki: Pki) -> None:
    ca = pki.authority("client")
    key = ec.generate_private_key(ec.SECP256R1())
    first = issue_from_csr(ca, csr(key=key), BOB, NOW)
    der = first.public_bytes(Encoding.DER)
    leaf = parse_leaf(der, trust_domain=TRUST_DOMAIN, kinds=frozenset({"user"}))
    later = NOW + 3_600
    renewed = renew_from_csr(ca, der, leaf, csr(), later)
    assert renewed.serial_number != first.serial_number
    with pytest.raises(IssueRefused, match="new key"):
        renew_from_csr(ca, der, leaf, csr(key=key), later)
    with pytest.raises(IssueRefused, match="another name"):
        renew_from_csr(ca, der, leaf, csr(subject=[(NameOID.COMMON_NAME, "root")]), later)
    with pytest.raises(IssueRefused, match="enrol again"):
        renew_from_csr(ca, der, leaf, csr(), leaf.not_after + 1)


def test_a_checked_request_gives_its_key_and_nothing_else(pki: Pki) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    identity = parse_name("bob")
    assert check_csr(csr(key=key), identity) == key.public_key()


def parse_name(name: str):  # type: ignore[no-untyped-def]
    from configsvc.identity.names import IdentityName

    return IdentityName(TRUST_DOMAIN, "user", name)


# --- bundles --------------------------------------------------------------------------------------


def test_bundles_that_are_no_anchor(pki: Pki) -> None:
    peer = Path(pki.ca("peer")).read_bytes()
    root = (pki.directory / "root.pem").read_bytes()
    leaf = pki.leaf("user", "root").cert_path.read_bytes()
    key = pki.leaf("user", "root").key_path.read_bytes()
    odd_ca = odd_leaf(pki.authority("client"), uris=[], usages=None, ca=True)
    far = NOW + 4_000 * DAY
    cases: list[tuple[bytes, int, str]] = [
        (b"", NOW, "no certificate"),
        (b"junk", NOW, "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", NOW, "parsed"),
        (leaf, NOW, "no CA"),
        (peer + leaf, NOW, "no CA"),
        (root, NOW, "path length"),
        (peer + root, NOW, "path length"),
        (peer + key, NOW, "something else"),
        (certificate_pem(odd_ca.certificate), NOW, "no CA"),
        (peer, far, "expired"),
        (peer, NOW - 86_400, "not valid yet"),
        (peer * 9, NOW, "too many"),
        (peer + b"x" * 70_000, NOW, "too long"),
    ]
    for pem, now, reason in cases:
        with pytest.raises(BundleRejected, match=reason):
            validate_bundle(pem, now)
    assert len(validate_bundle(peer + b"# a comment\n" + peer, NOW)) == 2


def test_who_issued_a_leaf(pki: Pki) -> None:
    peer = validate_bundle(Path(pki.ca("peer")).read_bytes(), NOW)
    client = validate_bundle(Path(pki.ca("client")).read_bytes(), NOW)
    leaf = pki.leaf("user", "root").cert_path.read_bytes()
    check_issued_by(leaf, (*peer, *client))
    with pytest.raises(CertificateRejected):
        check_issued_by(leaf, peer)
    with pytest.raises(CertificateRejected):
        check_issued_by(b"junk", client)


def test_maxima_are_those_of_the_requirement() -> None:
    assert {kind: seconds // 3_600 for kind, seconds in LIFETIME_MAX.items()} == {
        "member": 720, "server": 720, "agent": 168, "user": 24, "service": 720,
    }  # fmt: skip
