"""The Merkle tree of stream M as it is stored: tiles of 256 hashes (RFC 6962 hashing).

Owns which tiles are full and what is pending above and beside them. A full tile is written once
and never changes; everything else is recomputed from at most 255 leaves and tile roots per level
at start, so appending costs two hashes and, every 256 leaves, one row.

Level 0 of the tiles holds leaf hashes; hash ``i`` of tile level ``t`` is the root of full tile
``i`` of level ``t - 1``, that is of 256^t leaves.

Not here: what a leaf says, the tree's rules, proofs, signatures (``audit``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from configsvc.audit.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, node_hash
from configsvc.errors import ensure

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8  # 2^8 hashes


class Tile(NamedTuple):
    level: int
    number: int
    hashes: bytes  # 256 hashes, concatenated


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Root over a power of two of neighbouring hashes."""
    level = list(hashes)
    while len(level) > 1:
        pairs = iter(level)
        level = [
            sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)
        ]
    return level[0]


def split_tile(hashes: bytes) -> list[bytes]:
    """The single hashes of a tile."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


class TileTree:
    """Append-only; ``pending[t]`` are the hashes of tile level ``t`` that fill no tile yet."""

    def __init__(self, size: int = 0, pending: Iterable[Sequence[bytes]] = ()) -> None:
        self.size = size
        self._pending = [list(hashes) for hashes in pending] or [[]]
        for level, hashes in enumerate(self._pending):
            expected = (size >> (TILE_HEIGHT * level)) % TILE_WIDTH
            ensure(len(hashes) == expected, "pending hashes are the rest of the size")
        ensure(size >> (TILE_HEIGHT * len(self._pending)) == 0, "every level is given")

    def append(self, leaf: bytes, full: list[Tile]) -> None:
        """Add one leaf; tiles that it completes are put on ``full``."""
        self.append_hash(leaf_hash(leaf), full)

    def append_hash(self, value: bytes, full: list[Tile]) -> None:
        """``append`` with the leaf's hash."""
        self.size += 1
        level = 0
        while True:
            if level == len(self._pending):
                self._pending.append([])
            hashes = self._pending[level]
            hashes.append(value)
            if len(hashes) < TILE_WIDTH:
                return
            number = (self.size >> (TILE_HEIGHT * (level + 1))) - 1
            full.append(Tile(level, number, b"".join(hashes)))
            value = perfect_root(hashes)
            hashes.clear()
            level += 1

    def append_hashes(self, hashes: Sequence[bytes], full: list[Tile]) -> None:
        """``append_hash`` for each of ``hashes``."""
        at, end = 0, len(hashes)
        while at < end:
            room = TILE_WIDTH - 1 - len(self._pending[0])
            filling = hashes[at : at + room]  # leaves the place for the one that fills the tile
            self._pending[0] += filling
            self.size += len(filling)
            at += len(filling)
            if at < end:
                self.append_hash(hashes[at], full)
                at += 1

    def frontier(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees that make up the tree, from left (largest) to right."""
        found: list[bytes] = []
        for hashes in reversed(self._pending):
            at, width = 0, TILE_WIDTH // 2
            while width:
                if len(hashes) & width:
                    found.append(perfect_root(hashes[at : at + width]))
                    at += width
                width //= 2
        return tuple(found)

    def root(self) -> bytes:
        """RFC 6962 tree hash of everything appended."""
        nodes = self.frontier()
        if not nodes:
            return EMPTY_ROOT
        root = nodes[-1]
        for left in reversed(nodes[:-1]):
            root = node_hash(left, root)
        return root


def load_tree(
    size: int,
    leaf_hashes: Callable[[int, int], Sequence[bytes]],
    tile: Callable[[int, int], bytes],
) -> TileTree:
    """The tree of ``size`` leaves from what is stored.

    Args:
        size: Leaves in the tree.
        leaf_hashes: Level-0 hashes of leaves ``[start, end)``, which fill no tile.
        tile: The hashes of one full tile.
    """
    pending: list[list[bytes]] = []
    level = 0
    while True:
        count = size >> (TILE_HEIGHT * level)
        start = count - count % TILE_WIDTH
        if level == 0:
            pending.append(list(leaf_hashes(start, count)))
        else:
            roots = (perfect_root(split_tile(tile(level - 1, n))) for n in range(start, count))
            pending.append(list(roots))
        level += 1
        if size >> (TILE_HEIGHT * level) == 0:
            return TileTree(size, pending)
