"""From a leaf's DER to the one identity it names (ID-2, ID-3).

Pure: bytes in, identity or refusal out.

TLS has proven the chain and the key. What OpenSSL does not judge is judged here: kind of key,
exact extended key usage, no CA bit, one URI in one spelling, a lifetime we would issue.

Not here: TLS (``net``), whether the identity is denied or known (``auth.standing``), issuing
(``identity.authority``).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from configsvc.errors import ensure
from configsvc.identity.errors import CertificateRejected
from configsvc.identity.names import CLIENT_KINDS, IdentityName, is_host_name, is_name, parse_uri
from configsvc.identity.profiles import BACKDATED_S, PROFILES
from configsvc.limits import LEAF_DER_BYTES_MAX
from configsvc.types import KIND_AGENT, KIND_SERVICE, KIND_USER, Principal

__all__ = [
    "CertificateRejected",
    "LeafIdentity",
    "check_time",
    "kind_and_name",
    "parse_leaf",
    "principal_of",
    "user_name",
]

_LIFETIME_SLACK_S: Final = 3_600 + BACKDATED_S  # what other issuers back-date
_USER_PREFIX: Final = {
    KIND_USER: "",
    KIND_AGENT: f"{KIND_AGENT}/",
    KIND_SERVICE: f"{KIND_SERVICE}/",
}


class LeafIdentity(NamedTuple):
    """Who a certificate is; times in seconds of the Unix epoch."""

    kind: str
    name: str
    uri: str
    serial_hex: str  # lower case, no leading zeros
    sha256_hex: str  # of the DER
    not_before: int  # first second that counts
    not_after: int  # last second that counts


def parse_leaf(der: bytes, *, trust_domain: str, kinds: frozenset[str]) -> LeafIdentity:
    """Judge everything of a leaf but the time of day and the deny-lists.

    Args:
        der: the certificate as the peer sent it.
        trust_domain: the only acceptable one.
        kinds: the kinds that may come in through this port.

    Raises:
        CertificateRejected: any rule of ID-3 is broken; never another error.
    """
    certificate = _load(der)
    try:
        extensions = certificate.extensions
        _check_key(certificate)
        identity = _identity_of(extensions)
    except CertificateRejected:
        raise
    except Exception:  # noqa: BLE001  # a parser's bug must not become an identity (FC-6)
        raise CertificateRejected("cannot be parsed") from None
    if identity.trust_domain != trust_domain:
        raise CertificateRejected("another trust domain")
    if identity.kind not in kinds:
        raise CertificateRejected("this kind of identity may not use this port")
    _check_usages(extensions, PROFILES[identity.kind].usages)
    not_before, not_after = _lifetime(certificate)
    if not_after - not_before > PROFILES[identity.kind].lifetime_max + _LIFETIME_SLACK_S:
        raise CertificateRejected("lives longer than its kind may")
    return LeafIdentity(
        identity.kind,
        identity.name,
        identity.uri,
        format(certificate.serial_number, "x"),
        hashlib.sha256(der).hexdigest(),
        not_before,
        not_after,
    )


def parse_common_name(der: bytes) -> LeafIdentity:
    """A leaf of etcd's kind: no URI, the user is its common name (ID-4; off by default).

    Raises:
        CertificateRejected: it has a URI, or not exactly one common name of the name grammar.
    """
    certificate = _load(der)
    try:
        if _san_uris(certificate.extensions):
            raise CertificateRejected("has a URI: its common name does not count")
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = names[0].value if len(names) == 1 else ""
        not_before, not_after = _lifetime(certificate)
    except CertificateRejected:
        raise
    except Exception:  # noqa: BLE001  # as above
        raise CertificateRejected("cannot be parsed") from None
    if not isinstance(name, str) or not is_name(name):
        raise CertificateRejected("its common name is no user name")
    serial, digest = format(certificate.serial_number, "x"), hashlib.sha256(der).hexdigest()
    return LeafIdentity(KIND_USER, name, "", serial, digest, not_before, not_after)


def check_time(leaf: LeafIdentity, now: int) -> None:
    """Judge ``now`` (seconds) against the leaf; resumed and long connections need it again.

    Raises:
        CertificateRejected: not yet valid, or run out.
    """
    if now < leaf.not_before:
        raise CertificateRejected("not valid yet")
    if now > leaf.not_after:
        raise CertificateRejected("expired")


def principal_of(leaf: LeafIdentity) -> Principal:
    """The principal a client's leaf proves; ``uid`` is empty until state is asked (ID-5, ID-8)."""
    ensure(leaf.kind in CLIENT_KINDS, "members and servers are never data clients")
    return Principal(
        kind=leaf.kind,
        name=leaf.name,
        user=user_name(leaf.kind, leaf.name),
        uid="",
        cert_uri=leaf.uri,
        cert_serial=leaf.serial_hex,
        cert_sha256=leaf.sha256_hex,
        method="certificate",
        jti="",
        key_id="",
        auth_revision=0,
    )


