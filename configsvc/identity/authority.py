"""The certificate authorities: one root, three issuing CAs, and the one function that issues.

Always true:
  * Every leaf comes out of ``Authority.issue``: kind, name and lifetime are judged there, whatever
    way the request came (V6). From a request only the public key is taken (PKI-7).
  * A leaf has exactly one URI, no wildcard, no host name in a subject, which is empty.
  * CA keys are at rest under a key-encryption key only, and leave this module as signatures only.

Not here: files of leaves (``identity.pki``), reading leaves back (``identity.certificate``).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from configsvc.identity.certificate import check_leaf_key
from configsvc.identity.errors import CertificateRejected, IssueRefused
from configsvc.identity.names import IdentityName, is_host_name, is_name, is_trust_domain
from configsvc.identity.profiles import BACKDATED_S, DAY, HOUR, PROFILES, Profile
from configsvc.limits import LEAF_HOSTS_MAX

ROOT_DAYS = 3_650
ISSUING_DAYS = 1_095


class Authority(NamedTuple):
    """A CA that can sign: its certificate and its key, which may live in a device."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trust_domain: str

    def issue(
        self,
        kind: str,
        name: str,
        public_key: object,
        *,
        now: int,
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
        lifetime_s: int | None = None,
    ) -> x509.Certificate:
        """A leaf of kind ``kind`` for ``name``.

        Args:
            kind: a kind of ``identity.profiles``.
            name: the name part of the URI.
            public_key: P-256 or P-384.
            now: seconds; the leaf is valid from two minutes before.
            dns: host names, only where the profile has some.
            ips: addresses, likewise.
            lifetime_s: None is the kind's default.

        Raises:
            IssueRefused: kind, name, host, key or lifetime is not acceptable.
        """
        profile = PROFILES.get(kind)
        if profile is None:
            raise IssueRefused("kind: use user, agent, service, member or server")
        if not is_name(name):
            raise IssueRefused("name: a-z, 0-9, dot, dash, underscore, at most 63 characters")
        seconds = profile.lifetime_default if lifetime_s is None else lifetime_s
        if not 0 < seconds <= profile.lifetime_max:
            raise IssueRefused(f"lifetime: 1 s up to {profile.lifetime_max // HOUR} h for {kind}")
        if now + seconds > self.certificate.not_valid_after_utc.timestamp():
            raise IssueRefused("lifetime: it would outlive its CA")
        try:
            check_leaf_key(public_key)
        except CertificateRejected as error:
            raise IssueRefused(f"key: {error.reason}") from None
        identity = IdentityName(self.trust_domain, kind, name)
        names = [x509.UniformResourceIdentifier(identity.uri), *_hosts(profile, dns, ips)]
        return self._sign(public_key, profile, names, now, seconds)

    def _sign(
        self,
        public_key: object,
        profile: Profile,
        names: list[x509.GeneralName],
        now: int,
        seconds: int,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)  # type: ignore[arg-type]  # judged by check_leaf_key
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(now - BACKDATED_S))
            .not_valid_after(_utc(now + seconds))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(sorted(profile.usages, key=lambda o: o.dotted_string)),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)  # empty subject
        )
        return _identified(builder, public_key, self.certificate).sign(self.key, hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A leaf's key as OpenSSL wants to read it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_root(trust_domain: str, now: int) -> Authority:
    """The self-signed root; it issues CAs only.

    Raises:
        IssueRefused: not a trust domain.
    """
    if not is_trust_domain(trust_domain):
        raise IssueRefused("trust domain: lower-case labels joined by dots, at most 63 characters")
    key = new_key()
    subject = _ca_name(trust_domain, "root")
    builder = _ca_builder(subject, subject, key, now, ROOT_DAYS, path_length=1)
    certificate = _identified(builder, key.public_key(), None).sign(key, hashes.SHA256())
    return Authority(certificate, key, trust_domain)


def make_issuing(root: Authority, purpose: str, now: int) -> Authority:
    """An issuing CA below ``root`` for one purpose; it cannot make further CAs."""
    key = new_key()
    subject = _ca_name(root.trust_domain, f"{purpose} CA")
    days = ISSUING_DAYS
    builder = _ca_builder(subject, root.certificate.subject, key, now, days, path_length=0)
    certificate = _identified(builder, key.public_key(), root.certificate).sign(
        root.key, hashes.SHA256()
    )
    return Authority(certificate, key, root.trust_domain)


def _hosts(profile: Profile, dns: Sequence[str], ips: Sequence[str]) -> list[x509.GeneralName]:
    if (dns or ips) and not profile.hosts:
        raise IssueRefused("hosts: only members and servers have them")
    if len(dns) + len(ips) > LEAF_HOSTS_MAX:
        raise IssueRefused(f"hosts: at most {LEAF_HOSTS_MAX}")
    names: list[x509.GeneralName] = []
    for host in dns:
        if not is_host_name(host):
            raise IssueRefused("hosts: lower-case DNS names, no wildcard")
        names.append(x509.DNSName(host))
    for text in ips:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            raise IssueRefused("hosts: not an IP address") from None
    return names


def _ca_name(trust_domain: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
            x509.NameAttribute(NameOID.COMMON_NAME, f"configsvc {role}"),
        ]
    )


def _ca_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: int,
    days: int,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now - BACKDATED_S))
        .not_valid_after(_utc(now + days * DAY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
    )


def _identified(
    builder: x509.CertificateBuilder, public_key: object, issuer: x509.Certificate | None
) -> x509.CertificateBuilder:
    """Add subject and authority key identifiers."""
    own = x509.SubjectKeyIdentifier.from_public_key(public_key)  # type: ignore[arg-type]
    builder = builder.add_extension(own, critical=False)
    if issuer is None:
        return builder
    known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    parent = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    return builder.add_extension(parent, critical=False)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
