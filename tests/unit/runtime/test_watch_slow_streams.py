"""Watches of one stream whose reader is slow, refused or gone: each sees what is its own, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from configsvc.errors import ConfigServiceError, OverloadedError, PermissionDeniedError
from configsvc.mvcc.messages import Event, KeyValue, Row
from configsvc.runtime.watch_hub import Watcher, WatchStream
from configsvc.types import KeySpan
from tests.unit.runtime.watch_world import KEYS, SPAN, Sink, World, feed

FIRST, LAST = 2, KEYS + 1  # revisions that the world begins with


class Page(NamedTuple):
    groups: list[tuple[int, list[Event]]]
    through: int


class FakeGate:
    """Questions wait until a test answers them; ``room`` more are taken."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked = 0
        self.open: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def run(self, index: int, question: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.asked += 1
        if not self.room:
            raise OverloadedError
        self.room -= 1
        self.open.append((question, done))

    def answer(self) -> None:
        question, done = self.open.pop(0)
        self.room += 1
        done(question())


class OneEventEach:
    """A history in which every revision put one key."""

    def events(self, span: KeySpan, start: int, end: int, limit: int) -> Page:
        revisions = range(start, end + 1)
        rows = [Row(at, 0, b"/k00", b"v", FIRST - 1, at, 0, False) for at in revisions]
        before = [KeyValue(b"/k00", b"v", FIRST - 1, at - 1, at - 1, 0) for at in revisions]
        events = [Event(row, prev) for row, prev in zip(rows, before, strict=True)]
        return Page([(event.row.revision, [event]) for event in events], end)


def of(sink: Sink, watch_id: int) -> list[int]:
    """Revisions of the events that one watch was sent."""
    return [e.kv.mod_revision for m in sink.sent if m.watch_id == watch_id for e in m.events]


def opened(sink: Sink) -> tuple[WatchStream, list[tuple[int, ConfigServiceError]]]:
    refusals: list[tuple[int, ConfigServiceError]] = []

    def refused(watcher: Watcher, error: ConfigServiceError) -> None:
        refusals.append((watcher.watch_id, error))

    return WatchStream(sink, lambda _: None, refused), refusals


def test_a_watch_waits_for_the_one_that_filled_their_stream() -> None:
    world, sink = World(), Sink(slow=1)
    stream, refusals = opened(sink)
    for watch_id in (1, 2):
        world.add(stream, watch_id, since=FIRST)
    world.hub.catch_up()
    assert (of(sink, 1), of(sink, 2)) == (list(range(FIRST, LAST + 1)), [])
    assert not world.hub.catch_up()  # nobody reads: nothing to be done
    world.hub.writable(stream)
    world.settle()
    assert of(sink, 2) == list(range(FIRST, LAST + 1))
    assert not refusals


def test_a_page_of_history_that_met_a_full_stream_is_read_again() -> None:
    gate = FakeGate(room=2)
    world, sink = World(gate, OneEventEach()), Sink(slow=1)
    world.store.load([], LAST, -1)  # as after a start: memory holds nothing of the past
    stream, refusals = opened(sink)
    for watch_id in (1, 2):
        world.add(stream, watch_id, since=FIRST)
    world.hub.catch_up()
    gate.answer()
    gate.answer()
    assert (of(sink, 1), of(sink, 2)) == (list(range(FIRST, LAST + 1)), [])
    world.hub.writable(stream)
    world.hub.catch_up()
    gate.answer()
    world.settle()
    assert of(sink, 2) == list(range(FIRST, LAST + 1))
    assert not refusals


def test_compaction_does_not_overtake_a_watch_that_was_only_quiet() -> None:
    world, sink = World(), Sink(slow=1)
    stream, refusals = opened(sink)
    world.add(stream, 1, KeySpan(b"/k00", b"/k00\0"))
    world.add(stream, 2, KeySpan(b"/k01", b"/k01\0"))
    feed(world, world.put(b"/k00"))
    assert stream.blocked
    for _ in range(5):
        feed(world, world.put(b"/k02"))
    feed(world, world.put(b"/k01"))  # the second watch falls behind here, not where it began
    last = world.store.revision
    world.store.compact(last - 2)
    world.hub.writable(stream)
    world.settle()
    assert (of(sink, 2), refusals) == ([last], [])


def test_a_stream_that_ends_in_the_middle_of_a_turn_leaves_nothing_behind() -> None:
    world, sink = World(), Sink()
    ended: list[int] = []

    def may(_: KeySpan) -> None:
        raise PermissionDeniedError

    def refused(watcher: Watcher, error: ConfigServiceError) -> None:
        ended.append(watcher.watch_id)
        world.hub.close(stream)  # as when the refusal cannot be recorded

    stream = WatchStream(sink, may, refused)
    world.add(stream, 1, since=LAST)
    stream.blocked = True
    world.add(stream, 2)
    stream.blocked = False
    world.hub.catch_up()
    assert (ended, len(world.hub), world.hub.behind) == ([1], 0, 0)
    other = world.watch()
    feed(world, world.put(b"/k00"))
    assert len(other.sent) == 1


def test_a_stream_that_ended_gets_no_watch() -> None:
    world = World()
    stream, _ = opened(Sink())
    world.hub.close(stream)
    world.add(stream, 1)
    assert (len(world.hub), stream.ids) == (0, {})


def test_a_history_that_takes_no_more_questions_is_not_asked_without_a_pause() -> None:
    gate = FakeGate(room=1)
    world = World(gate, OneEventEach())
    world.store.load([], LAST, -1)
    sinks = [world.watch(SPAN, since=FIRST) for _ in range(3)]
    assert not world.hub.catch_up()
    assert (gate.asked, len(gate.open)) == (3, 1)
    woken = world.woken
    gate.answer()
    assert world.woken > woken  # whoever was refused has his turn now
    while gate.open or world.hub.behind:
        world.hub.catch_up()
        if gate.open:
            gate.answer()
    assert [len(of(sink, 1)) for sink in sinks] == [LAST - FIRST + 1] * 3


def test_W16_history_knows_what_was_before_the_floor_and_a_watch_does_not() -> None:
    gate = FakeGate(room=1)
    world = World(gate, OneEventEach())
    world.store.load([], LAST, -1)
    world.store.compact(LAST - 2)
    sink = world.watch(since=LAST - 2, prev_kv=True)
    world.hub.catch_up()
    gate.answer()
    [message] = sink.sent
    assert [e.prev_kv.mod_revision for e in message.events] == [0, LAST - 2, LAST - 1]


class CountedStream(WatchStream):
    """Counts how often somebody looks at it."""

    looks = 0
    _blocked = False

    @property
    def blocked(self) -> bool:  # type: ignore[override]
        self.looks += 1
        return self._blocked

    @blocked.setter
    def blocked(self, value: bool) -> None:
        self._blocked = value


def test_watches_that_nobody_reads_cost_nothing_while_they_wait() -> None:
    world, sink = World(), Sink(slow=1)
    stream = CountedStream(sink, lambda _: None, lambda *_: None)
    for watch_id in range(1, 101):
        world.add(stream, watch_id, since=LAST)
    while world.hub.catch_up():
        pass
    stream.looks = 0
    for _ in range(10):
        feed(world, world.put(b"/k00"))
        assert not world.hub.catch_up()
    assert (stream.looks, world.hub.behind) == (0, 100)
    world.hub.writable(stream)
    world.settle()
    assert {len(of(sink, watch_id)) for watch_id in range(1, 101)} == {11}
