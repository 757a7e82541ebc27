"""Which tree head an audit believes: pinned keys, and how many of them must have signed.

Pins come from the auditor's own file, one C2SP verifier key a line; the key name is the origin.
Keys offered by what is being checked are only a stand-in, and it is said that they are (V2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from configsvc.audit.checkpoint import (
    Checkpoint,
    NoteKey,
    Signature,
    decode_checkpoint,
    decode_key,
    decode_note,
    encode_note,
    verify_checkpoint,
)
from configsvc.cli.exits import CliError, Exit
from configsvc.errors import DecodeError


class Pins(NamedTuple):
    """Whom to believe."""

    origin: str
    keys: tuple[NoteKey, ...]
    threshold: int  # distinct keys that must have signed
    own: bool  # False: these are the words of what is checked


def majority(count: int) -> int:
    """More than half."""
    return count // 2 + 1


def read_pins(path: str, threshold: int | None) -> Pins:
    """Read a pin file; ``#`` starts a comment line.

    Raises:
        CliError: usage; unreadable, a line that is no key, keys of several origins, or none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        keys = tuple(decode_key(one) for one in lines if one.strip() and one[0] != "#")
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise CliError(Exit.USAGE, f"{path}: {error}") from None
    return make_pins(keys, threshold, own=True, what=path)


def make_pins(keys: Sequence[NoteKey], threshold: int | None, *, own: bool, what: str) -> Pins:
    """Pins from keys.

    Raises:
        CliError: usage; no key, several origins, or a threshold that cannot be met.
    """
    distinct = {key.public: key for key in keys}
    origins = {key.name for key in keys}
    if len(origins) != 1:
        raise CliError(Exit.USAGE, f"{what}: needs verifier keys of one origin, has {len(origins)}")
    wanted = majority(len(distinct)) if threshold is None else threshold
    if not 0 < wanted <= len(distinct):
        raise CliError(Exit.USAGE, f"--threshold: {what} holds {len(distinct)} keys")
    return Pins(origins.pop(), tuple(distinct.values()), wanted, own)


def check_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def join_notes(notes: Iterable[str]) -> list[str]:
    """Join the signatures of notes over the same head; largest head first.

    Raises:
        DecodeError: a note that is none.
    """
    by_text: dict[str, dict[Signature, None]] = {}
    for note in notes:
        parsed = decode_note(note)
        by_text.setdefault(parsed.text, {}).update(dict.fromkeys(parsed.signatures))
    texts = sorted(by_text, key=lambda text: decode_checkpoint(text).size, reverse=True)
    return [encode_note(text, by_text[text]) for text in texts]


def best_checkpoint(notes: Iterable[str], pins: Pins) -> Checkpoint | None:
    """The largest head that enough pinned keys signed; None: there is none.

    Raises:
        DecodeError: a note that is none, or a wrong signature of a pinned key.
    """
    for note in join_notes(notes):
        try:
            return verify_checkpoint(note, pins.origin, pins.keys, pins.threshold, check_signature)
        except DecodeError as error:
            if "too few" not in str(error):
                raise
    return None