def user_name(kind: str, name: str) -> str:
    """RBAC user of a client identity: an agent called root is not root (ID-5)."""
    return _USER_PREFIX[kind] + name


def kind_and_name(user: str) -> tuple[str, str]:
    """The other way round: whose RBAC user it is, so that an agent with a password stays one."""
    for kind in (KIND_AGENT, KIND_SERVICE):
        if user.startswith(_USER_PREFIX[kind]):
            return kind, user.removeprefix(_USER_PREFIX[kind])
    return KIND_USER, user


def check_leaf_key(key: object) -> None:
    """P-256 and P-384 are the keys a leaf may have (N47).

    Raises:
        CertificateRejected: any other kind of key.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise CertificateRejected("key is not P-256 or P-384")


def _load(der: bytes) -> x509.Certificate:
    if len(der) > LEAF_DER_BYTES_MAX:
        raise CertificateRejected("too long")
    try:
        return x509.load_der_x509_certificate(der)
    except Exception:  # noqa: BLE001  # as above
        raise CertificateRejected("cannot be parsed") from None


def _check_key(certificate: x509.Certificate) -> None:
    check_leaf_key(certificate.public_key())


def _identity_of(extensions: x509.Extensions) -> IdentityName:
    for extension in extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise CertificateRejected("has a critical extension that nobody knows")
    found = [extension.value for extension in extensions]
    constraints = [e for e in found if isinstance(e, x509.BasicConstraints)]
    if not constraints or constraints[0].ca:
        raise CertificateRejected("is a CA, or does not say that it is none")
    for usage in found:
        if isinstance(usage, x509.KeyUsage) and (
            not usage.digital_signature or usage.key_cert_sign or usage.crl_sign
        ):
            raise CertificateRejected("key usage is not that of a leaf")
    uris = _san_uris(extensions)
    if len(uris) != 1:
        raise CertificateRejected("needs exactly one URI")
    identity = parse_uri(uris[0])
    if identity is None:
        raise CertificateRejected("URI is not of the identity grammar")
    return identity


def _san_uris(extensions: x509.Extensions) -> list[str]:
    """All URIs; wildcards and names of other kinds than DNS, IP, URI are refused (PKI-6)."""
    uris: list[str] = []
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            continue
        for name in extension.value:
            if isinstance(name, x509.UniformResourceIdentifier):
                uris.append(name.value)
            elif isinstance(name, x509.DNSName):
                if not is_host_name(name.value):
                    raise CertificateRejected("DNS name is a wildcard or not plain")
            elif not isinstance(name, x509.IPAddress):
                raise CertificateRejected("has a name of an unknown kind")
    return uris


def _check_usages(extensions: x509.Extensions, expected: frozenset[x509.ObjectIdentifier]) -> None:
    for extension in extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            usages = list(extension.value)
            if len(usages) == len(expected) and expected.issuperset(usages):
                return
            raise CertificateRejected("extended key usage is not exact")
    raise CertificateRejected("has no extended key usage")


def _lifetime(certificate: x509.Certificate) -> tuple[int, int]:
    not_before = int(certificate.not_valid_before_utc.timestamp())
    not_after = int(certificate.not_valid_after_utc.timestamp())
    if not_before >= not_after:
        raise CertificateRejected("ends before it begins")
    return not_before, not_after
