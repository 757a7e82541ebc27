"""What the server tells the peer link about revoked peers, and hears about malformed ones."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest

from configsvc.api.callers import Connection
from configsvc.audit.events import CODES, EVENTS
from configsvc.auth.state import AuthState
from configsvc.identity.certificate import LeafIdentity
from configsvc.server.peers import is_denied, is_revoked, misbehaving
from configsvc.types import NodeId, Source

LEAF = LeafIdentity("member", "41", "spiffe://corp/member/41", "ab12", "00", 0, 1)
CLIENT = LeafIdentity("user", "ada", "spiffe://corp/user/ada", "ab12", "00", 0, 1)
NOW_NS = 1_000


@pytest.mark.parametrize(
    ("what", "value", "until_ns", "revoked"),
    [
        ("serial", LEAF.serial_hex, 0, True),
        ("identity", LEAF.uri, 0, True),
        ("serial", LEAF.serial_hex, NOW_NS + 1, True),
        ("serial", LEAF.serial_hex, NOW_NS, False),
        ("serial", "ab13", 0, False),
        ("identity", "spiffe://corp/member/42", 0, False),
        ("jti", LEAF.serial_hex, 0, False),
    ],
)
def test_a_member_is_revoked_by_serial_or_identity_until_then(
    what: str, value: str, until_ns: int, revoked: bool
) -> None:
    auth = AuthState()
    assert not is_revoked(auth, LEAF, NOW_NS)
    auth.revoke(what, value, until_ns, 0)
    assert is_revoked(auth, LEAF, NOW_NS) is revoked


@pytest.mark.parametrize(
    ("what", "value", "until_ns", "denied"),
    [
        ("serial", "ab12", 0, True),
        ("identity", CLIENT.uri, 0, True),
        ("serial", "ab12", NOW_NS, False),
        ("identity", "spiffe://corp/user/bob", 0, False),
        ("kid", "ab12", 0, False),
    ],
)
def test_a_clients_connection_is_denied_by_serial_or_identity_until_then(
    what: str, value: str, until_ns: int, denied: bool
) -> None:
    auth = AuthState()
    auth.revoke(what, value, until_ns, 0)
    source = Source("10.0.0.7", "TLSv1.3", "other", "")
    assert is_denied(Connection(cast(Any, None), CLIENT, source), auth, NOW_NS) is denied
    assert not is_denied(Connection(cast(Any, None), None, source), auth, NOW_NS)


class Recorded:
    """A log and an audit stream."""

    def __init__(self) -> None:
        self.lines = io.StringIO()
        self.notes: list[tuple[str, dict[str, str]]] = []

    def error(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.write(f"{caller} {msg} {fields}\n")

    def note(self, event: str, **facts: str) -> None:
        self.notes.append((event, facts))


def test_a_peer_that_misbehaves_is_logged_and_recorded() -> None:
    seen = Recorded()
    misbehaving(cast(Any, seen), lambda: cast(Any, seen))(NodeId(0x42))
    assert "0000000000000042" in seen.lines.getvalue()
    ((event, facts),) = seen.notes
    assert event in EVENTS
    assert facts["code"] in CODES
    assert facts["detail"].startswith("PEER_MISBEHAVING")
    assert "0000000000000042" in facts["detail"]
