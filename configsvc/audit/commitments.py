"""Salted commitments: a record binds a value without showing it (security.md TE-8).

The proposer of an entry draws one random 32-byte salt. Each committed field gets a salt of its
own, so opening one field opens no other; the entry's salt lies sealed with the openings and never
in the leaf.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from configsvc.errors import ensure

SALT_BYTES: Final = 32

_LABEL: Final = b"configsvc/commit/v1"
# HMAC by hand: two hash calls cost half of what the general call does, and a put needs two HMACs.
HMAC_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
HMAC_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
HMAC_PAD: Final = bytes(SALT_BYTES)  # up to SHA-256's block of 64 bytes


@lru_cache(maxsize=64)
def head_of(field: str) -> bytes:
    """What precedes the field's salt in a commitment."""
    name = field.encode()
    return _LABEL + len(name).to_bytes(4, "big") + name


def field_salt(entry_salt: bytes, field: str, op_index: int = 0) -> bytes:
    """HMAC-SHA256(entry salt, field || operation index as 4 bytes)."""
    ensure(len(entry_salt) == SALT_BYTES, "an entry's salt has 32 bytes")
    block = entry_salt + HMAC_PAD
    inner = sha256(
        block.translate(HMAC_INNER) + field.encode() + op_index.to_bytes(4, "big")
    ).digest()
    return sha256(block.translate(HMAC_OUTER) + inner).digest()


def commit(field: str, salt: bytes, data: bytes) -> bytes:
    """Commitment to ``data`` as ``field`` under the field's own ``salt``."""
    return sha256(head_of(field) + salt + len(data).to_bytes(4, "big") + data).digest()


def commit_entry(entry_salt: bytes, field: str, op_index: int, data: bytes) -> bytes:
    """Commitment to ``data``, from the entry's salt."""
    return commit(field, field_salt(entry_salt, field, op_index), data)
