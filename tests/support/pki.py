"""Certificates for tests: one development PKI per process, made once, in a temporary directory.

Fixtures: import ``pki`` into a conftest. ``odd_leaf`` makes what our issuer never would.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configsvc.identity import pki as product
from configsvc.identity.authority import Authority, certificate_pem, key_pem
from configsvc.identity.member_ids import member_name
from configsvc.net.contexts import TlsFiles

TRUST_DOMAIN = "test.example"
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


class Pki(NamedTuple):
    """A development PKI and what tests take out of it."""

    directory: Path

    def ca(self, purpose: str) -> str:
        return str(self.directory / f"ca-{purpose}.pem")

    def authority(self, purpose: str) -> Authority:
        return product.load_authority(self.directory, purpose)

    def leaf(self, kind: str, name: str, *, hosts: bool = True) -> product.LeafFiles:
        """Made once per kind and name."""
        files = product.LeafFiles(
            self.directory / f"{kind}-{name}.pem", self.directory / f"{kind}-{name}.key"
        )
        if not files.cert_path.exists():
            named = hosts and kind in ("member", "server")
            product.issue(
                self.directory,
                kind,
                name,
                dns=["localhost"] if named else [],
                ips=["127.0.0.1"] if named else [],
            )
        return files

    def der(self, kind: str, name: str) -> bytes:
        pem = self.leaf(kind, name).cert_path.read_bytes()
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    def member_files(self, member: int) -> TlsFiles:
        """The peer link's files of one member."""
        leaf = self.leaf("member", member_name(member))
        return TlsFiles(str(leaf.cert_path), str(leaf.key_path), self.ca("peer"))

    def files(self, kind: str, name: str, trusts: str) -> TlsFiles:
        leaf = self.leaf(kind, name)
        return TlsFiles(str(leaf.cert_path), str(leaf.key_path), self.ca(trusts))

    def write(self, stem: str, certificate: x509.Certificate, key: object, trusts: str) -> TlsFiles:
        """Files of a certificate made by ``odd_leaf``."""
        cert_path, key_path = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        cert_path.write_bytes(certificate_pem(certificate))
        key_path.write_bytes(key_pem(key))  # type: ignore[arg-type]
        key_path.chmod(0o600)
        return TlsFiles(str(cert_path), str(key_path), self.ca(trusts))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    product.init_pki(directory, TRUST_DOMAIN, development=True)
    return Pki(directory)


def uri(kind: str, name: str, trust_domain: str = TRUST_DOMAIN) -> str:
    return f"spiffe://{trust_domain}/{kind}/{name}"


class Odd(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def odd_leaf(
    authority: Authority,
    *,
    uris: Sequence[str] = (uri("user", "root"),),
    names: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
    ca: bool | None = False,
    key: object = None,
    common_name: str = "",
    begins: int = -60,
    ends: int = 3_600,
    digital_signature: bool = True,
    adjust: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] | None = None,
) -> Odd:
    """A leaf under ``authority`` with any of its rules broken; times relative to now."""
    private = key or ec.generate_private_key(ec.SECP256R1())
    now = int(time.time())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(authority.certificate.subject)
        .public_key(private.public_key())  # type: ignore[attr-defined]
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now + begins))
        .not_valid_after(_utc(now + ends))
        .add_extension(x509.KeyUsage(digital_signature, *([False] * 8)), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority.certificate.public_key()  # type: ignore[arg-type]
            ),
            critical=False,
        )
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    all_names = [*(x509.UniformResourceIdentifier(u) for u in uris), *names]
    if all_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(all_names), critical=True)
    if adjust is not None:
        builder = adjust(builder)
    return Odd(builder.sign(authority.key, hashes.SHA256()), private)  # type: ignore[arg-type]


def revocation_list(
    ca: Authority, serials: Sequence[int], *, days: int = 1, issued_s: int = -5 * 86_400
) -> bytes:
    """A signed list in PEM. ``days`` until it is out of date; ``issued_s`` from now."""
    now = int(time.time())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(_utc(now + issued_s))
        .next_update(_utc(now + days * 86_400))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_utc(now))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
