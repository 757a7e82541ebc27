"""What one audit record says, and its canonical bytes (security.md AUD-2, AUD-3).

A leaf is a run of fields in ascending number: number (1 byte), length (2 bytes, big-endian),
value. An absent field says "not applicable". Integers have a fixed width, so every record has
exactly one encoding and every encoding one meaning: ``decode_leaf`` refuses unknown numbers,
wrong widths, wrong order and trailing bytes. JSON is a rendering for people, never hashed.

Field 1 names the format and the oldest reader that it admits. The log's origin is not repeated in
each leaf: it stands in the checkpoint that the tree is signed under.

Not here: who builds leaves (``record``), the tree they go into (``merkle``), JSON (``render``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from configsvc.errors import DecodeError, ensure
from configsvc.limits import LEAF_BYTES_MAX, LEAF_TEXT_BYTES_MAX

FORMAT: Final = 1
READER: Final = 1

U8, U16, U64, I64, HASH, SIZED_HASH, BYTES, TEXT = (
    "u8",
    "u16",
    "u64",
    "i64",
    "hash",
    "sized-hash",  # 8 bytes of length, then SHA-256: stands for a key that is too long
    "bytes",
    "text",
)

_WIDTHS: Final = {U8: 1, U16: 2, U64: 8, I64: 8, HASH: 32, SIZED_HASH: 40}


class Field(NamedTuple):
    number: int
    name: str
    kind: str


Value = int | bytes | str

FIELDS: Final = (
    Field(1, "v", U16),  # format in the high byte, oldest reader in the low one
    Field(2, "seq", U64),  # leaf index
    Field(3, "time_ns", U64),  # leader's UTC
    Field(4, "raft_term", U64),
    Field(5, "raft_index", U64),
    Field(6, "revision", U64),  # produced by this entry, or the current one
    Field(7, "auth_rev", U64),
    Field(8, "policy_rev", U64),
    Field(9, "request_id", U64),
    Field(10, "actor", HASH),  # of the actor record
    Field(11, "member", U64),  # that accepted the request
    Field(12, "event", U16),
    Field(13, "code", U8),  # gRPC
    Field(14, "time_suspect", U8),
    Field(15, "method", TEXT),
    Field(16, "rule", TEXT),  # that decided
    Field(17, "detail", TEXT),  # closed list, or the error's fixed text
    Field(18, "listener", TEXT),
    Field(20, "key", BYTES),
    Field(21, "key_digest", SIZED_HASH),
    Field(22, "range_end", BYTES),
    Field(23, "range_end_digest", SIZED_HASH),
    Field(24, "lease", I64),
    Field(25, "user", TEXT),
    Field(26, "role", TEXT),
    Field(27, "target_member", U64),
    Field(28, "object", TEXT),  # bundle, key id, serial, alarm, origin: what the event is about
    Field(29, "version", U64),
    Field(30, "perm_type", U8),
    Field(31, "size", U64),  # of an anchored tree
    Field(32, "digest", HASH),  # root of an anchored tree, SHA-256 of a bundle's source
    Field(33, "until_ns", U64),
    Field(34, "repeated", U64),  # this record stands for so many equal ones
    Field(35, "manifest", HASH),  # of what a restore or export consisted of
    Field(40, "kind", U8),  # change records only: 1 put, 2 delete
    Field(41, "sub", U64),  # change records only: place inside the revision
    Field(42, "prev_mod_rev", U64),
    Field(43, "length", U64),  # of the new value, bytes
    Field(44, "commit", HASH),  # to the new value
    Field(45, "prev_commit", HASH),  # to the value before
    Field(46, "value_lease", I64),  # the key hangs on it now
    Field(47, "count", U64),  # changes of this entry, kept as records beside the rows
    Field(48, "root", HASH),  # RFC 6962 root of those records
    Field(50, "reason_commit", HASH),
    Field(51, "ticket_commit", HASH),
)

_BY_NUMBER: Final = {field.number: field for field in FIELDS}
_BY_NAME: Final = {field.name: field for field in FIELDS}
_NAMES: Final = tuple(field.name for field in FIELDS)


def encode_leaf(fields: Mapping[str, Value | None]) -> bytes:
    """Canonical bytes of ``fields`` by name; None and missing are the same.

    Field 1 is put in. Values must have their field's type and range: what is recorded is ours.
    """
    ensure(set(fields) <= set(_NAMES), "every field of a record is known")
    parts = [encode_field(1, FORMAT << 8 | READER)]
    for field in FIELDS[1:]:
        value = fields.get(field.name)
        if value is not None:
            parts.append(encode_field(field.number, value))
    leaf = b"".join(parts)
    ensure(len(leaf) <= LEAF_BYTES_MAX, "a leaf is at most 8 KiB")
    return leaf


def encode_field(number: int, value: Value) -> bytes:
    """One field; integers are big-endian in their field's width."""
    kind = _BY_NUMBER[number].kind
    if isinstance(value, int):
        data = value.to_bytes(_WIDTHS[kind], "big", signed=kind == I64)
    else:
        data = value.encode() if isinstance(value, str) else value
        ensure(_WIDTHS.get(kind, len(data)) == len(data), "a value has its field's width")
    return b"%c%b%b" % (number, len(data).to_bytes(2, "big"), data)


def shortened(text: str) -> str:
    """``text``, cut at a character so that it stays within a record's bound."""
    data = text.encode()
    if len(data) <= LEAF_TEXT_BYTES_MAX:
        return text
    return data[:LEAF_TEXT_BYTES_MAX].decode(errors="ignore")


def decode_leaf(leaf: bytes) -> dict[str, Value]:
    """Inverse of ``encode_leaf``, field 1 included.

    Raises:
        DecodeError: not canonical, or of a format that needs a newer reader.
    """
    if len(leaf) > LEAF_BYTES_MAX:
        raise DecodeError("leaf is too long")
    fields: dict[str, Value] = {}
    at = last = 0
    while at < len(leaf):
        number = leaf[at]
        end = at + 3 + int.from_bytes(leaf[at + 1 : at + 3], "big")
        field = _BY_NUMBER.get(number)
        if end > len(leaf) or at + 3 > len(leaf) or number <= last:
            raise DecodeError("leaf is cut or out of order")
        if not last and (number != 1 or leaf[4:5] > bytes((FORMAT,))):
            raise DecodeError("leaf needs a newer reader")
        if field is None:
            raise DecodeError("leaf has an unknown field")
        fields[field.name] = _decode_value(field, leaf[at + 3 : end])
        at, last = end, number
    if not fields:
        raise DecodeError("leaf is empty")
    return fields


def _decode_value(field: Field, data: bytes) -> Value:
    if _WIDTHS.get(field.kind, len(data)) != len(data):
        raise DecodeError("leaf has a field of wrong width")
    if field.kind in (U8, U16, U64, I64):
        return int.from_bytes(data, "big", signed=field.kind == I64)
    if field.kind == TEXT:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError("leaf has a text that is not UTF-8") from error
    return data
