"""What a record says about keys that changed (security.md AUD-4).

One change of one named key stands in the leaf itself. Several (transaction, range delete, lease
expiry) stand beside the revision rows as *change records*, canonical like leaves; the leaf carries
their number and RFC 6962 root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from configsvc.audit.commitments import commit_entry
from configsvc.audit.leaf import Value, encode_leaf
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


def join_records(records: Sequence[bytes]) -> bytes:
    """Records as they are stored: each with 2 bytes of length before it."""
    return b"".join(len(record).to_bytes(2, "big") + record for record in records)


def split_records(data: bytes) -> Iterator[bytes]:
    """Inverse of ``join_records``. Raises ``DecodeError``."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or end - at - 2 > LEAF_BYTES_MAX:
            raise DecodeError("change records are cut")
        yield data[at + 2 : end]
        at = end
