"""The append-only Merkle tree of RFC 6962 2.1: leaf prefix 0x00, node prefix 0x01, SHA-256.

``Frontier`` is the right edge of a growing tree: the roots of its complete subtrees, largest
first. It is all that appending and the root need, O(log n) in size. ``NodeLog`` does the same for
a store that keeps nodes: it says which complete subtrees an append finished, by (level, index),
where node (l, i) covers leaves [i * 2**l, (i+1) * 2**l).

Not here: proofs and their verification (``proofs``), signed tree heads (``checkpoint``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from configsvc.errors import DecodeError, ensure

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of a leaf's exact bytes."""
    return sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


class Node(NamedTuple):
    """A complete subtree; level 0 is a leaf hash."""

    level: int
    place: int  # counted in nodes of its level
    hash: bytes


class Frontier:
    """Complete subtrees of a tree with ``size`` leaves, largest first."""

    __slots__ = ("_roots", "size")

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    @classmethod
    def restore(cls, size: int, roots: Iterable[bytes]) -> Frontier:
        """The frontier that ``state`` described.

        Raises:
            DecodeError: the number or length of ``roots`` does not fit ``size``.
        """
        made = cls()
        made.size, made._roots = size, list(roots)
        whole = all(len(root) == HASH_BYTES for root in made._roots)
        if size < 0 or len(made._roots) != size.bit_count() or not whole:
            raise DecodeError("tree state does not fit its size")
        return made

    def state(self) -> tuple[int, tuple[bytes, ...]]:
        """Size and roots, for ``restore``."""
        return self.size, tuple(self._roots)

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        return Frontier.restore(self.size, self._roots)

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its bytes."""
        self.append_hash(sha256(b"\0" + leaf).digest())

    def append_hash(self, hashed: bytes) -> None:
        """Add one leaf by its hash. Hashes one node for every trailing one bit of ``size``."""
        roots = self._roots
        size = self.size
        while size & 1:
            hashed = sha256(b"\1" + roots.pop() + hashed).digest()
            size >>= 1
        roots.append(hashed)
        self.size += 1

    def append_hashes(self, hashes: Sequence[bytes]) -> None:
        """``append_hash`` for each of ``hashes``: level by level, without a loop for each."""
        if len(hashes) == 1:
            self.append_hash(hashes[0])
            return
        roots, size = self._roots, self.size
        self.size = size + len(hashes)
        alone: list[bytes] = []  # the last of a level, where its neighbour is still to come
        level = list(hashes)
        while level:
            if size & 1:
                level.insert(0, roots.pop())
            if len(level) & 1:
                alone.append(level.pop())
            pairs = iter(level)
            level = [
                sha256(b"\1" + left + right).digest()
                for left, right in zip(pairs, pairs, strict=True)
            ]
            size >>= 1
        alone.reverse()
        roots += alone

    def root(self) -> bytes:
        """The Merkle tree hash."""
        if not self._roots:
            return EMPTY_ROOT
        hashed = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            hashed = node_hash(left, hashed)
        return hashed


class NodeLog:
    """A frontier that reports the nodes each append completes, for a store that serves proofs."""

    __slots__ = ("frontier",)

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier

    def append(self, leaf: bytes) -> list[Node]:
        """Add one leaf; returns its level-0 node and every subtree it completes, ascending."""
        frontier = self.frontier
        index, hashed, level = frontier.size, leaf_hash(leaf), 0
        nodes = [Node(0, index, hashed)]
        roots = frontier.state()[1]
        while index & 1:
            hashed = node_hash(roots[-1 - level], hashed)
            index, level = index >> 1, level + 1
            nodes.append(Node(level, index, hashed))
        frontier.append_hash(nodes[0].hash)
        return nodes


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Merkle tree hash of a list of leaves given by their bytes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def root_of_hashes(hashes: Iterable[bytes]) -> bytes:
    """Merkle tree hash of a list of leaves given by their hashes."""
    frontier = Frontier()
    for hashed in hashes:
        ensure(len(hashed) == HASH_BYTES, "a leaf hash has 32 bytes")
        frontier.append_hash(hashed)
    return frontier.root()
