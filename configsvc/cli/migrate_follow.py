"""Keeping up with a live source: its events from the copied revision on, applied in order.

Always true: the changes of one source revision are not split unless one transaction cannot hold
them; the state file never claims more than was written. The end is a signal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from configsvc.cli.migrate_ends import Ends, Span, in_spans
from configsvc.cli.migrate_leases import LeaseBook, Tender
from configsvc.cli.migrate_state import State
from configsvc.cli.migrate_write import Change, Writer
from configsvc.cli.output import sparing
from configsvc.client import Watch, WatchOptions, operations, txn
from configsvc.errors import ConfigServiceError
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc

_SAVE_EVERY_S: Final = 1.0


def change_of(event: kv_pb2.Event, lease: int) -> Change:
    """An event as a change; without the value before it the writer has to look."""
    kv = event.kv
    before = event.prev_kv.value if event.HasField("prev_kv") else None
    created = kv.create_revision == kv.mod_revision and event.type == kv_pb2.Event.PUT
    guard: rpc.Compare | None = None
    if before is not None:
        guard = txn.value(kv.key) == before
    elif created:
        guard = txn.version(kv.key) == 0
    value = kv.value if event.type == kv_pb2.Event.PUT else None
    return Change(kv.key, value, lease, guard, before)


class Follower:
    """Follows until its watch ends or a signal comes."""

    def __init__(
        self,
        ends: Ends,
        spans: list[Span],
        state: State,
        writer: Writer,
        leases: LeaseBook,
        save: Callable[[State], None],
    ) -> None:
        self._ends = ends
        self._spans = spans
        self._state = state
        self._writer = writer
        self._leases = leases
        self._save = save
        self._saved = time.monotonic()
        self.applied = 0  # events

    def run(self, on_tick: Callable[[], None], warn: Callable[[str], None]) -> None:
        """Apply events for ever; ``on_tick`` is called now and then, from another thread.

        Raises:
            WatchCompactedError: the source no longer has what was missed; copy again.
            CliError: conflict; the target holds a value of somebody else.
        """
        # One watch over everything between the first and the last span keeps revisions in order.
        start, end = self._spans[0][0], self._spans[-1][1]
        options = WatchOptions(start, end, start_revision=self._state.revision + 1, prev_kv=True)
        tender = Tender(self._leases, warn, on_tick)
        try:
            with Watch(
                self._ends.source.client,
                options,
                on_lost=sparing(lambda line: warn(f"no connection, trying on: {line}")),
            ) as watch:
                for batch in watch:
                    if batch.events:
                        self._apply(batch.events)
        finally:
            tender.close()
            self._save(self._state)

    def _apply(self, events: tuple[kv_pb2.Event, ...]) -> None:
        with self._leases.writing:
            at = 0
            while at < len(events):
                revision, same = events[at].kv.mod_revision, at
                while same < len(events) and events[same].kv.mod_revision == revision:
                    same += 1
                self._one_revision(events[at:same])
                at = same
            self._writer.flush()
        self._state.revision = events[-1].kv.mod_revision
        if time.monotonic() - self._saved >= _SAVE_EVERY_S:
            self._saved = time.monotonic()
            self._save(self._state)

    def _one_revision(self, events: tuple[kv_pb2.Event, ...]) -> None:
        changes: list[Change] = []
        for event in events:
            self.applied += 1
            if not in_spans(event.kv.key, self._spans) or self._leases.knows(event.kv):
                continue
            lease = event.kv.lease if event.type == kv_pb2.Event.PUT else 0
            if lease and not self._leases.carry(lease):
                continue  # it has ended since: the delete is among the next events
            changes.append(change_of(event, lease))
        self._writer.together(changes)

    def behind(self) -> int:
        """Revisions of the source that were not seen yet, those of other keys included."""
        try:
            answer = self._ends.source.client.do(operations.range_(b"\0", count_only=True))
        except ConfigServiceError:
            return -1
        return max(0, answer.header.revision - self._state.revision)
