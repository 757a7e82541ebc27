"""Which synced watcher gets which event. Pure matching: no streams, no buffers, no rights.

Watchers with the same span, filters and prev_kv form one ``Group``; a change is matched once per
group and its batch is built and encoded once, however many watchers hang on it. Groups of single
keys are found by key, groups of prefixes by the prefix of each length in use, all others in an
interval tree.

Always true:
  * Events of a batch are in (revision, sub) order; a revision is never split (W13, W20).
  * A group without watchers does not exist.

Not here: watchers that are behind (``Store.events_since``), who may see what and when it is sent
(``runtime``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from configsvc.errors import ensure
from configsvc.limits import PREFIX_LENGTHS_MAX
from configsvc.mvcc.intervals import IntervalTree
from configsvc.mvcc.messages import Event, KeyValue, Row
from configsvc.mvcc.store import event_of, single_key
from configsvc.types import KeySpan

NO_PUT: Final = 1  # bit per filter of a watch (W17)
NO_DELETE: Final = 2


class Group:
    """Watchers that see the same events. ``watchers`` keeps the order of registration."""

    __slots__ = ("filters", "prev_kv", "span", "watchers")

    def __init__(self, span: KeySpan, filters: int, prev_kv: bool) -> None:
        self.span = span
        self.filters = filters
        self.prev_kv = prev_kv
        self.watchers: dict[int, None] = {}


class Batch(NamedTuple):
    """What all watchers of a group get now."""

    group: Group
    revisions: list[tuple[int, list[Event]]]  # ascending; never empty


_Groups = dict[tuple[int, bool], Group]  # by filters and prev_kv, all of one span


class WatchIndex:
    """Synced watchers of one member, by what they watch."""

    __slots__ = ("_exact", "_group_of", "_lengths", "_prefixes", "_ranges", "_spans")

    def __init__(self) -> None:
        self._group_of: dict[int, Group] = {}
        self._spans: dict[KeySpan, _Groups] = {}
        self._exact: dict[bytes, _Groups] = {}
        self._prefixes: dict[bytes, _Groups] = {}
        self._lengths: dict[int, int] = {}  # length of a prefix -> prefixes that long
        self._ranges: IntervalTree[_Groups] = IntervalTree()

    def __len__(self) -> int:
        return len(self._group_of)

    def register(
        self, watcher_id: int, span: KeySpan, filters: int = 0, prev_kv: bool = False
    ) -> Group:
        """Add a synced watcher.

        Args:
            watcher_id: Unique on this member; the caller's choice.
            span: Not empty.
            filters: ``NO_PUT`` and ``NO_DELETE`` bits.
            prev_kv: Part of what is encoded, so part of the group.
        """
        ensure(watcher_id not in self._group_of, "a watcher is registered once")
        ensure(not span.is_empty(), "an empty span is refused at the edge (W8)")
        groups = self._spans.get(span)
        if groups is None:
            groups = self._spans[span] = {}
            self._place(span, groups)
        group = groups.get((filters, prev_kv))
        if group is None:
            group = groups[filters, prev_kv] = Group(span, filters, prev_kv)
        group.watchers[watcher_id] = None
        self._group_of[watcher_id] = group
        return group

    def unregister(self, watcher_id: int) -> bool:
        """Remove a watcher; False if it is not registered."""
        group = self._group_of.pop(watcher_id, None)
        if group is None:
            return False
        del group.watchers[watcher_id]
        if not group.watchers:
            groups = self._spans[group.span]
            del groups[group.filters, group.prev_kv]
            if not groups:
                del self._spans[group.span]
                self._displace(group.span)
        return True

    def match(self, rows: Sequence[Row], prevs: Sequence[KeyValue | None]) -> list[Batch]:
        """Batches for ``rows`` (ascending, whole revisions), in order of their first event.

        ``prevs`` are the values before each row's revision.
        """
        if not self._group_of:
            return []
        batches: dict[int, Batch] = {}
        for row, prev in zip(rows, prevs, strict=True):
            event: Event | None = None
            revision = row[0]
            hidden_by = NO_DELETE if row[7] else NO_PUT
            for groups in self._found(row[2]):
                if event is None:
                    event = event_of(row, prev)
                for group in groups.values():
                    if group.filters & hidden_by:
                        continue
                    batch = batches.get(id(group))
                    if batch is None:
                        batch = batches[id(group)] = Batch(group, [(revision, [event])])
                    elif batch[1][-1][0] == revision:
                        batch[1][-1][1].append(event)
                    else:
                        batch[1].append((revision, [event]))
        return list(batches.values())

    def _found(self, key: bytes) -> Iterator[_Groups]:
        groups = self._exact.get(key)
        if groups is not None:
            yield groups
        prefixes = self._prefixes
        for length in self._lengths:
            if length <= len(key):
                groups = prefixes.get(key[:length])
                if groups is not None:
                    yield groups
        if self._ranges:
            yield from self._ranges.holding(key)

    def _place(self, span: KeySpan, groups: _Groups) -> None:
        key = single_key(span)
        if key is not None:
            self._exact[key] = groups
            return
        length = len(span.start)
        room = length in self._lengths or len(self._lengths) < PREFIX_LENGTHS_MAX
        if room and _is_prefix(span):
            self._prefixes[span.start] = groups
            self._lengths[length] = self._lengths.get(length, 0) + 1
        else:
            self._ranges.insert(span, groups)

    def _displace(self, span: KeySpan) -> None:
        key = single_key(span)
        if key is not None:
            del self._exact[key]
            return
        if span.start in self._prefixes and _is_prefix(span):
            del self._prefixes[span.start]
            length = len(span.start)
            if self._lengths[length] == 1:
                del self._lengths[length]
            else:
                self._lengths[length] -= 1
        else:
            self._ranges.remove(span)


def _is_prefix(span: KeySpan) -> bool:
    """Whether the span is all keys that begin with its start."""
    stem = span.start.rstrip(b"\xff")
    if not stem:
        return span.end is None
    return span.end == stem[:-1] + bytes((stem[-1] + 1,))
