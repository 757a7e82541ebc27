"""Commits that say the same of who did what go in by another statement, and come out alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from history_world import World

from configsvc.audit.merkle import leaf_hash
from configsvc.storage.history import statements
from configsvc.storage.history.store import History
from configsvc.storage.history.tree import TILE_WIDTH, Tile, TileTree

BLOCK = statements.BLOCK_ROWS[0]


def plain(world: World, number: int, **more: object) -> None:
    """A put of one author."""
    effects = world.put(b"k%d" % (number % 7), b"v%d" % number)
    assert effects.commit is not None
    commit = effects.commit._replace(reason="", ticket="", changes=b"", salt=b"s" * 32, **more)
    world.effects[-1] = effects._replace(commit=commit)


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
@pytest.mark.parametrize("odd", [None, 0, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_what_is_stored_is_what_was_done(history: History, count: int, odd: int | None) -> None:
    world = World()
    for number in range(count):
        if number == odd:
            world.bookkeeping()
            plain(world, number, actor=b"b" * 32, actor_record=b"who", actor_salt=b"t" * 32)
        else:
            plain(world, number)
    history.write(world.effects)
    stored = history._cursor.execute("SELECT * FROM commits ORDER BY seq").fetchall()
    commits = [(e.commit, e.leaf) for e in world.effects if e.commit is not None]
    assert stored == [
        (c.seq, c.raft_index, c.raft_term, c.revision, c.time_ns, c.event, c.actor, c.outcome, leaf)
        for c, leaf in commits
    ]


def flat(rows: list[list[object]]) -> list[object]:
    return [value for each in rows for value in each]


def row(number: int) -> list[object]:
    return [number, number + 5, 3, number + 2, 10**18 - number, "kv.put", b"a" * 32, "OK", b"leaf"]


@pytest.mark.parametrize(
    ("column", "value"),
    [(1, 99), (2, 4), (3, 99), (5, "kv.txn"), (6, b"b" * 32), (7, "ABORTED")],
)
def test_a_block_is_a_run_only_if_all_is_as_in_its_first_row(column: int, value: object) -> None:
    rows = [row(number) for number in range(BLOCK)]
    assert statements.is_commit_run(flat(rows))
    rows[-1][column] = value
    assert not statements.is_commit_run(flat(rows))


@pytest.mark.parametrize("column", [5, 6, 7])
def test_the_middle_of_a_block_counts(column: int) -> None:
    rows = [row(number) for number in range(BLOCK)]
    rows[BLOCK // 2][column] = "another"
    assert not statements.is_commit_run(flat(rows))


def test_most_of_a_busy_log_is_runs(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the comparison above would be one of the general statement with itself."""
    seen: list[int] = []
    made: Callable[..., list[object]] = statements.commit_run

    def counted(values: list[object]) -> list[object]:
        seen.append(len(values) // statements.INSERT_COMMITS.width)
        return made(values)

    monkeypatch.setattr(statements, "commit_run", counted)
    world = World()
    for number in range(2 * BLOCK + 3):
        plain(world, number)
    history.write(world.effects)
    assert seen == [BLOCK, BLOCK]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 700])
@pytest.mark.parametrize("run", [0, 1, 255, 256, 257, 600])
def test_a_tree_grows_by_runs_as_by_leaves(size: int, run: int) -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(size + run)]
    single, together = TileTree(), TileTree()
    one: list[Tile] = []
    many: list[Tile] = []
    for hashed in hashes:
        single.append_hash(hashed, one)
    together.append_hashes(hashes[:size], many)
    together.append_hashes(hashes[size:], many)
    assert many == one
    assert len(many) == (size + run) // TILE_WIDTH
    assert (together.size, together.frontier()) == (single.size, single.frontier())
