"""An audit export as a directory: C2SP tlog-tiles, plus what a verifier needs beside the leaves.

``checkpoint`` is the signed note; ``tile/entries`` holds the leaves and ``tile/<level>`` the
hashes, named as the tiles specification says. Ours are ``actors.jsonl``, ``openings.jsonl``,
``keys`` (what the server says its keys are: compare them with your own), and with ``--values``
``revisions.jsonl``, which holds the stored values in the clear.

Always true: an export appears complete or not at all; reading one believes nothing in it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from configsvc.audit.binding import RevisionRow
from configsvc.audit.checkpoint import decode_checkpoint, decode_note
from configsvc.audit.merkle import Frontier, NodeLog
from configsvc.audit.proof_text import (
    TILE_HEIGHT,
    TILE_WIDTH,
    TileName,
    decode_bundle,
    encode_bundle,
    tiles_of,
)
from configsvc.audit.verify import ActorRow, Entry, Opening
from configsvc.cli.exits import CliError, Exit
from configsvc.errors import DecodeError

_ENTRIES: Final = -1  # tile level of the leaves themselves
Emit = Callable[[TileName, bytes], None]


class Tiles:
    """Cuts a growing tree into tile files and hands each to ``emit``."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._log = NodeLog(Frontier())
        self._open: dict[int, list[bytes]] = {}
        self._full: dict[int, int] = {}  # level -> tiles already emitted

    def add(self, leaf: bytes) -> None:
        """Append one leaf."""
        self._put(_ENTRIES, leaf)
        for node in self._log.append(leaf):
            if node.level % TILE_HEIGHT == 0:
                self._put(node.level // TILE_HEIGHT, node.hash)

    def finish(self) -> None:
        """Emit the partial tiles of the right edge."""
        for level in sorted(self._open):
            if self._open[level]:
                self._flush(level)

    def _put(self, level: int, item: bytes) -> None:
        items = self._open.setdefault(level, [])
        items.append(item)
        if len(items) == TILE_WIDTH:
            self._flush(level)

    def _flush(self, level: int) -> None:
        items = self._open[level]
        self._open[level] = []
        place = self._full.get(level, 0)
        self._full[level] = place + 1
        data = encode_bundle(items) if level == _ENTRIES else b"".join(items)
        self._emit(TileName(level, place, len(items)), data)


# --- writing --------------------------------------------------------------------------------------


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class ExportWriter:
    """Writes an export beside its final name and moves it there when complete."""

    def __init__(self, directory: Path) -> None:
        """Start.

        Raises:
            CliError: the directory exists, or cannot be made.
        """
        self.directory = directory
        if directory.exists():
            raise CliError(Exit.USAGE, f"{directory} exists: name a new directory")
        self._partial = directory.with_name(f".{directory.name}.{os.getpid()}.part")
        try:
            self._partial.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise CliError(Exit.USAGE, f"{directory}: {error.strerror}") from None
        self._tiles = Tiles(self._write_tile)
        self._files: dict[str, BinaryIO] = {}
        self.leaves = 0

    def _write(self, name: str, data: bytes) -> None:
        path = self._partial / name
        self._make_parents(path)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)

    def _make_parents(self, path: Path) -> None:
        """One by one: ``mkdir(parents=True)`` would leave those in between open to others."""
        for parent in reversed(path.relative_to(self._partial).parents):
            (self._partial / parent).mkdir(mode=0o700, exist_ok=True)

    def _write_tile(self, name: TileName, data: bytes) -> None:
        self._write(name.path, data)

    def _append(self, name: str, item: Mapping[str, Any]) -> None:
        file = self._files.get(name)
        if file is None:
            descriptor = os.open(self._partial / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            file = self._files[name] = os.fdopen(descriptor, "wb")
        file.write(json.dumps(item, sort_keys=True).encode("ascii") + b"\n")

    def actor(self, hashed: bytes, row: ActorRow) -> None:
        """Add an actor record."""
        item = {"hash": hashed.hex(), "salt": _encode(row.salt), "record": _encode(row.record)}
        self._append("actors.jsonl", item)

    def entry(self, entry: Entry) -> None:
        """Add a leaf with what was told beside it."""
        self._tiles.add(entry.leaf)
        self.leaves += 1
        if entry.opening is not None or entry.changes:
            item: dict[str, Any] = {"seq": entry.seq, "changes": _encode(entry.changes)}
            if entry.opening is not None:
                item["salt"] = _encode(entry.opening.salt)
                item["reason"] = entry.opening.reason
                item["ticket"] = entry.opening.ticket
            self._append("openings.jsonl", item)
        for row in entry.rows or ():
            self._append(
                "revisions.jsonl",
                {
                    "seq": entry.seq,
                    "revision": row.revision,
                    "sub": row.sub,
                    "key": _encode(row.key),
                    "value": _encode(row.value),
                    "lease": row.lease,
                    "tombstone": row.tombstone,
                },
            )

    def finish(self, note: str, keys: list[str]) -> None:
        """Write the head and let the export appear."""
        self._tiles.finish()
        for file in self._files.values():
            file.close()
        self._write("checkpoint", note.encode())
        self._write("keys", "".join(f"{key}\n" for key in keys).encode())
        self._partial.rename(self.directory)

    def abandon(self) -> None:
        """Remove what was written so far; nothing to do after ``finish``."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._partial, ignore_errors=True)


# --- reading --------------------------------------------------------------------------------------


class ExportReader:
    """Reads an export; every error in it is a ``DecodeError``, that is, tampering."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.note = (directory / "checkpoint").read_text(encoding="utf-8")
        except OSError as error:
            raise CliError(
                Exit.USAGE, f"{directory}: not an audit export: checkpoint: {error.strerror}"
            ) from None
        except UnicodeDecodeError:
            raise DecodeError("checkpoint: is not UTF-8") from None
        self.actors = self._read_actors()
        self.has_rows = (directory / "revisions.jsonl").exists()

    @property
    def keys(self) -> list[str]:
        """The keys that the export itself names."""
        try:
            return (self.directory / "keys").read_text(encoding="utf-8").split()
        except OSError:
            return []
        except UnicodeDecodeError:
            raise DecodeError("keys: is not UTF-8") from None

    def _items(self, name: str) -> Iterator[dict[str, Any]]:
        path = self.directory / name
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    item = json.loads(line)
                except (ValueError, RecursionError):
                    raise DecodeError(f"{name}:{number}: is no JSON") from None
                if not isinstance(item, dict):
                    raise DecodeError(f"{name}:{number}: is no object")
                yield item

    def _read_actors(self) -> dict[bytes, ActorRow]:
        found = {}
        for item in self._items("actors.jsonl"):
            row = ActorRow(_bytes(item, "salt"), _bytes(item, "record"))
            try:
                found[bytes.fromhex(_take(item, "hash", str))] = row
            except ValueError:
                raise DecodeError("hash is no hex") from None
        return found

    def entries(self) -> Iterator[Entry]:
        """All leaves up to the note's size, with openings and rows where the export has them.

        Raises:
            DecodeError: a file is malformed, missing, or differs from what the leaves give.
        """
        size = decode_checkpoint(decode_note(self.note).text).size
        tiles = Tiles(self._compare_tile)
        openings, rows = self._items("openings.jsonl"), self._items("revisions.jsonl")
        opening, row = next(openings, None), next(rows, None)
        seq = 0
        for name in tiles_of(size):
            if name.level != _ENTRIES:
                continue
            for leaf in decode_bundle(self._read_tile(name)):
                found, changes, own = None, b"", []
                if opening is not None and opening.get("seq") == seq:
                    found, changes = _opening(opening)
                    opening = next(openings, None)
                while row is not None and row.get("seq") == seq:
                    own.append(_row(row))
                    row = next(rows, None)
                tiles.add(leaf)
                yield Entry(seq, leaf, changes, found, own if self.has_rows else None)
                seq += 1
        tiles.finish()
        if opening is not None or row is not None:
            raise DecodeError("openings or revisions are out of order")

    def _read_tile(self, name: TileName) -> bytes:
        try:
            return (self.directory / name.path).read_bytes()
        except OSError:
            raise DecodeError(f"{name.path} is missing") from None

    def _compare_tile(self, name: TileName, data: bytes) -> None:
        if name.level != _ENTRIES and self._read_tile(name) != data:
            raise DecodeError(f"{name.path} differs from the leaves")


def _take(item: Mapping[str, Any], name: str, kind: type) -> Any:
    found = item.get(name)
    if not isinstance(found, kind):
        raise DecodeError(f"{name} is missing or of another kind")
    return found


def _bytes(item: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(_take(item, name, str), validate=True)
    except ValueError:
        raise DecodeError(f"{name} is no base64") from None


def _opening(item: Mapping[str, Any]) -> tuple[Opening | None, bytes]:
    if "salt" not in item:  # the exporter was not shown it
        return None, _bytes(item, "changes")
    opening = Opening(_bytes(item, "salt"), _take(item, "reason", str), _take(item, "ticket", str))
    return opening, _bytes(item, "changes")


def _row(item: Mapping[str, Any]) -> RevisionRow:
    return RevisionRow(
        _take(item, "revision", int),
        _take(item, "sub", int),
        _bytes(item, "key"),
        _bytes(item, "value"),
        _take(item, "lease", int),
        _take(item, "tombstone", bool),
    )
