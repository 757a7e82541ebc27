"""A database that the program of schema 0001 wrote, opened by this one.

``data/history_0001.db.gz`` was written by that program: the commits of ``busy_world``, the first
half before a checkpoint, the rest behind it and never folded, under a key of bytes 0 to 31.
"""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from history_world import IDENTITY, World
from test_history_questions import EVERYTHING, SPANS, busy_world, events_of

from configsvc.mvcc.messages import RangeOp
from configsvc.storage.history.mark import UNMARKED
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.schema import FORMAT, SCHEMA_ID
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile

ARCHIVE = Path(__file__).parent / "data" / "history_0001.db.gz"


@pytest.fixture
def key_file() -> KeyFile:
    return KeyFile(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "history.db"
    path.write_bytes(gzip.decompress(ARCHIVE.read_bytes()))
    path.chmod(0o600)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        folded, visible = raw.execute("SELECT folded, visible_revision FROM progress").fetchone()
        assert 1 < folded < visible
    raw.close()
    return path


def check(world: World, history: History, reader: HistoryReader) -> None:
    """Every question, old and new, against the model."""
    assert {row.key: row for row in history.load_live()} == world.live()
    op = RangeOp(EVERYTHING, sort_order=1)
    for revision in range(1, world.revision + 1, 5):
        assert reader.range_at(op, revision) == world.range(op, revision)
    for span in SPANS:
        expected = [row for row in world.rows if span.holds(row.key)]
        page = reader.key_history(span, newest_first=False)
        assert [entry.row for entry in page.rows] == expected
        assert all(entry.opening and entry.opening.reason == "because" for entry in page.rows)
        groups = reader.events(span, 0, world.revision, 10_000).groups
        assert groups == events_of(world, span, 0, world.revision)
    commits = [effect.commit for effect in world.effects if effect.commit]
    entries = list(reader.verify_entries(0, len(commits)))
    assert [entry.opening.reason for entry in entries] == [commit.reason for commit in commits]
    assert [entry.changes for entry in entries] == [commit.changes for commit in commits]


def test_every_answer_survives_the_upgrade(
    history: History, reader: HistoryReader, reopen: Callable[[], History]
) -> None:
    world = busy_world()
    assert history.meta().applied == world.index
    check(world, history, reader)
    size = len(world.effects)
    for number in range(40):
        world.put(b"/app/%d" % (number % 4), b"w%d" % number)
    world.delete(b"/db/x", b"/app/2")
    history.write(world.effects[size:])
    history.checkpoint()
    check(world, history, reader)
    history.abandon()
    check(world, reopen(), reader)


def test_the_upgrade_is_stamped_and_the_old_index_is_gone(history: History) -> None:
    with sqlite3.connect(history.path) as raw:
        store = raw.execute("SELECT format, minimum_reader FROM store").fetchone()
        schema = raw.execute("SELECT version_num FROM alembic_version").fetchone()
        (mark,) = raw.execute("SELECT mark FROM progress").fetchone()
        indices = raw.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
    raw.close()
    assert (store, schema) == ((FORMAT, FORMAT), (SCHEMA_ID,))
    assert ("revisions_by_key",) not in indices
    assert mark != UNMARKED  # by the start that upgraded, not by the first write after it


def test_an_upgrade_that_is_cut_short_leaves_the_old_database(
    path: Path, key_file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _dump(path)

    def power_loss(*_args: object) -> None:
        raise OSError("power")

    monkeypatch.setattr("configsvc.storage.history.store.fold", power_loss)
    with pytest.raises(OSError, match="power"):
        History.open(path, IDENTITY, key_file, create=False)
    assert _dump(path) == before


def _dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as raw:
        lines = list(raw.iterdump())
    raw.close()
    return lines
