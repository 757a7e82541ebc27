"""Rows that carry their leaf's salt under the seal of their value."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from history_world import IDENTITY, World

from configsvc.apply.commands import Effects
from configsvc.mvcc.messages import RangeOp
from configsvc.storage.history.messages import Opening
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.sink import InstallSink
from configsvc.storage.snapshot.source import InstallSource
from configsvc.types import KeySpan, span_of

EVERYTHING = KeySpan(b"", None)
ROW_BYTES = 100


def salt(seq: int) -> bytes:
    return b"hidden-salt" + seq.to_bytes(21, "big")


def bare(effect: Effects, **kept: object) -> Effects:
    """``effect`` with nothing to open but its salt, and what is ``kept``."""
    opening = {"salt": salt(effect.commit.seq), "reason": "", "ticket": "", "changes": b""}
    return effect._replace(commit=effect.commit._replace(**{**opening, **kept}))


def mixed_world() -> tuple[World, list[Effects]]:
    """Rows with their salt, and next to them every reason why a salt lies elsewhere."""
    world = World()
    made = []
    for number in range(12):
        key, value = b"/k%d" % (number % 3), b"hidden-value" * (number % 4)
        made.append(bare(world.put(key, value)))
        made.append(bare(world.put(key, value), reason="why"))
        made.append(bare(world.put(key, value), ticket="T-1"))
        made.append(bare(world.put(key, value), salt=b"short"))
        both = world.commit([("put", b"/a", b"1", 0), ("put", b"/b", b"2", 0)])
        made.append(bare(both, changes=b"records"))
        made.append(bare(world.commit([])))
        made.append(bare(world.delete(key)))
    return world, made


def openings(effects: list[Effects]) -> list[Opening]:
    commits = [effect.commit for effect in effects]
    return [Opening(c.salt, c.reason, c.ticket, c.changes) for c in commits]


def check(world: World, effects: list[Effects], reader: HistoryReader) -> None:
    entries = list(reader.verify_entries(0, len(effects)))
    found = [Opening(*entry.opening, entry.changes) for entry in entries]
    assert found == openings(effects)
    by_seq = dict(enumerate(openings(effects)))
    log = reader.key_history(EVERYTHING, newest_first=False).rows
    assert [entry.row for entry in log] == world.rows
    assert all(entry.opening == by_seq[entry.commit.seq] for entry in log)
    op = RangeOp(EVERYTHING, sort_order=1)
    assert reader.range_at(op, world.revision) == world.range(op, world.revision)


def test_every_opening_is_found_wherever_it_lies(history: History, reader: HistoryReader) -> None:
    world, effects = mixed_world()
    history.write(effects)
    check(world, effects, reader)
    with sqlite3.connect(history.path) as raw:
        apart = {seq for (seq,) in raw.execute("SELECT seq FROM openings")}
    raw.close()
    # The first and the last of each seven, and nothing else, lies with its row.
    assert apart == {n for n in range(len(effects)) if n % 7 not in (0, 6)}


def test_salts_and_values_are_not_readable_on_disk(history: History) -> None:
    _world, effects = mixed_world()
    history.write(effects)
    history.close()
    stored = history.path.read_bytes()
    assert b"/k1" in stored
    assert b"hidden" not in stored


def test_an_install_brings_every_opening(
    history: History, reader: HistoryReader, tmp_path: Path, key_file: KeyFile
) -> None:
    world, effects = mixed_world()
    history.write(effects)
    target = tmp_path / "other"
    target.mkdir(mode=0o700)
    (target / "sql").mkdir(mode=0o700)
    sink = InstallSink(target, IDENTITY, key_file, generations.next_number(target, 0))
    ended = [sink.feed(chunk) for chunk in InstallSource(reader).chunks()]
    assert ended[-1]
    sink.finish()
    twin = HistoryReader(sink.path, IDENTITY, key_file)
    check(world, effects, twin)
    assert twin.hash_kv(world.revision, 0) == reader.hash_kv(world.revision, 0)
    floor = 5
    sizes = [store.window_bytes(floor, ROW_BYTES) for store in (history, sink.history)]
    assert sizes[0] == sizes[1] > 0
    twin.close()
    sink.history.abandon()


def test_the_size_of_rows_counts_no_salt(history: History) -> None:
    world = World()
    for length in (0, 5, 300):
        history.write([bare(world.put(b"k", bytes(length)))])
    assert history.window_bytes(1, ROW_BYTES) == 3 * (ROW_BYTES + 1) + 305


@pytest.mark.parametrize(
    "change",
    [
        # The mark that a salt follows, taken away, and put on the next row, which has none.
        "UPDATE revisions SET value = CAST(substr(value, 1, 8) || x'00000000'"
        " || substr(value, 13) AS BLOB) WHERE revision = 2",
        "UPDATE revisions SET value = CAST(substr(value, 1, 8) || x'80000001'"
        " || substr(value, 13) AS BLOB) WHERE revision = 3",
        "UPDATE revisions SET value = zeroblob(length(value)) WHERE revision = 2",
        "UPDATE revisions SET seq = seq + 1 WHERE revision = 2",
    ],
)
def test_an_edited_row_is_named(history: History, reader: HistoryReader, change: str) -> None:
    world = World()
    history.write([bare(world.put(b"k", b"v")), bare(world.put(b"k", b"v"), reason="why")])
    history.checkpoint()
    with sqlite3.connect(history.path) as raw:
        before = raw.execute("SELECT hex(substr(value, 9, 4)) FROM revisions").fetchall()
        assert before == [("80000000",), ("00000001",)]
        raw.execute(change)
    raw.close()
    with pytest.raises(SealBroken, match=r"row [23]\.0"):
        list(reader.verify_entries(0, 2))
    with pytest.raises(SealBroken):
        reader.key_history(span_of(b"k", b""))
