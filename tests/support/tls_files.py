"""Certificates for tests of listeners: two authorities, a server, a client, and a stranger.

Made by hand on purpose: the front end's tests need no PKI of ours to be right.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configsvc.net.contexts import ALPN_CLIENT_PORT, TlsFiles, server_context


class Authority:
    """A CA that issues leaves of one purpose into files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._cert = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def leaf(
        self, name: str, purpose: x509.ObjectIdentifier, san: list[x509.GeneralName]
    ) -> tuple[str, str]:
        """Certificate and key files of a new leaf."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = (
            _builder(subject, self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(san), critical=False)
            .add_extension(issuer_key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_path, key_path = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert_path), str(key_path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


class TestFiles:
    """Everything in one directory."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        hosts = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        alice = [x509.UniformResourceIdentifier("spiffe://test/user/alice")]
        self.servers = Authority(directory, "ca-server")
        self.clients = Authority(directory, "ca-client")
        self.strangers = Authority(directory, "ca-stranger")
        self.server = self.servers.leaf("server", ExtendedKeyUsageOID.SERVER_AUTH, hosts)
        self.client = self.clients.leaf("alice", ExtendedKeyUsageOID.CLIENT_AUTH, alice)
        self.stranger = self.strangers.leaf("mallory", ExtendedKeyUsageOID.CLIENT_AUTH, alice)

    def server_context(self) -> ssl.SSLContext:
        """The listener's side."""
        files = TlsFiles(*self.server, str(self.clients.path))
        return server_context(files, alpn=ALPN_CLIENT_PORT)

    def client_context(
        self, alpn: list[str], leaf: tuple[str, str] | None = None
    ) -> ssl.SSLContext:
        """A client's side; without a leaf it shows no certificate."""
        context = ssl.create_default_context(cafile=str(self.servers.path))
        context.set_alpn_protocols(alpn)
        if leaf is not None:
            context.load_cert_chain(*leaf)
        return context
