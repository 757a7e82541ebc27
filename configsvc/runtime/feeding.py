"""Changes of very many rows on their way to the watchers: matched and encoded in pieces.

A revision is one message (W13), so its events are gathered over several passes and sent at once.
What is changed meanwhile waits its turn here: a watcher sees revisions in order.

Always true:
  * Nothing is sent to a watcher that came, or was caught up, after the rows were made: its
    ``next_revision`` is above them, and whoever delivers looks at it.
  * At most ``FEED_ROWS_MAX`` rows wait; beyond, everything is fed at once.

Not here: when a piece is done (``watch_hub``, ``passes``), who gets what (``mvcc.watch``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from configsvc.codec import answers
from configsvc.limits import FEED_PIECE_ROWS, FEED_ROWS_MAX
from configsvc.mvcc.messages import Event, KeyValue, Row
from configsvc.mvcc.watch import Group, WatchIndex

Deliver = Callable[[Group, int, Sequence[Event], bytes], None]
Batches = list[tuple[int, list[Event]]]


class Feeding:
    """Rows that were applied and are not told yet."""

    __slots__ = ("_deliver", "_index", "_queue", "_rows", "_work")

    def __init__(self, index: WatchIndex, deliver: Deliver) -> None:
        self._index = index
        self._deliver = deliver  # group, revision, events, their encoding
        self._queue: deque[tuple[Sequence[Row], Sequence[KeyValue | None]]] = deque()
        self._rows = 0
        self._work: Iterator[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether anything waits."""
        return bool(self._queue)

    @property
    def first_revision(self) -> int:
        """The oldest revision that is not told yet; 0: there is none."""
        return self._queue[0][0][0][0] if self._queue else 0

    def put(self, rows: Sequence[Row], prevs: Sequence[KeyValue | None]) -> None:
        """Whole revisions, behind what waits already."""
        self._queue.append((rows, prevs))
        self._rows += len(rows)
        while self._rows > FEED_ROWS_MAX:
            self.go_on()

    def go_on(self) -> None:
        """One piece of the oldest."""
        if self._work is None:
            if not self._queue:
                return
            self._work = self._pieces(*self._queue[0])
        try:
            next(self._work)
        except StopIteration:
            self._work = None
            self._rows -= len(self._queue.popleft()[0])

    def drop(self) -> None:
        """Forget everything: the watchers are told another way."""
        self._queue.clear()
        self._rows = 0
        self._work = None

    def _pieces(self, rows: Sequence[Row], prevs: Sequence[KeyValue | None]) -> Iterator[None]:
        found: dict[int, tuple[Group, Batches]] = {}
        for at in range(0, len(rows), FEED_PIECE_ROWS):
            if at:
                yield
            end = at + FEED_PIECE_ROWS
            for group, more in self._index.match(rows[at:end], prevs[at:end]):
                known = found.setdefault(id(group), (group, []))[1]
                if known and known[-1][0] == more[0][0]:
                    known[-1][1].extend(more.pop(0)[1])
                known.extend(more)
        for group, revisions in found.values():
            for revision, events in revisions:
                parts: list[bytes] = []
                for at in range(0, len(events), FEED_PIECE_ROWS):
                    if len(events) > FEED_PIECE_ROWS:
                        yield
                    piece = events[at : at + FEED_PIECE_ROWS]
                    parts.append(answers.events_field(piece, prev_kv=group.prev_kv))
                self._deliver(group, revision, events, b"".join(parts))
