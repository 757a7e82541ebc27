"""Whether this member's own certificate is what its settings need."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from configsvc.identity.certificate import CertificateRejected, check_time, parse_leaf
from configsvc.net.contexts import TlsSetupError


def judge_leaf(
    cert_pem: bytes, ca_pem: bytes, *, trust_domain: str, kind: str, name: str, now: int
) -> None:
    """Kind, name, time and trust bundle of a certificate of ours.

    Raises:
        TlsSetupError: the first thing that is wrong.
    """
    try:
        certs = x509.load_pem_x509_certificates(cert_pem)
    except ValueError:
        raise TlsSetupError("no certificate in the certificate file") from None
    try:
        leaf = parse_leaf(
            certs[0].public_bytes(Encoding.DER), trust_domain=trust_domain, kinds=frozenset({kind})
        )
        check_time(leaf, now)
    except CertificateRejected as error:
        raise TlsSetupError(f"own certificate: {error}") from None
    if name and leaf.name != name:
        raise TlsSetupError(f"own certificate names {kind}/{leaf.name}, this member is {name}")
    if ca_pem:
        judge_bundle(ca_pem, now)


def judge_bundle(pem: bytes, now: int) -> None:
    """CA certificates only, in time (PKI-2). Raises ``TlsSetupError``."""
    try:
        certs = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsSetupError("no certificate in the trust bundle") from None
    for cert in certs:
        try:
            basic = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            raise TlsSetupError("the trust bundle holds a certificate that is no CA") from None
        begin, end = cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()
        if not basic.ca or not begin <= now < end:
            raise TlsSetupError("the trust bundle holds a CA that is out of time, or none")
