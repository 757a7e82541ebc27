"""Tiles against the tree's definition: appended, loaded again, and read node by node."""

from __future__ import annotations

import pytest
from history_world import World

from configsvc.audit.merkle import Frontier, leaf_hash, root_of
from configsvc.audit.proofs import root_at
from configsvc.errors import InvariantViolationError
from configsvc.storage.history import nodes
from configsvc.storage.history.tree import (
    TILE_WIDTH,
    Tile,
    TileTree,
    load_tree,
    perfect_root,
    split_tile,
)

SIZES = [0, 1, 2, 3, 127, 255, 256, 257, 511, 512, 600, 65_535, 65_536, 65_537, 66_000]
LEAVES = [b"%d" % number for number in range(66_000)]


@pytest.fixture(scope="module")
def grown() -> dict[int, tuple[tuple[bytes, ...], bytes, int]]:
    """Size to frontier, root and number of tiles, of one tree growing."""
    tree, tiles, seen = TileTree(), [], {}
    for leaf in [*LEAVES, b""]:
        if tree.size in SIZES:
            seen[tree.size] = (tree.frontier(), tree.root(), len(tiles))
        tree.append(leaf, tiles)
    seen["tiles"] = tiles
    return seen


@pytest.mark.parametrize("size", SIZES)
def test_root_and_frontier_are_the_audit_rooms(grown, size: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    roots, root, _ = grown[size]
    assert (size, roots) == frontier.state()
    assert root == frontier.root()
    if size <= 600:
        assert root == root_of(LEAVES[:size])


@pytest.mark.parametrize("size", SIZES)
def test_a_loaded_tree_goes_on_like_one_that_grew(grown, size: int) -> None:
    stored = {(tile.level, tile.number): tile.hashes for tile in grown["tiles"]}
    loaded = load_tree(
        size,
        lambda start, end: [leaf_hash(leaf) for leaf in LEAVES[start:end]],
        lambda level, number: stored[level, number],
    )
    assert (loaded.frontier(), loaded.root()) == grown[size][:2]
    more: list[Tile] = []
    for leaf in LEAVES[size : size + 300]:
        loaded.append(leaf, more)
    for tile in more:
        assert stored.get((tile.level, tile.number), tile.hashes) == tile.hashes


def test_tiles_hold_what_they_say(grown) -> None:
    tiles = {(tile.level, tile.number): tile.hashes for tile in grown["tiles"]}
    assert len(tiles) == 66_000 // 256 + 1
    assert tiles[0, 3] == b"".join(leaf_hash(leaf) for leaf in LEAVES[768:1024])
    assert split_tile(tiles[1, 0])[3] == perfect_root(split_tile(tiles[0, 3]))


def test_pending_hashes_must_fit_the_size() -> None:
    with pytest.raises(InvariantViolationError):
        TileTree(3, [[b"h" * 32]])


def test_nodes_are_read_at_every_level(history, reader) -> None:
    world = World()
    for _ in range(700):
        world.commit([])
    history.write(world.effects)
    leaves = [effect.leaf for effect in world.effects]
    for level, number in ((0, 0), (0, 699), (3, 5), (3, 80), (7, 4), (8, 1), (9, 0), (5, 16)):
        part = leaves[number << level : (number + 1) << level]
        assert reader.node(level, number) == root_of(part), (level, number)
    with reader.tree() as read:
        assert [read(0, 1), read(8, 0)] == [reader.node(0, 1), reader.node(8, 0)]
    with pytest.raises(InvariantViolationError):
        reader.node(6, 10)  # leaves 640 to 703: not complete


def test_roots_at_every_size_are_right_and_compute_a_full_tile_once(
    history, reader, monkeypatch
) -> None:
    world = World()
    for _ in range(1_100):
        world.commit([])
    history.write(world.effects)
    hashed: list[int] = []
    monkeypatch.setattr(
        nodes, "perfect_root", lambda hashes: (hashed.append(len(hashes)), perfect_root(hashes))[1]
    )
    tree = Frontier()
    for size, effect in enumerate(world.effects, 1):
        tree.append(effect.leaf)
        if size % 97 == 0:
            with reader.tree() as read:
                assert root_at(size, read) == tree.root(), size
    # Three tiles are asked for alone and below a node of their neighbours; each was computed once.
    with reader.tree() as read:
        before = len(hashed)
        root_at(1_024, read)
        root_at(1_024, read)
    assert TILE_WIDTH not in hashed[before:]


def test_a_root_over_a_tile_that_is_missing_is_refused(history, reader) -> None:
    world = World()
    for _ in range(1_024):
        world.commit([])
    history.write(world.effects)
    history._cursor.execute("DELETE FROM tiles WHERE number = 2")
    with reader.tree() as read, pytest.raises(InvariantViolationError):
        root_at(1_024, read)


def test_what_is_kept_of_tiles_is_bounded(history, reader, monkeypatch) -> None:
    monkeypatch.setattr(nodes, "TILE_ROOTS_CACHED", 2)
    world = World()
    for _ in range(1_024):
        world.commit([])
    history.write(world.effects)
    with reader.tree() as read:
        assert root_at(1_024, read) == root_of([effect.leaf for effect in world.effects])
    assert len(reader._nodes._roots) <= 2
