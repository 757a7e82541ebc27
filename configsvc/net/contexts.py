"""TLS contexts: bare, TLS 1.3, mutual, one issuing CA each; and replacing one while it runs.

A live context is never reloaded (after a key that does not match it would refuse everybody, and
its store only grows): a new one is built, judged, and swapped for new connections (PKI-15).

Source: security.md 4.1, PKI-2, PKI-3, DEF-3, DEF-9.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ALPN_CLIENT_PORT: Final = ("h2", "http/1.1")
ALPN_PEER: Final = ("configsvc-peer/1",)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side. ``ca`` is the one issuing CA that the other side must come from."""

    cert: str
    key: str
    ca: str
    crl: str = ""


class TlsSetupError(Exception):
    """Files that make no usable context; the text names the file, never its content."""


Judge = Callable[[TlsFiles], None]


def server_context(
    files: TlsFiles, *, alpn: Sequence[str], min_version: str = "TLS1.3", client_certs: bool = True
) -> ssl.SSLContext:
    """A listener's context. Raises ``TlsSetupError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _versions(context, min_version)
    context.num_tickets = 0  # a ticket would outlive the certificate it was made under
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    if client_certs:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, files)
    _identity(context, files)
    return context


def client_context(files: TlsFiles, *, alpn: Sequence[str]) -> ssl.SSLContext:
    """A dialler's context: host names are checked, and never against a common name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _versions(context, "TLS1.3")
    context.check_hostname = True
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(list(alpn))
    _trust(context, files)
    _identity(context, files)
    return context


def _versions(context: ssl.SSLContext, least: str) -> None:
    if least == "TLS1.2":
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3


def _trust(context: ssl.SSLContext, files: TlsFiles) -> None:
    # Only the issuing CA is trusted: with the root in the store a leaf of any of our CAs that
    # sends its issuer along would get in.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=files.ca)
        if files.crl:
            context.load_verify_locations(cafile=files.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        raise TlsSetupError(f"trust files {files.ca} {files.crl}: {_reason(error)}") from None


def _identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key)
    except (OSError, ssl.SSLError) as error:
        raise TlsSetupError(f"{files.cert} and {files.key}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not usable"
    return getattr(error, "strerror", None) or "cannot be read"


class ReloadableContext:
    """The context for new connections, and replacing it.

    Args:
        files: Read anew at each reload.
        build: Makes a context out of them.
        judge: Raises ``TlsSetupError`` for files that must not be used (identity, bundle, time).
    """

    def __init__(
        self, files: TlsFiles, build: Callable[[TlsFiles], ssl.SSLContext], judge: Judge
    ) -> None:
        self.files = files
        self._build = build
        self._judge = judge
        judge(files)
        self.current = build(files)

    def reload(self) -> str:
        """Build, judge, swap. "" when the new one is in force, else why the old one stays."""
        try:
            self._judge(self.files)
            fresh = self._build(self.files)
        except TlsSetupError as error:
            return str(error)
        self.current = fresh
        return ""


def read_pem(path: str) -> bytes:
    """A PEM file. Raises ``TlsSetupError``."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TlsSetupError(f"{path}: {error.strerror}") from None
