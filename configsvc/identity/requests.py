"""Certificate requests: what a CSR may say, and issuing from one (PKI-7, PKI-8).

Only the public key is taken from a request. One that asks for anything else than what its
authenticated enrolment record says is refused, not trimmed: a quiet difference between what was
asked and what was given is how identities get mixed up.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from configsvc.identity.authority import Authority
from configsvc.identity.certificate import LeafIdentity, check_leaf_key, check_time
from configsvc.identity.errors import CertificateRejected, IssueRefused
from configsvc.identity.names import IdentityName
from configsvc.limits import CSR_BYTES_MAX


class Enrolment(NamedTuple):
    """What an administrator authorized: the authenticated record behind a request."""

    kind: str
    name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    lifetime_s: int | None = None  # None: the kind's default


def issue_from_csr(
    authority: Authority, csr_der: bytes, record: Enrolment, now: int
) -> x509.Certificate:
    """The leaf that ``record`` authorizes, for the key that ``csr_der`` proves to hold.

    Raises:
        IssueRefused: the request is malformed, unproven, or asks for anything else.
    """
    key = check_csr(csr_der, IdentityName(authority.trust_domain, record.kind, record.name))
    return authority.issue(
        record.kind,
        record.name,
        key,
        now=now,
        dns=record.dns,
        ips=record.ips,
        lifetime_s=record.lifetime_s,
    )


def renew_from_csr(
    authority: Authority, current_der: bytes, current: LeafIdentity, csr_der: bytes, now: int
) -> x509.Certificate:
    """A new leaf for the holder of one that is still valid; the key must be a new one.

    Raises:
        IssueRefused: the current leaf has run out, its key is used again, or as above.
    """
    try:
        check_time(current, now)
    except CertificateRejected as error:
        raise IssueRefused(f"current certificate: {error.reason}; enrol again") from None
    key = check_csr(csr_der, IdentityName(authority.trust_domain, current.kind, current.name))
    if key == x509.load_der_x509_certificate(current_der).public_key():
        raise IssueRefused("certificate request: a renewal needs a new key")
    return authority.issue(current.kind, current.name, key, now=now)


def check_csr(csr_der: bytes, identity: IdentityName) -> object:
    """The public key of a request that asks for nothing but ``identity``.

    Raises:
        IssueRefused: see the text.
    """
    if len(csr_der) > CSR_BYTES_MAX:
        raise IssueRefused("certificate request: too long")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        if not csr.is_signature_valid:
            raise IssueRefused("certificate request: its signature is wrong")
        key = csr.public_key()
        check_leaf_key(key)
        _check_subject(csr.subject, identity)
        _check_asked(csr, identity)
    except IssueRefused:
        raise
    except CertificateRejected as error:
        raise IssueRefused(f"certificate request: {error.reason}") from None
    except Exception:  # noqa: BLE001  # any doubt means no (FC-6)
        raise IssueRefused("certificate request: cannot be parsed") from None
    return key


def _check_subject(subject: x509.Name, identity: IdentityName) -> None:
    attributes = list(subject)
    if not attributes:
        return
    if len(attributes) != 1 or attributes[0].oid != NameOID.COMMON_NAME:
        raise IssueRefused("certificate request: asks for a subject")
    if attributes[0].value != identity.name:
        raise IssueRefused("certificate request: asks for another name")


def _check_asked(csr: x509.CertificateSigningRequest, identity: IdentityName) -> None:
    for attribute in csr.attributes:
        if attribute.oid.dotted_string != _EXTENSION_REQUEST:
            raise IssueRefused("certificate request: has an attribute besides its extensions")
    for extension in csr.extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise IssueRefused("certificate request: asks for an extension besides its name")
        names = list(extension.value)
        if names != [x509.UniformResourceIdentifier(identity.uri)]:
            raise IssueRefused("certificate request: asks for other names")


_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
