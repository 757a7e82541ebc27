"""The CA: one root, three issuing CAs, and leaves by profile (PKI-1 to PKI-8).

From a request only the public key is taken; names, usage and lifetime come from the profile. A
leaf has exactly one URI name, no wildcard, and a key of its own. Private keys are files of mode
0600; nothing here prints one.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configsvc.errors import ConfigError, InvalidArgumentError
from configsvc.identity.certificate import NAME
from configsvc.types import KIND_AGENT, KIND_MEMBER, KIND_SERVER, KIND_SERVICE, KIND_USER

DAY: Final = 86_400
ROOT_DAYS: Final = 3_650
ISSUING_DAYS: Final = 1_825
BACKDATE_S: Final = 120
CSR_BYTES_MAX: Final = 8 * 1024
LIFETIME_DEFAULT: Final = {
    KIND_MEMBER: 30 * DAY, KIND_SERVER: 30 * DAY, KIND_AGENT: DAY, KIND_USER: DAY // 2,
    KIND_SERVICE: 7 * DAY,
}  # fmt: skip
LIFETIME_MAX: Final = {
    KIND_MEMBER: 30 * DAY, KIND_SERVER: 30 * DAY, KIND_AGENT: 7 * DAY, KIND_USER: DAY,
    KIND_SERVICE: 30 * DAY,
}  # fmt: skip
CA_OF: Final = {
    KIND_MEMBER: "peer", KIND_SERVER: "server", KIND_USER: "client", KIND_AGENT: "client",
    KIND_SERVICE: "client",
}  # fmt: skip
ISSUING: Final = ("peer", "server", "client")
_USAGE: Final = {
    KIND_MEMBER: [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
    KIND_SERVER: [ExtendedKeyUsageOID.SERVER_AUTH],
    KIND_USER: [ExtendedKeyUsageOID.CLIENT_AUTH],
    KIND_AGENT: [ExtendedKeyUsageOID.CLIENT_AUTH],
    KIND_SERVICE: [ExtendedKeyUsageOID.CLIENT_AUTH],
}


class LeafFiles(NamedTuple):
    """Where a leaf and its key were written."""

    cert: Path
    key: Path


def init_pki(directory: str | os.PathLike[str], trust_domain: str) -> None:
    """Make root and issuing CAs in a new directory.

    Files: ``root.pem``, ``root.key``, ``ca-peer.pem`` … ``ca-client.key``, ``trust-domain``.

    Raises:
        ConfigError: the directory already holds a CA, or the trust domain is no such name.
    """
    where = Path(directory)
    if not trust_domain or not all(NAME.fullmatch(part) for part in trust_domain.split(".")):
        raise ConfigError("trust domain: lower-case labels joined by dots", "e.g. prod.example")
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (where / "root.pem").exists():
        raise ConfigError(f"{where} already holds a CA", "name another directory")
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = _name(f"{trust_domain} root")
    root = _ca(root_name, root_name, root_key.public_key(), root_key, ROOT_DAYS, 1)
    for which in ISSUING:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{trust_domain} {which} CA")
        cert = _ca(name, root_name, key.public_key(), root_key, ISSUING_DAYS, 0)
        _write(where / f"ca-{which}.key", _key_pem(key), 0o600)
        _write(where / f"ca-{which}.pem", _cert_pem(cert), 0o644)
    _write(where / "root.key", _key_pem(root_key), 0o600)
    _write(where / "trust-domain", trust_domain.encode() + b"\n", 0o644)
    _write(where / "root.pem", _cert_pem(root), 0o644)  # last: its presence means "complete"


def trust_domain_of(directory: str | os.PathLike[str]) -> str:
    """The trust domain a PKI directory was made for."""
    try:
        return (Path(directory) / "trust-domain").read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"no CA in {directory}: {error.strerror}", "make one: configctl pki init DIR"
        ) from None


def issue(
    directory: str | os.PathLike[str],
    kind: str,
    name: str,
    *,
    out: str | os.PathLike[str] | None = None,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    lifetime_s: int = 0,
) -> LeafFiles:
    """Issue a leaf with a new key into ``out`` (default: the PKI directory).

    Args:
        directory: Made by ``init_pki``.
        kind: user, agent, service, member or server.
        name: By the name grammar; a member's is its id in hex.
        out: Directory for ``<kind>-<name>.pem`` and ``.key``.
        dns: DNS names, for members and servers only; no wildcards.
        ips: IP addresses, likewise.
        lifetime_s: Seconds; 0 is the kind's default.

    Raises:
        ConfigError: no such CA.
        InvalidArgumentError: kind, name, host or lifetime is not allowed.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    cert = _leaf(directory, kind, name, key.public_key(), dns, ips, lifetime_s)
    where = Path(out) if out is not None else Path(directory)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = LeafFiles(where / f"{kind}-{name}.pem", where / f"{kind}-{name}.key")
    _write(files.key, _key_pem(key), 0o600)
    _write(files.cert, _cert_pem(cert), 0o644)
    return files


