"""Principals and a small state for tests of rights."""

from __future__ import annotations

from configsvc.auth.messages import User
from configsvc.auth.rules import Policy, Rule
from configsvc.auth.state import AuthState
from configsvc.types import KIND_USER, Principal, Source

HOME = Source("10.20.1.2", "TLSv1.3", "other", "")


def principal(
    name: str = "hana", kind: str = KIND_USER, uid: str = "01", method: str = "certificate"
) -> Principal:
    user = name if kind == KIND_USER else f"{kind}/{name}"
    uri = f"spiffe://test/{kind}/{name}"
    return Principal(kind, name, user, uid, uri, "0a", "ff", method, "", "", 0)


def token(arev: int, name: str = "hana", uid: str = "01") -> Principal:
    return principal(name, uid=uid, method="token")._replace(
        jti="abcd", key_id="kid-1", auth_revision=arev
    )


def state_with(
    *rules: Rule,
    grants: dict[str, dict[tuple[bytes, bytes], int]] | None = None,
    roles: tuple[str, ...] = (),
    who: Principal | None = None,
) -> AuthState:
    """A secure state in which ``who`` (hana) holds every role of ``grants`` and ``roles``."""
    who = principal() if who is None else who
    state = AuthState()
    state.bootstrap(insecure=False, root_uid="00")
    state.roles.update(grants or {})
    held = tuple(sorted({*(grants or {}), *roles}))
    state.users[who.user] = User(who.user, who.uid, "", True, held, 0)
    state.policy = Policy("test", 1, rules)
    return state
