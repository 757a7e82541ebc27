"""Trust bundles: what may be an anchor (PKI-2, N62).

OpenSSL takes an expired CA silently, and with partial chains even a leaf. So every certificate of
a bundle is judged here before it reaches a TLS context. An anchor must be an issuing CA (path
length 0): with the root in the store, a leaf of *any* of our CAs would get in.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509

from configsvc.identity.certificate import check_leaf_key
from configsvc.identity.errors import BundleRejected, CertificateRejected
from configsvc.limits import TRUST_BUNDLE_BYTES_MAX, TRUST_BUNDLE_CERTIFICATES_MAX

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


def validate_bundle(pem: bytes, now: int) -> tuple[x509.Certificate, ...]:
    """The issuing CAs of a PEM file, in its order.

    Args:
        pem: what the file holds: certificates and comments, nothing else.
        now: seconds; every anchor must be valid at that time.

    Raises:
        BundleRejected: empty, too long, or one of its certificates is no valid issuing CA.
    """
    if len(pem) > TRUST_BUNDLE_BYTES_MAX:
        raise BundleRejected("bundle is too long")
    labels = _BLOCK.findall(pem)
    if not labels:
        raise BundleRejected("bundle holds no certificate")
    if set(labels) != {b"CERTIFICATE"}:
        raise BundleRejected("bundle holds something else than certificates")
    if len(labels) > TRUST_BUNDLE_CERTIFICATES_MAX:
        raise BundleRejected("bundle holds too many certificates")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except Exception:  # noqa: BLE001  # any doubt means no (FC-6)
        raise BundleRejected("bundle cannot be parsed") from None
    if len(certificates) != len(labels):
        raise BundleRejected("bundle cannot be parsed")
    for certificate in certificates:
        _check_anchor(certificate, now)
    return tuple(certificates)


def check_issued_by(leaf_pem: bytes, anchors: tuple[x509.Certificate, ...]) -> None:
    """Whether a leaf of ours would be accepted by those who trust ``anchors``.

    Raises:
        CertificateRejected: none of them issued it.
    """
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
    except Exception:  # noqa: BLE001  # as above
        raise CertificateRejected("cannot be parsed") from None
    for anchor in anchors:
        try:
            leaf.verify_directly_issued_by(anchor)
        except Exception:  # noqa: BLE001, S112  # as above: then this one did not
            continue
        return
    raise CertificateRejected("was not issued by a CA of the bundle")


def _check_anchor(certificate: x509.Certificate, now: int) -> None:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        check_leaf_key(certificate.public_key())
    except CertificateRejected:
        raise BundleRejected("an anchor's key is not P-256 or P-384") from None
    except Exception:  # noqa: BLE001  # as above
        raise BundleRejected("an anchor does not say that it is a CA") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise BundleRejected("an anchor is no CA")
    if constraints.path_length != 0:
        raise BundleRejected("an anchor is not an issuing CA (path length 0)")
    if now < certificate.not_valid_before_utc.timestamp():
        raise BundleRejected("an anchor is not valid yet")
    if now > certificate.not_valid_after_utc.timestamp():
        raise BundleRejected("an anchor has expired")
