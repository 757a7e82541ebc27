"""Which serials a revocation list names, and whose list counts (PKI-13)."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from configsvc.identity.authority import Authority
from configsvc.identity.certificate import parse_leaf
from configsvc.identity.errors import BundleRejected
from configsvc.identity.revocation_lists import LISTS_MAX, Revocations, revoked_serials
from configsvc.net.contexts import TlsFiles, TlsSetupError
from configsvc.types import KIND_USER
from tests.support.pki import TRUST_DOMAIN, Pki, revocation_list

SERIALS = (0x0A1B, 2**158 + 5)


def read(pki: Pki, pem: bytes, purposes: Sequence[str] = ("client",)) -> frozenset[str]:
    return revoked_serials(pem, [pki.authority(p).certificate for p in purposes])


def test_serials_are_written_as_leaves_write_them(pki: Pki) -> None:
    pem = revocation_list(pki.authority("client"), SERIALS)
    assert read(pki, pem) == {"a1b", format(2**158 + 5, "x")}
    assert read(pki, b"a comment\n" + pem + b"\nanother") == {"a1b", format(2**158 + 5, "x")}


def test_an_empty_list_revokes_nobody(pki: Pki) -> None:
    assert read(pki, revocation_list(pki.authority("client"), [])) == frozenset()


def test_the_newest_list_of_a_ca_counts_wherever_it_stands(pki: Pki) -> None:
    ca = pki.authority("client")
    old = revocation_list(ca, [1, 2], issued_s=-7_200)
    new = revocation_list(ca, [2, 3], issued_s=-3_600)
    for pem in (old + new, new + old):
        assert read(pki, pem) == {"2", "3"}


def test_lists_of_several_cas_add_up(pki: Pki) -> None:
    pem = b"".join(
        revocation_list(pki.authority(name), [n]) for n, name in ((5, "client"), (6, "peer"))
    )
    assert read(pki, pem, ("client", "peer")) == {"5", "6"}
    assert read(pki, pem, ("client",)) == {"5"}


def test_a_list_out_of_date_still_revokes(pki: Pki) -> None:
    pem = revocation_list(pki.authority("client"), [7], days=-1)
    assert read(pki, pem) == {"7"}


def test_a_foreign_ca_may_have_an_rsa_key(pki: Pki) -> None:
    key = rsa.generate_private_key(65_537, 2_048)
    name = pki.authority("client").certificate.subject
    start = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = revocation_list(Authority(made, key, ""), [8])  # type: ignore[arg-type]
    assert revoked_serials(pem, [made]) == {"8"}
    assert revoked_serials(pem, [pki.authority("client").certificate, made]) == {"8"}


def forged(pki: Pki) -> bytes:
    """In the name of the CA, signed by another key."""
    client, peer = pki.authority("client"), pki.authority("peer")
    return revocation_list(Authority(client.certificate, peer.key, ""), [1])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda pki: b"", "no revocation list"),
        (lambda pki: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----", "parsed"),
        (lambda pki: revocation_list(pki.authority("peer"), [1]), "no revocation list"),
        (forged, "no revocation list"),
        (
            lambda pki: revocation_list(pki.authority("client"), []) * (LISTS_MAX + 1),
            "too many",
        ),
    ],
    ids=["empty", "garbage", "other-ca", "forged", "too-many"],
)
def test_what_is_no_list_of_ours_is_an_error(
    pki: Pki, make: Callable[[Pki], bytes], reason: str
) -> None:
    with pytest.raises(BundleRejected, match=reason):
        read(pki, make(pki))


# --- together with the contexts -------------------------------------------------------------------


@pytest.fixture
def files(pki: Pki, tmp_path: Path) -> TlsFiles:
    base = pki.files("server", "m1", "client")
    return dataclasses.replace(base, crl=str(tmp_path / "client.crl"))


def test_serials_count_from_the_moment_their_files_do(pki: Pki, files: TlsFiles) -> None:
    revocations = Revocations()
    judge = revocations.judging(lambda files: None)
    Path(files.crl).write_bytes(revocation_list(pki.authority("client"), [9]))
    judge(files)
    assert not revocations.serials
    revocations.take()
    assert revocations.serials == {"9"}
    judge(dataclasses.replace(files, crl=""))
    revocations.take()
    assert not revocations.serials


def test_a_bad_list_is_refused_and_what_was_in_force_stays(pki: Pki, files: TlsFiles) -> None:
    revocations = Revocations()
    judge = revocations.judging(lambda files: None)
    Path(files.crl).write_bytes(revocation_list(pki.authority("client"), [9]))
    judge(files)
    revocations.take()
    Path(files.crl).write_bytes(b"none")
    with pytest.raises(TlsSetupError, match=r"client\.crl: no revocation list"):
        judge(files)
    with pytest.raises(TlsSetupError, match=r"key: cannot"):
        revocations.judging(_refuse)(files)
    assert revocations.serials == {"9"}


def _refuse(files: TlsFiles) -> None:
    raise TlsSetupError("key: cannot be used")


def test_a_leafs_serial_is_found_as_the_leaf_itself_writes_it(pki: Pki) -> None:
    der = pki.der("user", "listed")
    serial = x509.load_der_x509_certificate(der).serial_number
    pem = revocation_list(pki.authority("client"), [serial])
    leaf = parse_leaf(der, trust_domain=TRUST_DOMAIN, kinds=frozenset({KIND_USER}))
    assert read(pki, pem) == {leaf.serial_hex}
