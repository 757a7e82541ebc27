"""Watch streams of one member: synced watchers fed from apply, late ones from history.

A watcher is *synced* (in the index, fed in the pass that applied the change), *behind* (fed from
the tail in memory or from SQL until it catches up) or *ended*. A stream whose reader is slow turns
its watchers to behind at their own revision: nothing waits for it beyond the sink's bound (O4).

Always true:
  * A watcher sees each revision of its span once, in order, never split without ``fragment``.
  * Before each batch the stream's rights are those at the applied index (N24); the check is one
    comparison of versions while nothing changed.

Not here: decoding requests (``api.watch``), matching (``mvcc.watch``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from configsvc import limits
from configsvc.apply.commands import Effects
from configsvc.codec import answers
from configsvc.codec.varint import signed_varint, string_field, varint
from configsvc.errors import CompactedError, ConfigServiceError
from configsvc.limits import FEED_PIECE_ROWS
from configsvc.mvcc.messages import Event
from configsvc.mvcc.store import NeedHistory, Store, event_of
from configsvc.mvcc.watch import NO_DELETE, NO_PUT, Group, WatchIndex
from configsvc.runtime.feeding import Feeding
from configsvc.runtime.history_gate import HistoryGate
from configsvc.types import KeySpan

CATCH_UP_SLICE: Final = 64  # watchers fed from memory in one pass
FRAGMENT_BYTES: Final = limits.MESSAGE_BYTES_MAX

Batches = list[tuple[int, list[Event]]]


class Sink(Protocol):
    def send(self, payload: bytes) -> bool: ...


class EventPage(Protocol):
    """A page of history: every revision up to ``through`` has been looked at."""

    @property
    def groups(self) -> Batches: ...

    @property
    def through(self) -> int: ...


class HistoryEvents(Protocol):
    def events(
        self, span: KeySpan, from_revision: int, to_revision: int, limit_revisions: int
    ) -> EventPage:
        """Events with their previous values, oldest first, whole revisions (reader thread)."""


class Watcher:
    """One watch of one stream."""

    __slots__ = (
        "filters",
        "fragment",
        "key",
        "loading",
        "next_revision",
        "prev_kv",
        "progress",
        "quiet",
        "rights_version",
        "span",
        "stream",
        "synced",
        "watch_id",
    )

    def __init__(
        self,
        key: int,
        watch_id: int,
        stream: WatchStream,
        span: KeySpan,
        next_revision: int,
        *,
        filters: int,
        prev_kv: bool,
        progress: bool,
        fragment: bool,
    ) -> None:
        self.key = key  # unique on this member
        self.watch_id = watch_id  # unique on its stream
        self.stream = stream
        self.span = span
        self.next_revision = next_revision  # everything below was sent or is not wanted
        self.filters = filters
        self.prev_kv = prev_kv
        self.progress = progress
        self.fragment = fragment
        self.synced = False
        self.loading = False  # a question to history is on its way
        self.quiet = True  # no event since the last progress tick
        self.rights_version = -1  # version of the rights that were last judged


class WatchStream:
    """The watchers of one gRPC stream, and where their messages go.

    Args:
        sink: Bounded; ``send`` says False when the reader is slow.
        may: Judges READ on a span now; raises when it is refused.
        on_refused: Told that a watcher ended, and why (the stream lives on).
    """

    __slots__ = ("blocked", "ended", "ids", "may", "next_id", "on_refused", "sink")

    def __init__(
        self,
        sink: Sink,
        may: Callable[[KeySpan], None],
        on_refused: Callable[[Watcher, ConfigServiceError], None],
    ) -> None:
        self.sink = sink
        self.may = may
        self.on_refused = on_refused
        self.ids: dict[int, Watcher] = {}
        self.next_id = 0
        self.blocked = False
        self.ended = False


class WatchHub:
    """All watchers of one member."""

    def __init__(
        self,
        *,
        store: Store,
        header: Callable[[int], bytes],
        rights_version: Callable[[], int],
        gate: HistoryGate,
        history: HistoryEvents,
        applied: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._header = header
        self._rights_version = rights_version
        self._gate = gate
        self._history = history
        self._applied = applied
        self._wake = wake
        self._index = WatchIndex()
        self._feeding = Feeding(self._index, self._deliver)
        self._watchers: dict[int, Watcher] = {}
        self._behind: dict[int, Watcher] = {}
        self._ready: dict[int, Watcher] = {}  # of them, who may be fed: a slow stream costs nothing
        self._next_key = 1
        self.events_total = 0
        self.streams = 0

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def behind(self) -> int:
        """Watchers that are being caught up."""
        return len(self._behind)

    @property
    def feeding(self) -> bool:
        """Whether changes of very many rows are still being told."""
        return self._feeding.busy

    # --- watchers --------------------------------------------------------------------------------

    def add(
        self,
        stream: WatchStream,
        watch_id: int,
        span: KeySpan,
        start_revision: int,
        *,
        filters: int,
        prev_kv: bool,
        progress: bool,
        fragment: bool,
    ) -> Watcher:
        """Register; ``start_revision`` 0 means from now on. The created notice goes out first."""
        key = self._next_key
        self._next_key += 1
        following = self._store.revision + 1
        watcher = Watcher(
            key,
            watch_id,
            stream,
            span,
            start_revision or following,
            filters=filters,
            prev_kv=prev_kv,
            progress=progress,
            fragment=fragment,
        )
        if stream.ended:  # the notice was one too many for its reader
            return watcher
        self._watchers[key] = watcher
        stream.ids[watch_id] = watcher
        if watcher.next_revision >= following and not stream.blocked:
            self._sync(watcher)
        else:
            self._fall_behind(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """Forget a watcher; nothing is sent for it any more."""
        if self._watchers.pop(watcher.key, None) is None:
            return
        self._no_more_behind(watcher)
        if watcher.synced:
            self._index.unregister(watcher.key)
            watcher.synced = False
        watcher.stream.ids.pop(watcher.watch_id, None)

    def close(self, stream: WatchStream) -> None:
        """The stream ended."""
        stream.ended = True
        for watcher in list(stream.ids.values()):
            self.remove(watcher)

    def park(self, watcher: Watcher) -> None:
        """Compaction overtook it: it sends nothing more but exists until cancelled (W22)."""
        self._no_more_behind(watcher)
        if watcher.synced:
            self._index.unregister(watcher.key)
            watcher.synced = False
        self._watchers.pop(watcher.key, None)

    def writable(self, stream: WatchStream) -> None:
        """The stream's reader caught up."""
        stream.blocked = False
        ready = {w.key: w for w in stream.ids.values() if w.key in self._behind and not w.loading}
        if ready:
            self._ready.update(ready)
            self._wake()

    def all_synced(self, stream: WatchStream) -> bool:
        """Whether a progress message may speak for the whole stream (W24)."""
        current = self._store.revision
        return (
            bool(stream.ids)
            and not self._feeding.busy
            and all(w.synced and w.next_revision <= current + 1 for w in stream.ids.values())
        )

    def _sync(self, watcher: Watcher) -> None:
        watcher.synced = True
        self._index.register(watcher.key, watcher.span, watcher.filters, watcher.prev_kv)

    def _fall_behind(self, watcher: Watcher) -> None:
        if watcher.synced:
            self._index.unregister(watcher.key)
            watcher.synced = False
        self._behind[watcher.key] = self._ready[watcher.key] = watcher
        self._wake()

    def _no_more_behind(self, watcher: Watcher) -> None:
        self._behind.pop(watcher.key, None)
        self._ready.pop(watcher.key, None)

    def resume(self, revision: int) -> None:
        """The store leapt ahead of ``revision``, up to which everybody was fed: go on from there.

        What lies between comes from history; whom compaction overtook is told so.
        """
        if self._feeding.busy:
            revision = min(revision, self._feeding.first_revision - 1)
            self._feeding.drop()
        for watcher in list(self._watchers.values()):
            if watcher.synced:
                watcher.next_revision = max(watcher.next_revision, revision + 1)
                self._fall_behind(watcher)

    # --- feeding ---------------------------------------------------------------------------------

    def feed(self, effects: Sequence[Effects]) -> None:
        """Deliver what a run of entries changed to the synced watchers."""
        if not len(self._index):
            return
        rows = [row for e in effects for row in e.rows]
        if not rows:
            return
        prevs = [prev for e in effects for prev in e.prevs]
        if self._feeding.busy or len(rows) > FEED_PIECE_ROWS:
            self._feeding.put(rows, prevs)
            self._wake()
            return
        for group, revisions in self._index.match(rows, prevs):
            for revision, events in revisions:
                body = answers.events_field(events, prev_kv=group.prev_kv)
                self._deliver(group, revision, events, body)

    def _deliver(self, group: Group, revision: int, events: Sequence[Event], body: bytes) -> None:
        watchers = [self._watchers[key] for key in group.watchers]
        head = self._header(revision)
        self.events_total += len(events) * len(watchers)
        version = self._rights_version()
        short = len(body) <= FRAGMENT_BYTES
        common = head + body  # what a stream with one watch gets, on however many connections
        for watcher in watchers:
            if not watcher.synced or revision < watcher.next_revision:
                continue
            stream = watcher.stream
            judged = watcher.rights_version == version
            if short and judged and not watcher.watch_id and not stream.blocked:
                watcher.next_revision = revision + 1
                watcher.quiet = False
                if not stream.sink.send(common):
                    stream.blocked = True
            else:
                # It may have been quiet for long; should it fall behind, it lacks nothing older.
                watcher.next_revision = revision
                self._send(watcher, head, body, events, revision + 1)

    def _send(
        self,
        watcher: Watcher,
        head: bytes,
        body: bytes,
        events: Sequence[Event],
        next_revision: int,
    ) -> bool:
        """One batch to one watcher; False when it was not sent, or its reader is slow by now."""
        stream = watcher.stream
        if stream.blocked:
            self._fall_behind(watcher)
            return False
        version = self._rights_version()
        if watcher.rights_version != version:
            try:
                stream.may(watcher.span)
            except ConfigServiceError as error:
                self.remove(watcher)
                stream.on_refused(watcher, error)
                return False
            watcher.rights_version = version
        watch_id = watcher.watch_id
        mark = b"\x10" + signed_varint(watch_id) if watch_id else b""
        watcher.next_revision = next_revision
        watcher.quiet = False
        if watcher.fragment and len(body) > FRAGMENT_BYTES:
            keep_going = self._send_fragments(watcher, head + mark, events)
        else:
            keep_going = stream.sink.send(head + mark + body)
        if not keep_going:
            stream.blocked = True
        return keep_going

    def _send_fragments(self, watcher: Watcher, head: bytes, events: Sequence[Event]) -> bool:
        """Pieces split between events; every piece but the last says so (W19)."""
        sink = watcher.stream.sink
        part: list[bytes] = []
        size = 0
        keep_going = True
        for event in events:
            encoded = answers.events_field((event,), prev_kv=watcher.prev_kv)
            if part and size + len(encoded) > FRAGMENT_BYTES:
                keep_going = sink.send(head + b"\x38\x01" + b"".join(part))
                part, size = [], 0
            part.append(encoded)
            size += len(encoded)
        return sink.send(head + b"".join(part)) and keep_going

    # --- catching up -----------------------------------------------------------------------------

    def catch_up(self) -> bool:
        """Feed a piece of what is told, and a slice of who is behind; True: more could be fed."""
        self._feeding.go_on()
        refused = False
        for watcher in list(self._ready.values())[:CATCH_UP_SLICE]:
            # What the ones before it were sent may have filled its stream, or ended it.
            if watcher.stream.blocked:
                self._ready.pop(watcher.key, None)  # until its reader goes on
            elif watcher.key in self._ready:
                refused |= not self._advance(watcher)
        # Who was refused by history asks again when another answer or the next tick is there.
        return self._feeding.busy or (bool(self._ready) and not refused)

    def _advance(self, watcher: Watcher) -> bool:
        """One step for a watcher that is behind; False: history takes no more questions now."""
        store = self._store
        start = watcher.next_revision
        if start > store.revision:
            self._no_more_behind(watcher)
            self._sync(watcher)
            return True
        if start < store.compact_revision:
            self.park(watcher)
            watcher.stream.on_refused(watcher, CompactedError())
            return True
        try:
            found = store.events_since(start, limits.WATCH_CATCHUP_REVISIONS, watcher.span)
        except NeedHistory:
            return self._ask_history(watcher, start)
        self._hand_over(watcher, found.batches, found.next_revision)
        return True

    def _ask_history(self, watcher: Watcher, start: int) -> bool:
        watcher.loading = True
        self._ready.pop(watcher.key, None)
        span, to_revision = watcher.span, self._store.revision
        limit = limits.WATCH_CATCHUP_REVISIONS

        def loaded(result: EventPage | ConfigServiceError) -> None:
            watcher.loading = False
            if watcher.key not in self._watchers:
                return
            self._ready[watcher.key] = watcher
            if isinstance(result, ConfigServiceError):
                self.remove(watcher)
                watcher.stream.on_refused(watcher, result)
                return
            floor, groups = self._store.compact_revision, result.groups
            if start == floor:  # what was there before it is compacted (W16)
                groups = [(r, [event_of(*e, floor) for e in events]) for r, events in groups]
            if start < floor:
                self._advance(watcher)
            else:
                self._hand_over(watcher, groups, result.through + 1)
            self._wake()

        try:
            self._gate.run(
                self._applied(),
                lambda: self._history.events(span, start, to_revision, limit),
                loaded,
            )
        except ConfigServiceError:
            watcher.loading = False  # too many questions at once: its turn comes again
            self._ready[watcher.key] = watcher
            return False
        return True

    def _hand_over(self, watcher: Watcher, batches: Batches, next_revision: int) -> None:
        """Send a page of history; one message, whole revisions (W14)."""
        events = [e for _, page in batches for e in page if not _hidden(e, watcher.filters)]
        if events:
            body = answers.events_field(events, prev_kv=watcher.prev_kv)
            head = self._header(self._store.revision)
            self.events_total += len(events)
            if not self._send(watcher, head, body, events, next_revision):
                return
        watcher.next_revision = next_revision
        if next_revision > self._store.revision and watcher.key in self._watchers:
            self._no_more_behind(watcher)
            self._sync(watcher)

    # --- progress --------------------------------------------------------------------------------

    def progress(self) -> None:
        """Tell quiet, synced watchers that asked for it where the store is (W23)."""
        current = self._store.revision
        if self._feeding.busy:
            return
        for watcher in list(self._watchers.values()):
            if not watcher.progress:
                continue
            if watcher.quiet and watcher.synced and watcher.next_revision <= current + 1:
                mark = b"\x10" + signed_varint(watcher.watch_id) if watcher.watch_id else b""
                if not watcher.stream.blocked:
                    watcher.stream.sink.send(self._header(current) + mark)
            watcher.quiet = True


def _hidden(event: Event, filters: int) -> bool:
    return bool(filters & (NO_DELETE if event.row.tombstone else NO_PUT))


def control_message(
    header: bytes,
    watch_id: int,
    *,
    created: bool = False,
    canceled: bool = False,
    compact_revision: int = 0,
    reason: str = "",
) -> bytes:
    """A WatchResponse without events."""
    parts = [header]
    if watch_id:
        parts += (b"\x10", signed_varint(watch_id))
    if created:
        parts.append(b"\x18\x01")
    if canceled:
        parts.append(b"\x20\x01")
    if compact_revision:
        parts += (b"\x28", varint(compact_revision))
    if reason:
        parts.append(string_field(6, reason))
    return b"".join(parts)
