"""Values of the auth room: what is asked, what was decided, what a change writes.

Named tuples without behaviour. The rules that fill them live in ``state``, ``decide`` and
``explain``; the compiled policy rules in ``rules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from configsvc.types import KeySpan, Principal, Source

READ: Final = 0
WRITE: Final = 1
READWRITE: Final = 2

ROOT: Final = "root"  # user and role of this name carry meaning (wire/behaviour.md A1-A3, A23)

NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


class Change(NamedTuple):
    """Upsert (``row`` given, without the key columns) or delete of one row of a small table."""

    table: str
    key: tuple[Any, ...]
    row: tuple[Any, ...] | None


class User(NamedTuple):
    """One user. ``uid`` is random per creation, so a re-created user is another user (ID-8)."""

    name: str
    uid: str
    password_hash: str  # PHC string; empty: no password opens this account
    no_password: bool
    roles: tuple[str, ...]  # ascending
    min_arev: int  # tokens whose password check was at an older auth revision are dead


class Permission(NamedTuple):
    """One grant of a role, kept as the request gave it, to be shown again."""

    key: bytes
    range_end: bytes
    perm_type: int  # READ, WRITE or READWRITE


class Revocation(NamedTuple):
    """One entry of the deny-list; ``until_ns`` 0 is for ever."""

    what: str  # "serial", "identity", "jti", "kid"
    value: str
    until_ns: int


class Request(NamedTuple):
    """One operation to be judged, whole: the same span object is executed afterwards (N4).

    ``span`` is None exactly for actions without keys. ``perm`` (READ or WRITE) is what RBAC must
    grant on the span. ``value_bytes`` is None when the operation carries no value.
    """

    principal: Principal
    source: Source
    action: str  # one of actions.ACTIONS
    span: KeySpan | None = None
    perm: int = READ
    facts: Mapping[str, str] = NO_FACTS
    reason: str = ""
    ticket: str = ""
    value_bytes: int | None = None
    time_ns: int = 0


class Decision(NamedTuple):
    """``rule``: a policy rule's id, "rbac:<role>", "root", "system", "auth-off", "any-write" or
    "default" (nothing granted it). Several grants that only together cover the span are joined
    with "+".
    """

    allowed: bool
    rule: str
