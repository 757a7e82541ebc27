"""Events of very many rows are told in pieces of work, in the order and form of all others."""

from __future__ import annotations

import pytest

from configsvc.mvcc.watch import NO_DELETE
from configsvc.runtime import feeding, watch_hub
from configsvc.types import KeySpan
from tests.unit.runtime.watch_world import KEYS, World, feed

PIECE = 4


@pytest.fixture(params=[PIECE, 1_000], ids=["pieces", "whole"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(feeding, "FEED_PIECE_ROWS", request.param)
    monkeypatch.setattr(watch_hub, "FEED_PIECE_ROWS", request.param)
    return World()


ALL = [b"/k%02d" % n for n in range(KEYS)]
GONE = KEYS + 2  # revision of the deletion


def test_a_revision_is_one_message_and_what_follows_waits(world: World) -> None:
    plain, previous = world.watch(), world.watch(prev_kv=True)
    one, other = world.watch(KeySpan(b"/k07", b"/k07\0")), world.watch(KeySpan(b"/x", b"/y"))
    puts_only = world.watch(filters=NO_DELETE)
    feed(world, world.clear())
    feed(world, world.put(b"/k00"), world.put(b"/x"))
    world.settle()
    assert plain.keys == previous.keys == [(GONE, ALL), (GONE + 1, [b"/k00"])]
    assert [e.prev_kv.value for e in previous.sent[0].events] == [b"v"] * KEYS
    assert not any(e.HasField("prev_kv") for e in plain.sent[0].events)
    assert one.keys == [(GONE, [b"/k07"])]
    assert other.keys == [(GONE + 2, [b"/x"])]
    assert puts_only.keys == [(GONE + 1, [b"/k00"])]


def test_work_is_done_piece_by_piece(world: World) -> None:
    sink = world.watch()
    feed(world, world.clear())
    if not world.hub.feeding:
        assert feeding.FEED_PIECE_ROWS > KEYS
        return
    assert world.woken == 1
    assert not sink.sent
    assert world.settle() >= 2 * (KEYS // PIECE)


def test_who_comes_or_goes_meanwhile(world: World) -> None:
    stays, leaves = world.watch(), world.watch()
    feed(world, world.clear())
    fresh = world.watch()  # from now on
    late = world.watch(since=GONE)  # from the deletion on, fed from memory
    for stream in [w.stream for w in world.hub._watchers.values() if w.stream.sink is leaves]:
        world.hub.close(stream)
    feed(world, world.put(b"/k01"))
    world.settle()
    assert stays.keys == [(GONE, ALL), (GONE + 1, [b"/k01"])]
    assert fresh.keys == [(GONE + 1, [b"/k01"])]
    assert [key for _, keys in late.keys for key in keys] == [*ALL, b"/k01"]
    assert len(leaves.sent) == (0 if feeding.FEED_PIECE_ROWS == PIECE else 1)


def test_a_slow_reader_gets_the_rest_once_it_reads(world: World) -> None:
    sink = world.watch(slow=1)
    feed(world, world.clear())
    feed(world, world.put(b"/k01"))
    while world.hub.feeding:
        world.hub.catch_up()
    assert sink.keys == [(GONE, ALL)]
    (watcher,) = world.hub._watchers.values()
    world.hub.writable(watcher.stream)
    world.settle()
    assert sink.keys == [(GONE, ALL), (GONE + 1, [b"/k01"])]


def test_progress_does_not_run_ahead_of_events(world: World) -> None:
    sink = world.watch(progress=True)
    (watcher,) = world.hub._watchers.values()
    feed(world, world.clear())
    told = not world.hub.feeding
    assert world.hub.all_synced(watcher.stream) is told
    world.hub.progress()
    assert sink.keys == ([(GONE, ALL)] if told else [])
    world.settle()
    world.hub.progress()
    world.hub.progress()
    assert [revision for revision, keys in sink.keys if not keys] == [GONE] * (2 if told else 1)


def test_a_leap_of_the_store_starts_from_what_was_told(world: World) -> None:
    sink = world.watch()
    feed(world, world.put(b"/k00"))
    feed(world, world.clear())
    feed(world, world.put(b"/k01"))
    world.hub.resume(world.store.revision)
    assert not world.hub.feeding
    world.settle()
    events = [key for _, keys in sink.keys for key in keys]
    assert events == [b"/k00", *ALL, b"/k01"]


def test_too_much_is_told_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "FEED_PIECE_ROWS", PIECE)
    monkeypatch.setattr(watch_hub, "FEED_PIECE_ROWS", PIECE)
    monkeypatch.setattr(feeding, "FEED_ROWS_MAX", KEYS)
    world = World()
    sink = world.watch()
    feed(world, world.clear())
    assert not sink.sent
    feed(world, world.put(b"/k00"))
    assert sink.keys == [(GONE, ALL)]
    world.settle()
    assert sink.keys == [(GONE, ALL), (GONE + 1, [b"/k00"])]
