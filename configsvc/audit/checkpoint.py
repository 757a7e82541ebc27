"""Signed tree heads: C2SP tlog-checkpoint text in a C2SP signed note (security.md TE-2, TE-3).

The text has three lines, origin, size, base64 root, and no extension lines. Each member signs it
with its own Ed25519 log key under the origin as key name; key ids tell them apart. A checkpoint
counts when enough *distinct keys* signed it: one key under two names or twice is one (V4).

Signing and checking a signature come in as functions: this room has no cryptography but hashes.
The verifier's origin and keys come from its own file, never from what it checks (V2).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from configsvc.audit.merkle import HASH_BYTES
from configsvc.errors import DecodeError, ensure
from configsvc.limits import CHECKPOINT_BYTES_MAX, CHECKPOINT_SIGNATURES_MAX

ED25519: Final = 0x01  # signature type of a signed note
_DASH: Final = "\N{EM DASH} "

Sign = Callable[[bytes], bytes]
CheckSignature = Callable[[bytes, bytes, bytes], bool]  # (public key, signature, message)


class NoteKey(NamedTuple):
    """A verifier's key: ``public`` is raw Ed25519, 32 bytes."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that pick the key; not a proof of anything."""
        return key_id(self.name, self.public)


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes


class Signature(NamedTuple):
    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """``text`` ends with a newline; it is what was signed."""

    text: str
    signatures: tuple[Signature, ...]


def log_origin(trust_domain: str, cluster_id: int, epoch: int, *, insecure: bool) -> str:
    """Name of a cluster's audit log in its checkpoints (TE-2); restored ones begin a new epoch.

    Development clusters are marked in front (DEV-3).
    """
    origin = f"{trust_domain}/{cluster_id:016x}/audit/{epoch}"
    return f"insecure/{origin}" if insecure else origin


def key_id(name: str, public: bytes) -> bytes:
    """C2SP key hash: first 4 bytes of SHA-256(name, newline, signature type, key)."""
    return sha256(name.encode() + b"\n" + bytes((ED25519,)) + public).digest()[:4]


def encode_key(key: NoteKey) -> str:
    """Verifier key as text: ``name+id+base64(type, key)``."""
    data = b64encode(bytes((ED25519,)) + key.public).decode()
    return f"{key.name}+{key.id.hex()}+{data}"


def decode_key(text: str) -> NoteKey:
    """Inverse of ``encode_key``. Raises ``DecodeError``."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise DecodeError("verifier key is not name+id+key")
    name, wanted, encoded = parts
    data = decode_base64(encoded)
    if len(data) != 33 or data[0] != ED25519 or not _is_key_name(name):
        raise DecodeError("verifier key is not an Ed25519 key")
    key = NoteKey(name, data[1:])
    if key.id.hex() != wanted:
        raise DecodeError("verifier key does not have its id")
    return key


def encode_checkpoint(checkpoint: Checkpoint) -> str:
    """The text to be signed."""
    ensure(len(checkpoint.root) == HASH_BYTES, "a root has 32 bytes")
    root = b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def decode_checkpoint(text: str) -> Checkpoint:
    """Inverse of ``encode_checkpoint``; extension lines are refused. Raises ``DecodeError``."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not _is_key_name(lines[0]):
        raise DecodeError("checkpoint does not have its three lines")
    origin, digits, encoded, _ = lines
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= 20
    if not plain or (digits[0] == "0" and digits != "0"):
        raise DecodeError("checkpoint's size is not a number")
    root = decode_base64(encoded)
    if len(root) != HASH_BYTES:
        raise DecodeError("checkpoint's root is not a hash")
    return Checkpoint(origin, int(digits), root)


def sign(text: str, key: NoteKey, signer: Sign) -> Signature:
    """Sign a note's text with ``key``'s private half, which ``signer`` holds."""
    return Signature(key.name, key.id, signer(text.encode()))


def encode_note(text: str, signatures: Iterable[Signature]) -> str:
    """Text, blank line, one line per signature."""
    lines = [
        f"{_DASH}{each.name} {b64encode(each.key_id + each.signature).decode()}\n"
        for each in signatures
    ]
    ensure(lines, "a note has a signature")
    return f"{text}\n{''.join(lines)}"


def decode_note(note: str) -> Note:
    """Take a note apart; checks no signature. Raises ``DecodeError``."""
    if len(note) > CHECKPOINT_BYTES_MAX:
        raise DecodeError("note is too long")
    if any(char < " " and char != "\n" for char in note):
        raise DecodeError("note has control characters")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or not text or len(lines) < 2 or lines.pop():
        raise DecodeError("note has no signatures")
    if len(lines) > CHECKPOINT_SIGNATURES_MAX:
        raise DecodeError("note has too many signatures")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def signers(note: Note, keys: Iterable[NoteKey], check: CheckSignature) -> set[bytes]:
    """Public keys among ``keys`` that really signed ``note``.

    Raises:
        DecodeError: a signature that claims a known key is wrong. Unknown keys are passed over.
    """
    known = {(key.name, key.id): key.public for key in keys}
    found: set[bytes] = set()
    message = note.text.encode()
    for each in note.signatures:
        public = known.get((each.name, each.key_id))
        if public is None:
            continue
        if len(each.signature) != 64 or not check(public, each.signature, message):
            raise DecodeError("note has a wrong signature of a known key")
        found.add(public)
    return found


def verify_checkpoint(
    note: str,
    origin: str,
    keys: Iterable[NoteKey],
    threshold: int,
    check: CheckSignature,
) -> Checkpoint:
    """The checkpoint in ``note``, if at least ``threshold`` distinct keys signed it.

    Raises:
        DecodeError: malformed, another origin, or too few signatures.
    """
    ensure(threshold > 0, "a threshold asks for a signature")
    parsed = decode_note(note)
    checkpoint = decode_checkpoint(parsed.text)
    if checkpoint.origin != origin:
        raise DecodeError("checkpoint is of another origin")
    if len(signers(parsed, keys, check)) < threshold:
        raise DecodeError("checkpoint has too few signatures")
    return checkpoint


def merge(checkpoint: Checkpoint, signatures: Mapping[bytes, bytes]) -> str:
    """A note from raw signatures by public key, in ascending order of key."""
    name = checkpoint.origin
    found = [
        Signature(name, key_id(name, public), signatures[public]) for public in sorted(signatures)
    ]
    return encode_note(encode_checkpoint(checkpoint), found)


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = decode_base64(encoded)
    if not line.startswith(_DASH) or not _is_key_name(name) or len(data) < 5:
        raise DecodeError("note has a line that is no signature")
    return Signature(name, data[:4], data[4:])


def _is_key_name(name: str) -> bool:
    return bool(name) and name.isprintable() and "+" not in name and " " not in name


def decode_base64(text: str) -> bytes:
    """Strict and canonical. Raises ``DecodeError``."""
    try:
        data = b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise DecodeError("not base64") from error
    if b64encode(data).decode() != text:
        raise DecodeError("not canonical base64")
    return data
