"""TLS contexts: bare, TLS 1.3, mutual, one issuing CA each; and replacing one while it runs.

A live context is never reloaded (after a key that does not match it would refuse everybody, and
its store only grows): a new one is built, judged, and swapped for new connections (PKI-15).

Contexts are built bare: ``ssl.create_default_context`` would obey ``SSLKEYLOGFILE`` (DEF-9).

Not here: what a leaf or a bundle must look like (``identity.tls_files``, handed in as a judge).

Source: security.md 4.1, PKI-2, PKI-3, DEF-3, DEF-9.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configsvc.errors import ConfigServiceError
from configsvc.limits import CRL_BYTES_MAX, TLS_FILE_BYTES_MAX

ALPN_CLIENT_PORT: Final = ("h2", "http/1.1")
ALPN_PEER: Final = ("configsvc-peer/1",)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side. ``ca`` is the one issuing CA that the other side must come from."""

    cert: str
    key: str
    ca: str
    crl: str = ""


class TlsSetupError(ConfigServiceError):
    """Files that make no usable context; the text names the file, never its content."""


Judge = Callable[[TlsFiles], None]


def server_context(
    files: TlsFiles, *, alpn: Sequence[str], min_version: str = "TLS1.3", client_certs: bool = True
) -> ssl.SSLContext:
    """A listener's context.

    Args:
        files: this side's certificate and key, and the CA that the other side must come from.
        alpn: protocols, best first.
        min_version: "TLS1.3", or "TLS1.2" (ECDHE and AEAD only).
        client_certs: False asks for none; the enrolment listener and --insecure-dev only.

    Raises:
        TlsSetupError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _versions(context, min_version)
    # A ticket would outlive the certificate it was made under, and resume after its revocation.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(alpn))
    if client_certs:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, files)
    _identity(context, files)
    return context


def client_context(files: TlsFiles, *, alpn: Sequence[str]) -> ssl.SSLContext:
    """A dialler's context: host names are checked, and never against a common name.

    Raises:
        TlsSetupError: a file cannot be used.
    """
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
        context.load_verify_locations(cadata=read_pem(files.ca).decode("ascii"))
        if files.crl:
            read_pem(files.crl, CRL_BYTES_MAX)
            context.load_verify_locations(cafile=files.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError, ValueError) as error:
        raise TlsSetupError(f"trust files {files.ca} {files.crl}: {_reason(error)}") from None


def _identity(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise TlsSetupError(f"{files.cert} and {files.key}: {_reason(error)}") from None


def _no_password() -> str:
    """An encrypted key is an error: OpenSSL would ask on the terminal and block the member."""
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not usable"
    return getattr(error, "strerror", None) or "cannot be read"


class ReloadableContext:
    """The context for new connections, and replacing it (PKI-15)."""

    def __init__(
        self, files: TlsFiles, build: Callable[[TlsFiles], ssl.SSLContext], judge: Judge
    ) -> None:
        """Load for the first time.

        Args:
            files: read anew at each reload.
            build: makes a context out of them.
            judge: raises ``TlsSetupError`` for files that must not be used.

        Raises:
            TlsSetupError: the files cannot be used.
        """
        self.files = files
        self._build = build
        self._judge = judge
        self.current = self.load()

    def reload(self) -> str:
        """Build, judge, swap. "" when the new one is in force, else why the old one stays."""
        try:
            self.current = self.load()
        except TlsSetupError as error:
            return str(error)
        return ""

    def load(self) -> ssl.SSLContext:
        """A new context out of the files, judged but not yet in force.

        Raises:
            TlsSetupError: the files cannot be used.
        """
        # OpenSSL reads the files itself: what was judged must still be there after it did.
        before = self._contents()
        self._judge(self.files)
        fresh = self._build(self.files)
        if self._contents() != before:
            raise TlsSetupError(f"{self.files.cert}: changed while it was read; try again")
        return fresh

    def _contents(self) -> list[bytes]:
        files = self.files
        named = ((files.cert, TLS_FILE_BYTES_MAX), (files.key, TLS_FILE_BYTES_MAX))
        trust = ((files.ca, TLS_FILE_BYTES_MAX), (files.crl, CRL_BYTES_MAX))
        return [read_pem(path, bound) for path, bound in (*named, *trust) if path]


def read_pem(path: str, bytes_max: int = TLS_FILE_BYTES_MAX) -> bytes:
    """A PEM file.

    Raises:
        TlsSetupError: missing, unreadable, empty or too long.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise TlsSetupError(f"{path}: {error.strerror}") from None
    if not data or len(data) > bytes_max:
        raise TlsSetupError(f"{path}: empty or too long")
    return data
