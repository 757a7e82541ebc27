"""A certificate names exactly one identity, or it is refused (ID-2, ID-3).

The leaf's DER is parsed here, once per connection; the dict that ``ssl`` offers is no identity.
Everything is matched byte for byte: no percent-encoding, no upper case, no second name.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from configsvc.errors import ConfigServiceError
from configsvc.types import (
    KIND_AGENT,
    KIND_MEMBER,
    KIND_SERVER,
    KIND_SERVICE,
    KIND_USER,
    Principal,
)

KINDS: Final = frozenset({KIND_USER, KIND_AGENT, KIND_SERVICE, KIND_MEMBER, KIND_SERVER})
DER_BYTES_MAX: Final = 16 * 1024
URI_BYTES_MAX: Final = 255
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_URI: Final = re.compile(
    r"spiffe://([a-z0-9][a-z0-9.-]{0,126})/(user|agent|service|member|server)"
    r"/([a-z0-9][a-z0-9._-]{0,62})"
)
_EKU: Final = {
    KIND_USER: {ExtendedKeyUsageOID.CLIENT_AUTH},
    KIND_AGENT: {ExtendedKeyUsageOID.CLIENT_AUTH},
    KIND_SERVICE: {ExtendedKeyUsageOID.CLIENT_AUTH},
    KIND_SERVER: {ExtendedKeyUsageOID.SERVER_AUTH},
    KIND_MEMBER: {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH},
}
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class CertificateRejected(ConfigServiceError):
    """Why a leaf is no identity; for logs and records, never for the other side."""


class LeafIdentity(NamedTuple):
    """What an acceptable leaf says."""

    kind: str
    name: str
    uri: str
    serial: str  # lower-case hex
    sha256: str  # of the DER, lower-case hex
    not_before: int  # Unix seconds
    not_after: int


def parse_leaf(der: bytes, *, trust_domain: str, kinds: frozenset[str]) -> LeafIdentity:
    """The identity of a leaf whose chain TLS has verified.

    Raises:
        CertificateRejected: anything is other than exactly as issued by our profiles.
    """
    if len(der) > DER_BYTES_MAX:
        raise CertificateRejected("certificate is too large")
    try:
        cert = x509.load_der_x509_certificate(der)
        return _judge(cert, trust_domain, kinds)
    except CertificateRejected:
        raise
    except Exception as error:  # noqa: BLE001  # any doubt in authentication means no (FC-6)
        raise CertificateRejected(f"certificate cannot be parsed: {type(error).__name__}") from None


def _judge(cert: x509.Certificate, trust_domain: str, kinds: frozenset[str]) -> LeafIdentity:
    key = cert.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise CertificateRejected("key is neither P-256 nor P-384")
    uri = _uri(cert)
    match = _URI.fullmatch(uri)
    if match is None or len(uri) > URI_BYTES_MAX:
        raise CertificateRejected("URI name does not match the grammar")
    domain, kind, name = match.groups()
    if domain != trust_domain:
        raise CertificateRejected("certificate of another trust domain")
    if kind not in kinds:
        raise CertificateRejected(f"certificate of kind {kind} is not accepted here")
    _check_extensions(cert, kind)
    return LeafIdentity(
        kind,
        name,
        uri,
        f"{cert.serial_number:x}",
        cert.fingerprint(SHA256()).hex(),
        int(cert.not_valid_before_utc.timestamp()),
        int(cert.not_valid_after_utc.timestamp()),
    )


def _uri(cert: x509.Certificate) -> str:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise CertificateRejected("certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise CertificateRejected(f"certificate has {len(uris)} URI names, one is needed")
    for dns in names.get_values_for_type(x509.DNSName):
        if "*" in dns or "\0" in dns:
            raise CertificateRejected("certificate has a wildcard or NUL in a name")
    return uris[0]


def _check_extensions(cert: x509.Certificate, kind: str) -> None:
    try:
        basic = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise CertificateRejected("basic constraints or extended key usage is missing") from None
    if basic.ca:
        raise CertificateRejected("certificate is a CA")
    if set(usage) != _EKU[kind]:
        raise CertificateRejected("extended key usage does not fit the kind")


def check_time(leaf: LeafIdentity, now: int) -> None:
    """Raise ``CertificateRejected`` unless ``now`` (Unix seconds) lies in the validity."""
    if now < leaf.not_before:
        raise CertificateRejected("certificate is not valid yet")
    if now >= leaf.not_after:
        raise CertificateRejected("certificate has run out")


def user_name(kind: str, name: str) -> str:
    """RBAC user of an identity: an agent called root is not root (ID-5)."""
    return name if kind == KIND_USER else f"{kind}/{name}"


def principal_of(leaf: LeafIdentity) -> Principal:
    """The principal of a certificate; the uid is filled in from applied state."""
    return Principal(
        leaf.kind,
        leaf.name,
        user_name(leaf.kind, leaf.name),
        "",
        leaf.uri,
        leaf.serial,
        leaf.sha256,
        "certificate",
        "",
        "",
        0,
    )


def load_bundle(pem: bytes, now: int) -> list[x509.Certificate]:
    """CA certificates of a trust bundle, checked: CA:TRUE and in time (PKI-2, N62).

    Raises:
        CertificateRejected: no certificate, one that is no CA, or one out of time.
    """
    try:
        certs = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateRejected("no certificate in the bundle") from None
    for cert in certs:
        try:
            ca = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            ca = False
        if not ca:
            raise CertificateRejected("the bundle holds a certificate that is no CA")
        valid_from = cert.not_valid_before_utc.timestamp()
        valid_to = cert.not_valid_after_utc.timestamp()
        if not valid_from <= now < valid_to:
            raise CertificateRejected("the bundle holds a CA that is out of time")
    return certs
