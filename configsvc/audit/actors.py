"""Actor records: who acted, from where and with what, stored once under a salted hash.

A leaf carries 32 bytes instead of the person: the record can be erased without breaking a proof
(TE-10), and equal actors of different clusters have different hashes. The salt is derived from
the salt of the first entry that names the actor, so every member makes the same record.

``KnownActors`` is part of the replicated state. Its eviction must be the same on every member and
survive restarts: the actor *recorded* longest ago goes first, so the table is always the newest
``capacity`` actor records ever made.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from configsvc.audit.commitments import field_salt
from configsvc.errors import DecodeError
from configsvc.limits import ACTORS_KNOWN_MAX
from configsvc.types import Principal, Source

_LABEL: Final = b"configsvc/actor/v1"
_FORMAT: Final = 1

ACTOR_FIELDS: Final = (
    "kind",
    "user",
    "uid",
    "cert_uri",
    "cert_serial",
    "cert_sha256",
    "method",
    "jti",
    "ip",
    "tls",
    "client",
    "client_version",
    "roles",  # names, one per line: roles held when the entry was decided
)

_Known = tuple[bytes, bytes, bytes]  # hash, record, salt: the last two empty when known before


def encode_actor(principal: Principal, source: Source, roles: tuple[str, ...] = ()) -> bytes:
    """Canonical bytes: a format byte, then number, 2 bytes of length and UTF-8 per field set."""
    values = (
        principal.kind,
        principal.user,
        principal.uid,
        principal.cert_uri,
        principal.cert_serial,
        principal.cert_sha256,
        principal.method,
        principal.jti,
        source.ip,
        source.tls,
        source.client_name,
        source.client_version,
        "\n".join(roles),
    )
    parts = [bytes((_FORMAT,))]
    for number, value in enumerate(values, start=1):
        if value:
            data = value.encode()
            parts.append(bytes((number,)) + len(data).to_bytes(2, "big") + data)
    return b"".join(parts)


def decode_actor(record: bytes) -> list[tuple[str, str]]:
    """Fields that are set, by name, in their order. Raises ``DecodeError``."""
    if record[:1] != bytes((_FORMAT,)):
        raise DecodeError("actor record needs another reader")
    fields: list[tuple[str, str]] = []
    at, last = 1, 0
    while at < len(record):
        number = record[at]
        end = at + 3 + int.from_bytes(record[at + 1 : at + 3], "big")
        if not last < number <= len(ACTOR_FIELDS) or end > len(record) or end == at + 3:
            raise DecodeError("actor record is not canonical")
        try:
            fields.append((ACTOR_FIELDS[number - 1], record[at + 3 : end].decode()))
        except UnicodeDecodeError as error:
            raise DecodeError("actor record is not UTF-8") from error
        at, last = end, number
    return fields


def actor_hash(salt: bytes, record: bytes) -> bytes:
    """Salted hash under which ``record`` is stored."""
    return sha256(_LABEL + salt + len(record).to_bytes(4, "big") + record).digest()


class KnownActors:
    """Actor record -> hash, newest ``capacity`` ones."""

    __slots__ = ("_by_identity", "_by_principal", "_capacity", "_hashes")

    def __init__(self, capacity: int = ACTORS_KNOWN_MAX) -> None:
        self._capacity = capacity
        self._hashes: dict[bytes, bytes] = {}  # in order of making
        # A shortcut, not state: several principals (two tokens' times) may share one record.
        self._by_principal: dict[tuple[Principal, Source, tuple[str, ...]], _Known] = {}
        # A shortcut to the shortcut, by the object's identity: one decoded principal writes many
        # entries, and to hash all it consists of costs more than to find it.
        self._by_identity: dict[int, tuple[Principal, Source, tuple[str, ...], _Known]] = {}

    def load(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Become the newest of ``records``: (record, hash), in order of making."""
        self._forget()
        self._hashes.clear()
        for record, hashed in records:
            self._add(record, hashed)

    def rows(self) -> list[tuple[bytes, bytes]]:
        """(record, hash) in order of making, for ``load``."""
        return list(self._hashes.items())

    def resolve(
        self,
        principal: Principal,
        source: Source,
        entry_salt: bytes,
        roles: tuple[str, ...] = (),
    ) -> _Known:
        """Hash of the actor; with record and salt when this entry is the first to name it.

        ``roles`` are those held at the entry's decision, ascending: another set is another record.
        """
        near = self._by_identity.get(id(principal))
        if near is not None and near[0] is principal and near[1] is source and near[2] == roles:
            return near[3]
        found = self._by_principal.get((principal, source, roles))
        if found is not None:
            if len(self._by_identity) >= self._capacity:
                self._by_identity.clear()
            self._by_identity[id(principal)] = (principal, source, roles, found)
            return found
        record = encode_actor(principal, source, roles)
        hashed = self._hashes.get(record)
        if hashed is not None:
            known = (hashed, b"", b"")
            if len(self._by_principal) >= self._capacity:
                self._forget()
            self._by_principal[(principal, source, roles)] = known
            return known
        salt = field_salt(entry_salt, "actor")
        hashed = actor_hash(salt, record)
        self._add(record, hashed)
        return hashed, record, salt

    def _add(self, record: bytes, hashed: bytes) -> None:
        self._hashes[record] = hashed
        if len(self._hashes) > self._capacity:
            del self._hashes[next(iter(self._hashes))]
            self._forget()

    def _forget(self) -> None:
        self._by_principal.clear()
        self._by_identity.clear()
