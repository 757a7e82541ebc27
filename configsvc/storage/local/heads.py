"""Heads of stream M that a member keeps in files of their own: the last signed one, and evidence.

The last signed head lies apart from the history: who puts an older history in place does not put
the signature back (TE-3).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from configsvc.audit.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from configsvc.audit.merkle import EMPTY_ROOT
from configsvc.errors import DecodeError, ExitCode, FatalError
from configsvc.limits import CHECKPOINT_BYTES_MAX
from configsvc.storage.local.engine import sync_dir


class Head(NamedTuple):
    """A size of stream M and its root."""

    size: int
    root: bytes


NO_HEAD: Final = Head(0, EMPTY_ROOT)


def load_last(path: Path, origin: str) -> Head:
    """The head signed last under ``origin``; ``NO_HEAD`` when there is none.

    Raises:
        FatalError: exit 84, the file holds something else.
    """
    try:
        text = path.read_bytes()[: CHECKPOINT_BYTES_MAX + 1].decode()
    except FileNotFoundError:
        return NO_HEAD
    except UnicodeDecodeError:
        text = ""
    try:
        checkpoint = decode_checkpoint(text)
    except DecodeError:
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"{path}: not the last signed head",
            "restore it; without it this member could sign two histories",
        ) from None
    return Head(checkpoint.size, checkpoint.root) if checkpoint.origin == origin else NO_HEAD


def store_last(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file, synced, so that it holds one head or the other at any moment."""
    new = path.with_name(f"{path.name}.new")
    _write_synced(new, encode_checkpoint(checkpoint))
    os.replace(new, path)
    sync_dir(path.parent)


def keep_evidence(
    folder: Path, origin: str, what: str, size: int, heads: Mapping[str, Head]
) -> None:
    """Write down heads that contradict each other; one file per size, the first finding stays."""
    path = folder / f"evidence-{size}.txt"
    if path.exists():
        return
    parts = [
        f"{name}:\n{encode_checkpoint(Checkpoint(origin, *head))}" for name, head in heads.items()
    ]
    _write_synced(path, "\n".join([f"{what}\n", *parts]))
    sync_dir(folder)


def _write_synced(path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
