"""Inclusion and consistency proofs of RFC 6962 2.1, made and checked (RFC 9162 2.1.3, 2.1.4).

Proofs are made from complete subtrees that a store kept, through a function ``read(level,
place)``; what is incomplete at the right edge is computed. Checking needs nothing but the proof.
Every check fails closed: a wrong length is a refusal, never an error of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from configsvc.audit.merkle import EMPTY_ROOT, HASH_BYTES, node_hash
from configsvc.errors import ensure

NodeReader = Callable[[int, int], bytes]  # (level, place) -> hash of a complete subtree


def inclusion_proof(seq: int, size: int, read: NodeReader) -> list[bytes]:
    """Audit path of leaf ``seq`` in the tree of ``size`` leaves, leaf's sibling first."""
    ensure(0 <= seq < size, "a proof is about a leaf of the tree")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if seq < middle:
            path.append(_range_root(middle, high, read))
            high = middle
        else:
            path.append(_range_root(low, middle, read))
            low = middle
    return path[::-1]


def consistency_proof(old: int, size: int, read: NodeReader) -> list[bytes]:
    """Proof that the tree of ``old`` leaves is a prefix of the tree of ``size``; 0 < old."""
    ensure(0 < old <= size, "a proof is about an earlier tree")
    path: list[bytes] = []
    low, high = 0, size
    whole = True  # the old tree's part of [low, high) is what its root already says
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_root(middle, high, read))
            high = middle
        else:
            path.append(_range_root(low, middle, read))
            low, whole = middle, False
    if not whole:
        path.append(_range_root(low, high, read))
    return path[::-1]


def root_at(size: int, read: NodeReader) -> bytes:
    """Root of the tree's first ``size`` leaves."""
    return _range_root(0, size, read) if size else EMPTY_ROOT


def root_of_inclusion(seq: int, size: int, hashed: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root that ``path`` leads to from a leaf's hash; None when it cannot be a path."""
    if not 0 <= seq < size or any(len(node) != HASH_BYTES for node in path):
        return None
    node, last = seq, size - 1
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            hashed = node_hash(sibling, hashed)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        node, last = node >> 1, last >> 1
    return hashed if last == 0 else None


def verify_inclusion(
    seq: int, size: int, hashed: bytes, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether leaf ``seq`` with hash ``hashed`` is in the tree with ``root``."""
    return root_of_inclusion(seq, size, hashed, path) == root


def verify_consistency(
    old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the tree (``size``, ``root``) only appended to the tree (``old``, ``old_root``)."""
    if old == size:
        return old_root == root and not path
    if not 0 < old < size or not path or any(len(node) != HASH_BYTES for node in path):
        # An empty tree is a prefix of every tree: nothing to prove, and nothing may be offered.
        return old == 0 < size and not path and old_root == EMPTY_ROOT
    nodes = list(path)
    if not old & (old - 1):
        nodes.insert(0, old_root)
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        node, last = node >> 1, last >> 1
    return before == old_root and after == root and last == 0


def _split(width: int) -> int:
    """The largest power of two below ``width``."""
    return 1 << (width - 1).bit_length() - 1


def _range_root(low: int, high: int, read: NodeReader) -> bytes:
    """Root over leaves [low, high), a range that the tree's splits produce."""
    hashed = b""
    # From the right: the smallest complete subtree lies last.
    while high > low:
        width = (high - low) & -(high - low)
        node = read(width.bit_length() - 1, (high - width) // width)
        hashed = node_hash(node, hashed) if hashed else node
        high -= width
    return hashed
