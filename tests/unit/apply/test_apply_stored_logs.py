"""Logs that releases wrote are replayed, entry by entry, to the digests they had then (A4).

A file of ``tests/golden`` is one log: ``index term kind payload digest`` in hex, of a member that
was asked for a bit of everything. A file is never changed. Where a digest differs, every store of
that release would diverge while it is upgraded: the change needs a cluster version (V1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from configsvc.apply.applier import Applier
from configsvc.apply.commands import Command, Refused
from configsvc.apply.state import ApplyState
from configsvc.codec.command import CommandDecoder
from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.messages import EntryKind

LOGS = sorted((Path(__file__).resolve().parents[2] / "golden").glob("log-*.txt"))
QUOTA_BYTES = 2 << 30


class Stored(NamedTuple):
    at: int
    term: int
    kind: int
    payload: bytes
    digest: str


def stored(path: Path) -> Iterator[Stored]:
    for line in path.read_text("ascii").splitlines():
        index, term, kind, payload, digest = line.split(" ")
        yield Stored(int(index), int(term), int(kind), bytes.fromhex(payload), digest)


def command_of(entry: Stored, decoder: CommandDecoder) -> Command | None:
    if not entry.payload:
        return None
    if entry.kind == EntryKind.NORMAL:
        return decoder.decode(entry.payload)
    return decoder.decode(decode_conf_change(entry.payload).context)


def test_there_are_logs() -> None:
    assert [path.name for path in LOGS] == ["log-0.1.0.txt"]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_A4_a_stored_log_replays_to_its_digests(path: Path) -> None:
    applier, decoder = Applier(ApplyState(quota_bytes=QUOTA_BYTES)), CommandDecoder()
    kinds: set[str] = set()
    refused = 0
    for entry in stored(path):
        command = command_of(entry, decoder)
        effects = applier.apply(entry.at, entry.term, command)
        assert effects.digest.hex() == entry.digest, f"entry {entry.at}: {command}"
        kinds.add(type(command.op).__name__ if command is not None else "")
        refused += isinstance(effects.result, Refused)
    assert refused >= 5, "refusals are results, too"
    assert len(kinds) >= 20, sorted(kinds)
