"""Which of many key spans hold a key: an interval tree in O(log n + answers).

A treap ordered by (start, end); each node knows the furthest end below it. Priorities come from a
hash of the span, so the shape follows from the content and nobody needs a random source.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Generic, TypeVar

from configsvc.errors import InvariantViolationError, ensure
from configsvc.types import KeySpan

V = TypeVar("V")


class _Node(Generic[V]):
    __slots__ = ("left", "open_end", "priority", "reach", "right", "span", "value")

    def __init__(self, span: KeySpan, value: V) -> None:
        self.span = span
        self.value = value
        self.left: _Node[V] | None = None
        self.right: _Node[V] | None = None
        seed = span.start + b"\0|" + (b"" if span.end is None else b"=" + span.end)
        self.priority = blake2b(seed, digest_size=8).digest()
        self.reach = b""  # furthest end in this subtree ...
        self.open_end = False  # ... unless one is open
        self.pull()

    def pull(self) -> None:
        """Recompute what is known about the subtree."""
        end = self.span.end
        reach, open_end = end or b"", end is None
        for child in (self.left, self.right):
            if child is not None:
                open_end = open_end or child.open_end
                if child.reach > reach:
                    reach = child.reach
        self.reach, self.open_end = reach, open_end


def _order(span: KeySpan) -> tuple[bytes, bool, bytes]:
    return span.start, span.end is None, span.end or b""


class IntervalTree(Generic[V]):
    """A map from spans to values that can be asked by key."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[V] | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def insert(self, span: KeySpan, value: V) -> None:
        """Add a span that is not there yet."""
        self._root = self._insert(self._root, _Node(span, value))
        self._size += 1

    def remove(self, span: KeySpan) -> None:
        """Take out a span that is there."""
        self._root = self._remove(self._root, span)
        self._size -= 1

    def holding(self, key: bytes) -> Iterator[V]:
        """Values of all spans that hold ``key``, ascending by span."""
        stack: list[tuple[_Node[V], bool]] = []
        node = self._root
        while True:
            while node is not None and (node.open_end or node.reach > key):
                stack.append((node, True))
                node = node.left
            if not stack:
                return
            node, _ = stack.pop()
            span = node.span
            if span.start > key:  # everything to the right starts later still
                node = None
                continue
            if span.end is None or key < span.end:
                yield node.value
            node = node.right

    def _insert(self, node: _Node[V] | None, new: _Node[V]) -> _Node[V]:
        if node is None:
            return new
        ensure(node.span != new.span, "a span is in the tree once")
        if _order(new.span) < _order(node.span):
            child = node.left = self._insert(node.left, new)
            if child.priority > node.priority:
                node.left, child.right = child.right, node
                node.pull()
                child.pull()
                return child
        else:
            child = node.right = self._insert(node.right, new)
            if child.priority > node.priority:
                node.right, child.left = child.left, node
                node.pull()
                child.pull()
                return child
        node.pull()
        return node

    def _remove(self, node: _Node[V] | None, span: KeySpan) -> _Node[V] | None:
        if node is None:
            raise InvariantViolationError("the span to remove is not in the tree")
        if node.span == span:
            return self._merge(node.left, node.right)
        if _order(span) < _order(node.span):
            node.left = self._remove(node.left, span)
        else:
            node.right = self._remove(node.right, span)
        node.pull()
        return node

    def _merge(self, left: _Node[V] | None, right: _Node[V] | None) -> _Node[V] | None:
        if left is None:
            return right
        if right is None:
            return left
        if left.priority > right.priority:
            left.right = self._merge(left.right, right)
            left.pull()
            return left
        right.left = self._merge(left, right.left)
        right.pull()
        return right
