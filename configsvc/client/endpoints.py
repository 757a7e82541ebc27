"""Which members a client talks to, and in which order.

Always true: an endpoint is ``https``, or plain ``http`` on this machine's loopback (a server
under ``--insecure-dev``). Nothing else can be expressed, so no option can weaken a connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from configsvc.client.errors import EndpointError

DEFAULT_PORT = 2379


class Endpoint(NamedTuple):
    """One member's client address."""

    host: str  # without brackets
    port: int
    secure: bool

    @property
    def target(self) -> str:
        """``host:port`` as gRPC wants it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.target}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_endpoint(text: str) -> Endpoint:
    """Read ``https://host:port`` or ``host:port``; the port defaults to 2379.

    Raises:
        EndpointError: malformed, with user or path, or plain ``http`` to another machine.
    """
    text = text.strip()
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise EndpointError(f"endpoint {text!r} is not of the form https://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise EndpointError(f"endpoint {text!r} may hold a host and a port, nothing else")
    if parts.scheme == "http" and not _is_loopback(host):
        raise EndpointError(
            f"endpoint {text!r} is plaintext; only a development server on this machine's "
            "loopback is ever spoken to without TLS: use https://"
        )
    return Endpoint(host, DEFAULT_PORT if port is None else port, parts.scheme == "https")


def parse_endpoints(text: str | Iterable[str]) -> tuple[Endpoint, ...]:
    """Read a comma-separated list, or several texts; duplicates are dropped.

    Raises:
        EndpointError: nothing in it, or a part that cannot be used.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    found = tuple(dict.fromkeys(parse_endpoint(part) for part in parts if part.strip()))
    if not found:
        raise EndpointError("no endpoint given")
    return found


class Ring:
    """Endpoints in turn: stays on one while it works, moves on when it fails."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        self._at = 0

    def __len__(self) -> int:
        return len(self._endpoints)

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint, in the order given."""
        return self._endpoints

    @property
    def current(self) -> Endpoint:
        """The one to use now."""
        return self._endpoints[self._at]

    def leave(self, endpoint: Endpoint) -> None:
        """Move on from ``endpoint``; no effect if another call has already moved on."""
        if self.current == endpoint:
            self._at = (self._at + 1) % len(self._endpoints)
