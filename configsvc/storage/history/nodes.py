"""Hashes of complete subtrees of stream M, from full tiles and the leaves behind them.

Full tiles never change, so what was computed of one is kept: a root over the newest leaves asks
again and again for the roots of up to 255 tiles that no higher tile holds yet, and computing them
anew each time was a quarter of what SQL cost a member under load.

Always true:
  * A node is computed from what SQL holds; what is not complete there is refused.
  * What is kept is bounded (``TILES_CACHED``, ``TILE_ROOTS_CACHED``).

Used by several threads; each change of what is kept is one step of the interpreter. Not here: the
tree's shape (``audit.proofs``), how it grows (``tree``).
"""

from __future__ import annotations

from configsvc.errors import ensure
from configsvc.limits import TILE_ROOTS_CACHED, TILES_CACHED
from configsvc.storage.history import verify
from configsvc.storage.history.session import Session
from configsvc.storage.history.tree import TILE_HEIGHT, perfect_root, split_tile

_Place = tuple[int, int]  # tile level, number


class Nodes:
    """What is known of the tiles of one database."""

    def __init__(self) -> None:
        self._tiles: dict[_Place, bytes] = {}
        self._roots: dict[_Place, bytes] = {}

    def read(self, session: Session, level: int, number: int) -> bytes:
        """Hash of perfect subtree ``number`` of 2^``level`` leaves; it must be complete."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        first, count = number << height, 1 << height
        tile_number, offset = divmod(first, 1 << TILE_HEIGHT)
        hashes = self._tile(session, tile_level, tile_number)
        if hashes:
            return perfect_root(split_tile(hashes)[offset : offset + count])
        if tile_level == 0:
            parts = verify.leaf_hashes(session, first, first + count)
            ensure(len(parts) == count, "a node of a complete subtree was asked for")
            return perfect_root(parts)
        return perfect_root(
            [self._root(session, tile_level - 1, first + at) for at in range(count)]
        )

    def _root(self, session: Session, level: int, number: int) -> bytes:
        """Root over one full tile."""
        known = self._roots.get((level, number))
        if known is None:
            hashes = verify.tile(session, level, number)
            ensure(bool(hashes), "a node of a complete subtree was asked for")
            known = perfect_root(split_tile(hashes))
            if len(self._roots) >= TILE_ROOTS_CACHED:
                self._roots = {}
            self._roots[level, number] = known
        return known

    def _tile(self, session: Session, level: int, number: int) -> bytes:
        known = self._tiles.get((level, number))
        if known is None:
            known = verify.tile(session, level, number)
            if known:
                if len(self._tiles) >= TILES_CACHED:
                    self._tiles = {}
                self._tiles[level, number] = known
        return known