def issue_from_csr(
    directory: str | os.PathLike[str], kind: str, name: str, csr_der: bytes, *, lifetime_s: int = 0
) -> bytes:
    """A PEM certificate for the public key of a request, and nothing else of it (PKI-7, V6).

    Raises:
        InvalidArgumentError: not a request, a bad signature, a key of another type, or a request
            that asks for more than a key.
    """
    if len(csr_der) > CSR_BYTES_MAX:
        raise InvalidArgumentError("certificate request: larger than 8 KiB")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        valid = csr.is_signature_valid
        asks = len(csr.extensions)
        key = csr.public_key()
    except Exception:  # noqa: BLE001  # whatever the library says, it is no request of ours
        raise InvalidArgumentError("certificate request: cannot be parsed") from None
    if not valid:
        raise InvalidArgumentError("certificate request: its signature is wrong")
    if asks or len(csr.subject):
        raise InvalidArgumentError("certificate request: may carry a public key only")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise InvalidArgumentError("certificate request: the key must be P-256 or P-384")
    return _cert_pem(_leaf(directory, kind, name, key, (), (), lifetime_s))


def needs_reissue(cert_path: str | os.PathLike[str], now: float | None = None) -> bool:
    """Whether a leaf is missing, unreadable or past half its life."""
    try:
        cert = x509.load_pem_x509_certificate(Path(cert_path).read_bytes())
    except (OSError, ValueError):
        return True
    begin = cert.not_valid_before_utc.timestamp()
    end = cert.not_valid_after_utc.timestamp()
    return (time.time() if now is None else now) > begin + (end - begin) / 2


def _leaf(
    directory: str | os.PathLike[str],
    kind: str,
    name: str,
    key: ec.EllipticCurvePublicKey,
    dns: Iterable[str],
    ips: Iterable[str],
    lifetime_s: int,
) -> x509.Certificate:
    if kind not in CA_OF:
        raise InvalidArgumentError("kind: use user, agent, service, member or server")
    if not NAME.fullmatch(name):
        raise InvalidArgumentError("name: a-z, 0-9, dot, dash, underscore, at most 63 characters")
    lifetime = lifetime_s or LIFETIME_DEFAULT[kind]
    if not 60 <= lifetime <= LIFETIME_MAX[kind]:
        raise InvalidArgumentError(
            f"lifetime: 60 s up to {LIFETIME_MAX[kind] // 3600} h for {kind}"
        )
    ca_cert, ca_key = _load_ca(directory, CA_OF[kind])
    uri = f"spiffe://{trust_domain_of(directory)}/{kind}/{name}"
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    names += _hosts(kind, dns, ips)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca_cert.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACKDATE_S))
        .not_valid_after(now + dt.timedelta(seconds=lifetime))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGE[kind]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    return builder.sign(ca_key, hashes.SHA256())


def _hosts(kind: str, dns: Iterable[str], ips: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for host in dns:
        if "*" in host or not all(NAME.fullmatch(part) for part in host.split(".")):
            raise InvalidArgumentError("DNS name: lower-case labels, no wildcard")
        found.append(x509.DNSName(host))
    for address in ips:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            raise InvalidArgumentError("IP address: not one") from None
    if found and kind not in (KIND_MEMBER, KIND_SERVER):
        raise InvalidArgumentError("hosts: only members and servers have them")
    return found


def _load_ca(
    directory: str | os.PathLike[str], which: str
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    where = Path(directory)
    try:
        cert = x509.load_pem_x509_certificate((where / f"ca-{which}.pem").read_bytes())
        key = serialization.load_pem_private_key((where / f"ca-{which}.key").read_bytes(), None)
    except (OSError, ValueError, TypeError):
        raise ConfigError(
            f"the {which} CA in {where} cannot be read", "make one: configctl pki init DIR"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"the {which} CA in {where} has a key of another type", "make a new CA")
    return cert, key


def _ca(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    path_length: int,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACKDATE_S))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


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


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _cert_pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file by one rename; mode set before the content is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
