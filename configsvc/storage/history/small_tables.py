"""The small tables: users, roles, leases, members and the like, one description for all.

Owns which columns they have and how a value of ``TableChange`` becomes a column and back. The
schema, the writer, the loader and the install are driven by ``SMALL_TABLES``, so that a table is
described once. Apply rewrites rows by key; the last change of a batch is the only one written.

Not here: what the rows mean (``apply``).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

from configsvc.errors import ensure


class Kind(Enum):
    """How a value is stored."""

    INT = "int"  # fits int64
    U64 = "u64"  # uint64, kept as two's complement: SQL integers are signed
    FLAG = "flag"  # bool as 0 or 1
    TEXT = "text"
    BLOB = "blob"
    SECRET = "secret"  # text, sealed like a value  # noqa: S105


class Column(NamedTuple):
    name: str
    kind: Kind


class SmallTable(NamedTuple):
    name: str
    keys: tuple[Column, ...]
    values: tuple[Column, ...]


def _columns(spec: str) -> tuple[Column, ...]:
    return tuple(
        Column(name, Kind(kind)) for name, _, kind in (part.partition(":") for part in spec.split())
    )


def _table(name: str, keys: str, values: str) -> SmallTable:
    return SmallTable(name, _columns(keys), _columns(values))


SMALL_TABLES: Final = {
    table.name: table
    for table in (
        _table("leases", "id:int", "ttl:int creator:text remaining:int"),
        _table(
            "users",
            "name:text",
            "uid:text password_hash:secret no_password:flag roles:text min_arev:int",
        ),
        _table("roles", "name:text", ""),
        _table("permissions", "role:text key:blob range_end:blob", "perm_type:int"),
        _table(
            "members",
            "id:u64",
            "name:text peer_urls:text client_urls:text is_learner:flag store_id:blob version:text",
        ),
        _table("removed_members", "id:u64", ""),
        _table("alarms", "member:u64 alarm:int", ""),
        _table(
            "signing_keys",
            "kid:text",
            "use:text member:u64 public:blob state:text since_index:int",
        ),
        _table("revocations", "what:text value:text", "until_ns:int"),
        _table("policy_bundles", "version:int", "name:text source:text compiled:blob active:flag"),
        _table("anchors", "member:u64", "origin:text size:int root:blob"),
        _table("signatures", "member:u64 size:int", "root:blob signature:blob"),
        _table("meta", "name:text", "value:blob"),
    )
}

_WRAP = 1 << 64
_SIGN = 1 << 63


def to_signed(value: int) -> int:
    """Uint64 as the int64 with the same bits."""
    return value - _WRAP if value >= _SIGN else value


def to_unsigned(value: int) -> int:
    """The inverse of ``to_signed``."""
    return value + _WRAP if value < 0 else value


def store_value(kind: Kind, value: Any) -> Any:
    """A value as the column holds it. ``SECRET`` is sealed by the caller afterwards."""
    if kind is Kind.U64:
        return to_signed(value)
    if kind is Kind.FLAG:
        return int(value)
    if kind is Kind.SECRET:
        return value.encode()
    if kind is Kind.BLOB:
        ensure(isinstance(value, bytes), "a blob column takes bytes")
    return value


def load_value(kind: Kind, value: Any) -> Any:
    """The inverse of ``store_value``."""
    if kind is Kind.U64:
        return to_unsigned(value)
    if kind is Kind.FLAG:
        return bool(value)
    if kind is Kind.SECRET:
        return value.decode()
    return value
