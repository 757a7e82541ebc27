"""What both ports ask, and tell, about who is at the other end.

Not here: judging hellos and store ids (``runtime.membership``), the link itself (``transport``).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from configsvc.api.callers import Connection
from configsvc.api.contract import ConnectionIdentity
from configsvc.auth.state import AuthState
from configsvc.identity.certificate import LeafIdentity
from configsvc.runtime.local_audit import LocalAudit
from configsvc.server.logs import Log
from configsvc.types import NodeId


def is_revoked(auth: AuthState, leaf: LeafIdentity, time_ns: int) -> bool:
    """Whether the replicated deny-list names a member's certificate or identity (PKI-13)."""
    return auth.is_denied("serial", leaf.serial_hex, time_ns) or auth.is_denied(
        "identity", leaf.uri, time_ns
    )


def is_listed(identity: ConnectionIdentity, revoked: AbstractSet[str]) -> bool:
    """Whether a client's connection stands on a certificate of the revocation list (PKI-13)."""
    if not isinstance(identity, Connection):
        return False
    return identity.suspect()[0].cert_serial in revoked


def is_denied(identity: ConnectionIdentity, auth: AuthState, time_ns: int) -> bool:
    """Whether the replicated deny-list names a client's certificate or identity (PKI-13)."""
    if not isinstance(identity, Connection):
        return False
    principal = identity.suspect()[0]
    return auth.is_denied("serial", principal.cert_serial, time_ns) or auth.is_denied(
        "identity", principal.cert_uri, time_ns
    )


def misbehaving(log: Log, audit: Callable[[], LocalAudit]) -> Callable[[NodeId], None]:
    """Called once per peer that goes on sending malformed messages: a log line and a record.

    Args:
        log: The member's.
        audit: Its own stream, which exists once the member does.
    """

    def tell(peer: NodeId) -> None:
        detail = f"PEER_MISBEHAVING: malformed messages of member {peer:016x}"
        log.error("transport", "a peer sends malformed messages", peer=f"{peer:016x}")
        audit().note("limit.hit", code="INVALID_ARGUMENT", detail=detail)

    return tell
