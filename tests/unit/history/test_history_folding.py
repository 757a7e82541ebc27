"""The key index: how far it reaches, what it holds, and that nobody can bend it unseen."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable

import pytest
from history_world import World

from configsvc.errors import DecodeError
from configsvc.mvcc.messages import RangeOp
from configsvc.storage.history import filling as filling_module
from configsvc.storage.history import folding
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.errors import SealBroken
from configsvc.types import KeySpan, span_of

EVERYTHING = RangeOp(KeySpan(b"", None), sort_order=1)


def world_of(commits: int) -> World:
    world = World()
    for number in range(commits):
        if number % 5 == 4:
            world.delete(b"k%d" % (number % 3), b"k1")
        else:
            world.commit([("put", b"k%d" % (number % 3), b"v", 0), ("put", b"other", b"", 0)])
    return world


def listed(history: History) -> tuple[int, list[tuple[bytes, int, int, int]]]:
    with sqlite3.connect(history.path) as raw:
        folded = raw.execute("SELECT folded FROM progress").fetchone()[0]
        places = raw.execute("SELECT * FROM versions ORDER BY revision, sub").fetchall()
    raw.close()
    return folded, places


def places(world: World, revision: int) -> list[tuple[bytes, int, int, int]]:
    rows = (row for row in world.rows if row.revision <= revision)
    return [(row.key, row.revision, row.sub, int(row.tombstone)) for row in rows]


@pytest.mark.parametrize("most", [0, 5, 10_000])
def test_no_reader_sees_more_unfolded_rows_than_the_bound(
    history: History, reader: HistoryReader, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(folding, "SQL_FOLD_ROWS_MAX", most)
    world = world_of(30)
    for at in range(0, 30, 2):
        history.write(world.effects[at : at + 2])
        folded, found = listed(history)
        assert found == places(world, folded)
        written = [row for effect in world.effects[: at + 2] for row in effect.rows]
        assert sum(row.revision > folded for row in written) <= most
        revision = world.effects[at + 1].revision
        assert reader.range_at(EVERYTHING, revision) == world.range(EVERYTHING, revision)
    if most == 10_000:
        assert listed(history) == (1, [])  # as it began
    history.checkpoint()
    assert listed(history) == (world.revision, places(world, world.revision))


def test_many_rows_are_folded_in_slices(
    history: History, reopen: Callable[[], History], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = folding._SLICE_END
    shorter = end[: end.index("OFFSET")] + "OFFSET 4"
    monkeypatch.setattr(folding, "_SLICE_END", shorter)
    world = world_of(30)
    history.write(world.effects)
    history.abandon()
    history = reopen()  # folds at start
    assert listed(history) == (world.revision, places(world, world.revision))
    assert {row.key: row for row in history.load_live()} == world.live()


def test_a_fold_that_fails_takes_its_rows_along(
    history: History, reopen: Callable[[], History], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "SQL_FOLD_ROWS_MAX", 3)
    world = world_of(8)
    history.write(world.effects[:1])
    taken = world.rows[2]
    with sqlite3.connect(history.path) as raw:
        place = (taken.key, taken.revision, taken.sub)
        raw.execute("INSERT INTO versions VALUES (?, ?, ?, 0)", place)
    raw.close()
    with pytest.raises(sqlite3.IntegrityError):
        history.write(world.effects[1:])
    history.abandon()
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT applied, folded FROM progress").fetchone() == (1, 1)
        raw.execute("DELETE FROM versions")
    raw.close()
    history = reopen()
    history.write(world.effects)
    assert listed(history) == (world.revision, places(world, world.revision))


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("DELETE FROM versions WHERE revision = 7 AND sub = 1", SealBroken, "row 7.1"),
        ("UPDATE versions SET tombstone = 1 WHERE revision = 9", SealBroken, "row 9.0"),
        ("UPDATE versions SET key = x'00' WHERE revision = 3", SealBroken, "row 3.0"),
        ("INSERT INTO versions VALUES (x'6b31', 8, 5, 0)", DecodeError, "lists"),
    ],
)
def test_the_verifier_sees_a_bent_key_index(
    history: History, reader: HistoryReader, statement: str, error: type[Exception], words: str
) -> None:
    world = world_of(12)
    history.write(world.effects)
    history.checkpoint()
    assert len(list(reader.verify_entries(0, 12))) == 12
    with sqlite3.connect(history.path) as raw:
        raw.execute(statement)
    raw.close()
    with pytest.raises(error, match=words):
        list(reader.verify_entries(0, 12))


def test_an_old_question_does_not_read_the_newest_rows(
    history: History, reader: HistoryReader
) -> None:
    world = world_of(20)
    history.write(world.effects[:10])
    history.checkpoint()
    history.write(world.effects[10:])
    old = world.effects[9].revision
    with reader.transaction() as (_connection, session):
        assert session.places(0, old) == ("versions",)
        assert session.places(0, old + 1) == ("versions", "temp.recent")
        assert session.places(old + 1, old + 2) == ("temp.recent",)
    span = span_of(b"k1", b"")
    assert reader.range_at(RangeOp(span), old) == world.range(RangeOp(span), old)


def test_filling_folds_as_it_goes(
    history: History, tmp_path, key_file, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An install of any size never sorts or holds more than its slices."""
    from history_world import IDENTITY

    monkeypatch.setattr(filling_module, "INSTALL_FOLD_ROWS", 6)
    world = world_of(20)
    copy = filling_module.FillingHistory.open(tmp_path / "copy.db", IDENTITY, key_file, create=True)
    rows = [(*row, row.revision - 2) for row in world.rows]
    for at in range(0, len(rows), 5):
        copy.add_rows(rows[at : at + 5])
        folded, found = listed(copy)
        assert found == places(world, folded)
    assert folded > 5
    copy.abandon()


@pytest.mark.parametrize(
    ("revision", "most"),
    [(1, 8_192), (100_000, 8_192), (300_000, 18_750), (524_288, 32_768), (10**9, 32_768)],
)
def test_more_rows_wait_in_a_larger_history_up_to_a_bound(revision: int, most: int) -> None:
    assert not folding.fold_due(most, revision)
    assert folding.fold_due(most + 1, revision)


def test_a_checkpoint_in_a_rush_folds_nothing(history: History, reader: HistoryReader) -> None:
    world = world_of(30)
    history.write(world.effects)
    assert history.checkpoint(quiet=False) == world.index
    assert listed(history) == (1, [])
    assert reader.range_at(EVERYTHING, world.revision) == world.range(EVERYTHING, world.revision)
    assert history.checkpoint() == world.index
    assert listed(history) == (world.revision, places(world, world.revision))


@pytest.mark.parametrize("seed", range(8))
def test_the_newest_of_a_key_wins_within_one_revision_too(history: History, seed: int) -> None:
    world, chosen = World(), random.Random(seed)
    for _ in range(40):
        keys = chosen.choices([b"a", b"b", b"c"], k=4)
        world.commit(
            [(chosen.choice(["put", "delete"]), key, b"v" * chosen.randrange(2), 0) for key in keys]
        )
        if chosen.random() < 0.3:
            history.write(world.effects[history.meta().applied :])
            history.checkpoint()
            assert {row.key: row for row in history.load_live()} == world.live()
