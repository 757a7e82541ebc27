"""Requests that a browser was tricked into: foreign hosts, foreign origins (GW-2, GW-4).

A browser lends its client certificate to any page. It always says where a page came from
(``Origin``, ``Sec-Fetch-Site``), and after a rebinding of DNS it still names the attacker's host.
Programs send neither header, and a host of ours.

A name is ours if it stands in a listen or advertise URL or in the server's certificate; an
address cannot be rebound and is always accepted.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509

from configsvc.config import ServerConfig, split_url
from configsvc.errors import RequestError
from configsvc.limits import TLS_FILE_BYTES_MAX

_SAME_SITE: Final = frozenset((b"same-origin", b"none"))
Headers = tuple[tuple[bytes, bytes], ...]


class ForeignHostError(RequestError):
    text = "configsvc: this host is not served here"


class ForeignOriginError(RequestError):
    text = "configsvc: requests of other sites are refused"


class OriginGuard:
    """Judges the headers of each HTTP request."""

    def __init__(self, config: ServerConfig) -> None:
        urls = (
            *config.listen_client_urls,
            *config.listen_client_http_urls,
            *config.listen_metrics_urls,
            *config.advertised_clients,
        )
        self._names = {"localhost"} | {split_url(url)[1].lower() for url in urls}
        self._certificate = Path(config.client_tls.cert_file or "/nonexistent")
        self._read_at = -1  # modification time of the certificate that was read, ns
        self._certified: frozenset[str] = frozenset()

    def check(self, headers: Headers) -> None:
        """Refuse what did not come from a program, or from a page of ours.

        Raises:
            ForeignHostError: ``Host`` is missing, doubled, or names somebody else.
            ForeignOriginError: sent on behalf of a page of another site.
        """
        host = b""
        origins: list[bytes] = []
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                host = value
            elif name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site" and value not in _SAME_SITE:
                raise ForeignOriginError
        if hosts != 1 or not self._is_ours(host):
            raise ForeignHostError
        own = (b"https://" + host.lower(), b"http://" + host.lower())
        if any(origin.lower() not in own for origin in origins):
            raise ForeignOriginError

    def _is_ours(self, host: bytes) -> bool:
        name = _name_of(host)
        if not name or name in self._names or _is_address(name):
            return bool(name)
        return _matches(name, self._certificate_names())

    def _certificate_names(self) -> frozenset[str]:
        """DNS names of the server's certificate, read again when the file changed."""
        try:
            changed = self._certificate.stat().st_mtime_ns
            if changed != self._read_at:
                self._read_at = changed
                self._certified = _dns_names(self._certificate)
        except (OSError, ValueError):
            return self._certified  # replaced this moment: the old names count
        return self._certified


def _name_of(host: bytes) -> str:
    """Host without port and brackets, lower case; "" if it is none."""
    try:
        text = host.decode("ascii").lower()
    except UnicodeDecodeError:
        return ""
    if text.startswith("["):
        inner, _, rest = text[1:].partition("]")
        return inner if _is_port(rest.removeprefix(":")) else ""
    name, _, port = text.partition(":")
    return name.removesuffix(".") if _is_port(port) else ""


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _matches(name: str, patterns: frozenset[str]) -> bool:
    return name in patterns or "*." + name.partition(".")[2] in patterns


def _dns_names(path: Path) -> frozenset[str]:
    with path.open("rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read(TLS_FILE_BYTES_MAX))
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(n.lower() for n in names.value.get_values_for_type(x509.DNSName))
