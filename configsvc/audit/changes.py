"""What a record says about keys that changed (security.md AUD-4).

One change of one named key stands in the leaf itself. Several (transaction, range delete, lease
expiry) stand beside the revision rows as *change records*, canonical like leaves; the leaf carries
their number and RFC 6962 root. One entry may delete tens of thousands of keys: ``ChangeRecords``
makes its records piece by piece, and those of deletions without the detour over named fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

from configsvc.audit.commitments import HMAC_INNER, HMAC_OUTER, HMAC_PAD, commit_entry, head_of
from configsvc.audit.leaf import Value, encode_field, encode_leaf
from configsvc.audit.merkle import Frontier
from configsvc.errors import DecodeError
from configsvc.limits import LEAF_BYTES_MAX, LEAF_KEY_BYTES_MAX

PUT: Final = 1
DELETE: Final = 2

VALUE: Final = "value"  # committed field names
PREV_VALUE: Final = "prev_value"
REASON: Final = "reason"
TICKET: Final = "ticket"


class KeyChange(NamedTuple):
    """``value`` None: the key was deleted. ``prev_mod_rev`` 0: it did not exist before."""

    sub: int
    key: bytes
    value: bytes | None
    lease: int = 0
    prev_mod_rev: int = 0
    prev_value: bytes | None = None


# A deletion's record behind its key: fields 40, 41, 42 and 45, each after its number and width.
_DELETED: Final = Struct(">4s3sQ3sQ3s32s")
_F40: Final = encode_field(40, DELETE)
_F41, _F42, _F45 = b"\x29\x00\x08", b"\x2a\x00\x08", b"\x2d\x00\x20"
_FRONT: Final = encode_leaf({}) + b"\x14"  # field 1, and the number of the key's


def key_fields(key: bytes, name: str = "key") -> dict[str, Value | None]:
    """``key`` as a field, or its length and digest when it is long (AUD-3)."""
    if len(key) <= LEAF_KEY_BYTES_MAX:
        return {name: key}
    return {f"{name}_digest": len(key).to_bytes(8, "big") + sha256(key).digest()}


def change_fields(change: KeyChange, entry_salt: bytes) -> dict[str, Value | None]:
    """The fields that tell what happened to the key, without the key itself."""
    fields: dict[str, Value | None] = {}
    if change.value is not None:
        fields["length"] = len(change.value)
        fields["commit"] = commit_entry(entry_salt, VALUE, change.sub, change.value)
        if change.lease:
            fields["value_lease"] = change.lease
    if change.prev_value is not None:
        fields["prev_mod_rev"] = change.prev_mod_rev
        fields["prev_commit"] = commit_entry(entry_salt, PREV_VALUE, change.sub, change.prev_value)
    return fields


def change_record(change: KeyChange, entry_salt: bytes) -> bytes:
    """Canonical bytes of one change of several."""
    fields = change_fields(change, entry_salt)
    fields.update(key_fields(change.key))
    fields["kind"] = DELETE if change.value is None else PUT
    fields["sub"] = change.sub
    return encode_leaf(fields)


class ChangeRecords:
    """The change records of one entry, in the order of its rows."""

    __slots__ = ("_inner", "_outer", "_parts", "_salt", "_tree")

    def __init__(self, entry_salt: bytes, changes: Iterable[KeyChange] = ()) -> None:
        block = entry_salt + HMAC_PAD
        self._salt = entry_salt
        self._inner = block.translate(HMAC_INNER) + PREV_VALUE.encode()
        self._outer = block.translate(HMAC_OUTER)
        self._parts: list[bytes] = []  # length and bytes of each record
        self._tree = Frontier()
        self.add(changes)

    def __len__(self) -> int:
        return self._tree.size

    def add(self, changes: Iterable[KeyChange]) -> None:
        """More changes of the same entry."""
        parts = self._parts
        hashes: list[bytes] = []
        inner, outer, head, pack = self._inner, self._outer, head_of(PREV_VALUE), _DELETED.pack
        for change in changes:
            sub, key, value, _, prev_mod_rev, prev = change
            if value is None and prev is not None and len(key) <= LEAF_KEY_BYTES_MAX:
                own = sha256(outer + sha256(inner + sub.to_bytes(4, "big")).digest()).digest()
                bound = sha256(head + own + len(prev).to_bytes(4, "big") + prev).digest()
                rest = pack(_F40, _F41, sub, _F42, prev_mod_rev, _F45, bound)
                record = _FRONT + len(key).to_bytes(2, "big") + key + rest
            else:
                record = change_record(change, self._salt)
            hashes.append(sha256(b"\0" + record).digest())
            parts += (len(record).to_bytes(2, "big"), record)
        self._tree.append_hashes(hashes)

    def root(self) -> bytes | None:
        """RFC 6962 root of the records; None when there are none."""
        return self._tree.root() if self._parts else None

    def joined(self) -> bytes:
        """The records as they are stored: each with 2 bytes of length before it."""
        return b"".join(self._parts)


def split_records(data: bytes) -> Iterator[bytes]:
    """The records that were ``joined``. Raises ``DecodeError``."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or end - at - 2 > LEAF_BYTES_MAX:
            raise DecodeError("change records are cut")
        yield data[at + 2 : end]
        at = end
