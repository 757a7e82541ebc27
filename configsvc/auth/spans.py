r"""Unions of key spans: does one of them, or several together, cover a request?

A ``SpanUnion`` holds disjoint spans in ascending order; overlapping and adjacent ones have been
merged, so a connected span is covered exactly when it lies inside a single member. Each member
remembers who granted it, for decisions to name their reason.

Keys are byte strings in dense order: the least key above ``k`` is ``k + b"\0"``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from configsvc.types import KeySpan

LABELS_SHOWN_MAX = 4  # a joined name shows this many grants, then "..."


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key above all keys with ``prefix``; None when there is none (all 0xff)."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return None
    return stem[:-1] + bytes((stem[-1] + 1,))


def prefix_span(prefix: bytes) -> KeySpan:
    """The span of all keys that start with ``prefix``; empty ``prefix`` is all keys."""
    return KeySpan(prefix, prefix_end(prefix))


def asked_span(span: KeySpan) -> KeySpan:
    """What must be granted for ``span``: itself, or its start key when no key lies inside.

    An empty span reads nothing, but must not be a way around a rule that names its start.
    """
    return KeySpan(span.start, span.start + b"\0") if span.is_empty() else span


class SpanUnion:
    """Immutable. ``starts`` and ``ends`` are parallel; an end of None is open and comes last."""

    __slots__ = ("ends", "labels", "starts")

    def __init__(self, spans: Iterable[tuple[KeySpan, str]] = ()) -> None:
        self.starts: list[bytes] = []
        self.ends: list[bytes | None] = []
        self.labels: list[str] = []
        group: list[tuple[KeySpan, str]] = []
        end: bytes | None = b""
        for span, label in sorted(spans, key=lambda item: item[0].start):
            if span.is_empty():
                continue
            if group and (end is None or span.start <= end):
                group.append((span, label))
                if end is not None and (span.end is None or span.end > end):
                    end = span.end
                continue
            self._close(group, end)
            group, end = [(span, label)], span.end
        self._close(group, end)

    def _close(self, group: list[tuple[KeySpan, str]], end: bytes | None) -> None:
        if not group:
            return
        whole = KeySpan(group[0][0].start, end)
        self.starts.append(whole.start)
        self.ends.append(end)
        alone = sorted(label for span, label in group if span.covers(whole))
        self.labels.append(alone[0] if alone else _joined({label for _, label in group}))

    def __bool__(self) -> bool:
        return bool(self.starts)

    def spans(self) -> list[KeySpan]:
        """The members, ascending."""
        return [KeySpan(*pair) for pair in zip(self.starts, self.ends, strict=True)]

    def holds(self, key: bytes) -> bool:
        """Whether ``key`` lies in some member."""
        at = bisect_right(self.starts, key) - 1
        if at < 0:
            return False
        end = self.ends[at]
        return end is None or key < end

    def pieces(self) -> list[tuple[KeySpan, str]]:
        """The members with their labels, for a wider union."""
        return list(zip(self.spans(), self.labels, strict=True))

    def granting(self, key: bytes) -> str | None:
        """Who grants the single ``key``; None when nobody does."""
        at = bisect_right(self.starts, key) - 1
        if at < 0:
            return None
        end = self.ends[at]
        return self.labels[at] if end is None or key < end else None

    def covering(self, span: KeySpan) -> str | None:
        """Who grants all of ``span``; None when some key of it is granted by nobody."""
        at = bisect_right(self.starts, span.start) - 1
        if at < 0:
            return None
        end = self.ends[at]
        if end is None or (span.end is not None and span.end <= end):
            return self.labels[at]
        return None

    def intersects(self, span: KeySpan) -> bool:
        """Whether some key of ``span`` lies in some member."""
        if self.holds(span.start):
            return True
        at = bisect_right(self.starts, span.start)
        return at < len(self.starts) and (span.end is None or self.starts[at] < span.end)


def _joined(labels: set[str]) -> str:
    names = sorted(labels)
    if len(names) <= LABELS_SHOWN_MAX:
        return "+".join(names)
    return "+".join(names[:LABELS_SHOWN_MAX]) + "..."
