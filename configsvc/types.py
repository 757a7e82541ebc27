"""Identifiers and small values that every room shares.

Numbers that must not be mixed are distinct types. Nothing here does I/O or holds behaviour.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

NodeId = NewType("NodeId", int)  # member id, uint64; 0 means "none"
ClusterId = NewType("ClusterId", int)  # uint64, fixed at genesis
Term = NewType("Term", int)  # election epoch; never goes back on one member
LogIndex = NewType("LogIndex", int)  # place in the replicated log: first is 1, 0 is "none yet"
Revision = NewType("Revision", int)  # version of the key space; an empty store is at 1
LeaseId = NewType("LeaseId", int)  # int64, 0 means "no lease"

KIND_USER = "user"
KIND_AGENT = "agent"
KIND_SERVICE = "service"
KIND_MEMBER = "member"
KIND_SERVER = "server"
KIND_SYSTEM = "system"  # bootstrap, lease expiry: the cluster itself
KIND_NONE = "none"  # only in a store born under --insecure-dev, while auth is off


class Principal(NamedTuple):
    """Who asks, as proven at the edge. Roles are not part of it: they are looked up in state.

    Source: architecture.md 7, security.md ID-8. Empty strings mean "not applicable".
    """

    kind: str  # one of the KIND_ values
    name: str  # the name part of the certificate's URI
    user: str  # RBAC user name: ``name`` for users, ``agent/name``, ``service/name`` otherwise
    uid: str  # random per creation of a user, hex; empty when the name is no known user
    cert_uri: str
    cert_serial: str  # lower-case hex, no leading zeros
    cert_sha256: str  # lower-case hex of the DER's digest
    method: str  # "certificate", "token", "system", "insecure-dev"
    jti: str  # token id, hex; empty without a token
    key_id: str  # the token's kid
    auth_revision: int  # the token's arev; 0 without a token


class Source(NamedTuple):
    """Where a request came from, as the accepting member saw it."""

    ip: str  # peer address without port; IPv4-mapped IPv6 folded
    tls: str  # "TLSv1.3", "TLSv1.2" or "" for plaintext under --insecure-dev
    client_name: str  # from a closed list (see identity.clients); "other" for the rest
    client_version: str


SYSTEM_PRINCIPAL = Principal(KIND_SYSTEM, "", "", "", "", "", "", "system", "", "", 0)
NO_SOURCE = Source("", "", "", "")


class KeySpan(NamedTuple):
    r"""A canonical half-open span of keys ``[start, end)``; ``end`` None is open-ended.

    A single key ``k`` is ``[k, k + b"\0")``. Built once at the edge of a request; what was
    authorized is the same object that is executed (security.md N4).
    """

    start: bytes
    end: bytes | None

    def holds(self, key: bytes) -> bool:
        """Whether ``key`` lies inside."""
        return self.start <= key and (self.end is None or key < self.end)

    def covers(self, other: KeySpan) -> bool:
        """Whether every key of ``other`` lies inside."""
        if self.start > other.start:
            return False
        if self.end is None:
            return True
        return other.end is not None and other.end <= self.end

    def intersects(self, other: KeySpan) -> bool:
        """Whether some key lies in both."""
        return (self.end is None or other.start < self.end) and (
            other.end is None or self.start < other.end
        )

    def is_empty(self) -> bool:
        """Whether no key can lie inside."""
        return self.end is not None and self.end <= self.start


def span_of(key: bytes, range_end: bytes) -> KeySpan:
    """Canonical span of an etcd request's ``key`` and ``range_end``.

    Empty ``range_end`` is the single key; one zero byte is "from key on"; otherwise half-open.
    An end at or below ``key`` gives an empty span, which is legal in a Range (no keys).
    """
    if not range_end:
        return KeySpan(key, key + b"\0")
    if range_end == b"\0":
        return KeySpan(b"" if key == b"\0" else key, None)
    return KeySpan(key, range_end)
