"""The writer's thread: order, batches, lag, durability, and how it ends."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from history_world import World

from configsvc.errors import (
    ExitCode,
    FatalError,
    InvariantViolationError,
    NotFoundError,
    OverloadedError,
)
from configsvc.limits import (
    HISTORY_TASKS_MAX,
    READY_ENTRIES_MAX,
    SQL_BATCH_ENTRIES_MAX,
    SQL_LAG_BYTES_MAX,
    SQL_LAG_ENTRIES_MAX,
    SQL_LAG_S_MAX,
)
from configsvc.storage.history import writer as writer_module
from configsvc.storage.history.store import History
from configsvc.storage.history.writer import HistoryWriter

WAIT_S = 10.0


class Watcher:
    """Records the callbacks; ``wait_for`` blocks until one has told enough."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []
        self.durable: list[int] = []
        self.fatal: list[BaseException] = []
        self._changed = threading.Condition()

    def on_written(self, applied: int, revision: int) -> None:
        with self._changed:
            self.written.append((applied, revision))
            self._changed.notify_all()

    def on_durable(self, applied: int) -> None:
        with self._changed:
            self.durable.append(applied)
            self._changed.notify_all()

    def on_fatal(self, error: BaseException) -> None:
        with self._changed:
            self.fatal.append(error)
            self._changed.notify_all()

    def wait_for(self, reached: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(reached, WAIT_S)

    def applied(self) -> int:
        return self.written[-1][0] if self.written else 0


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def writer(history: History, watcher: Watcher) -> Iterator[HistoryWriter]:
    writer = make(history, watcher)
    writer.start()
    yield writer
    assert writer.close(WAIT_S)


def make(history: History, watcher: Watcher, **options: Any) -> HistoryWriter:
    return HistoryWriter(
        history,
        on_written=watcher.on_written,
        on_durable=watcher.on_durable,
        on_fatal=watcher.on_fatal,
        **options,
    )


def puts(count: int) -> World:
    world = World()
    for number in range(count):
        world.commit([("put", b"k%d" % number, b"v", 0)])
    return world


def test_everything_submitted_is_written_in_order(writer, watcher, history, reopen) -> None:
    world = puts(700)
    for at in range(0, 700, 100):
        writer.submit(world.effects[at : at + 100], b"conf %d" % at)
    watcher.wait_for(lambda: watcher.applied() == 700)
    assert watcher.written == sorted(watcher.written)
    assert watcher.written[-1] == (700, 701)
    steps = [
        after - before
        for (before, _), (after, _) in zip(
            [(0, 0), *watcher.written], watcher.written, strict=False
        )
    ]
    assert max(steps) <= SQL_BATCH_ENTRIES_MAX
    assert writer.lag() == (0, 0)
    assert writer.close(WAIT_S)
    assert watcher.durable[-1] == 700
    history = reopen()
    assert history.meta().conf_state == b"conf 600"
    assert {row.key: row for row in history.load_live()} == world.live()


def test_entries_that_came_together_are_cut_at_a_transaction(
    history, watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SQL_BATCH_ENTRIES_MAX", 20)
    world = puts(75)
    writer = make(history, watcher)
    for start, end in ((0, 50), (50, 58), (58, 66), (66, 75)):
        writer.submit(world.effects[start:end], b"conf %d" % end)
    assert writer.lag().entries == 75
    writer.start()
    assert writer.close(WAIT_S)
    # The first one in pieces, its rest with the second; the third would be too many, and goes on.
    assert [applied for applied, _ in watcher.written] == [20, 40, 58, 75]
    assert writer.lag() == (0, 0)


def test_a_lonely_entry_is_written_soon(writer, watcher) -> None:
    writer.submit(puts(1).effects)
    watcher.wait_for(lambda: watcher.applied() == 1)
    assert not watcher.durable  # a checkpoint is not due


def test_a_checkpoint_is_made_when_asked(writer, watcher) -> None:
    writer.submit(puts(3).effects)
    writer.request_checkpoint()
    watcher.wait_for(lambda: watcher.durable == [3])


def test_a_checkpoint_is_made_when_enough_was_written(
    writer, history, watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SQL_CHECKPOINT_ENTRIES", 50)
    world = puts(120)
    writer.submit(world.effects[:40])
    watcher.wait_for(lambda: watcher.applied() == 40)
    assert not watcher.durable
    writer.submit(world.effects[40:])
    watcher.wait_for(lambda: watcher.durable == [120])
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT folded FROM progress").fetchone() == (1,)  # more may follow
    raw.close()


def test_a_checkpoint_is_made_in_time_without_more_work(
    history, watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SQL_CHECKPOINT_S", 0.05)
    writer = make(history, watcher)
    writer.start()
    writer.submit(puts(2).effects)
    watcher.wait_for(lambda: watcher.durable == [2])
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT folded FROM progress").fetchone() == (3,)
    raw.close()
    assert writer.close(WAIT_S)


def test_close_writes_what_is_queued(history, watcher, reopen) -> None:
    writer = make(history, watcher)
    writer.submit(puts(300).effects)  # before the thread runs
    writer.start()
    assert writer.close(WAIT_S)
    assert reopen().meta().applied == 300
    assert watcher.durable == [300]


def test_lag_counts_entries_bytes_and_age(history, watcher) -> None:
    now = [100.0]
    writer = make(history, watcher, clock=lambda: now[0])
    assert writer.has_room()
    assert writer.lag() == (0, 0)
    writer.submit(puts(10).effects)
    now[0] += 0.5
    entries, size = writer.lag()
    assert (entries, writer.lag_seconds()) == (10, 0.5)
    assert 10 * 256 < size < 10 * 400
    assert writer.has_room()
    now[0] += SQL_LAG_S_MAX
    assert not writer.has_room()
    writer.start()
    assert writer.close(WAIT_S)
    assert writer.has_room()


def test_q2_apply_is_held_at_the_bounds(history, watcher) -> None:
    world = World()
    effect = world.put(b"k", b"v")
    big = effect._replace(rows=(effect.rows[0]._replace(value=bytes(SQL_LAG_BYTES_MAX)),))
    writer = make(history, watcher)
    writer.submit([big])
    assert not writer.has_room()
    full = make(history, watcher)
    full.submit([effect] * SQL_LAG_ENTRIES_MAX)
    assert not full.has_room()
    full.submit([effect] * READY_ENTRIES_MAX)  # the pass that was under way
    with pytest.raises(InvariantViolationError):
        full.submit([effect])


def test_a_failing_database_ends_the_process(writer, watcher, history) -> None:
    world = puts(2)
    history._connection.exec_driver_sql("DROP TABLE openings")
    history._connection.commit()
    writer.submit(world.effects)
    watcher.wait_for(lambda: watcher.fatal)
    (error,) = watcher.fatal
    assert isinstance(error, FatalError)
    assert error.code is ExitCode.STORAGE
    assert "OperationalError" in str(error)
    assert "salt" not in str(error)
    assert watcher.written == []


def test_another_owner_ends_the_process_with_its_own_code(writer, watcher, reopen) -> None:
    reopen()
    writer.submit(puts(1).effects)
    watcher.wait_for(lambda: watcher.fatal)
    assert watcher.fatal[0].code is ExitCode.STORES_DISAGREE


def test_a_bug_reaches_the_supervisor_as_it_is(writer, watcher) -> None:
    writer.submit(puts(3).effects[1:])  # a gap
    watcher.wait_for(lambda: watcher.fatal)
    assert isinstance(watcher.fatal[0], InvariantViolationError)


# --- tasks ----------------------------------------------------------------------------------------


def test_a_task_runs_on_the_thread_between_batches(writer, watcher, history) -> None:
    told: list[object] = []
    ended = threading.Event()

    def done(result: object) -> None:
        told.append(result)
        ended.set()

    writer.submit(puts(40).effects)
    writer.task(lambda: threading.current_thread().name, done)
    assert ended.wait(WAIT_S)
    assert told == ["history"]
    ended.clear()
    writer.task(writer.vacuum, done)
    assert ended.wait(WAIT_S)
    assert told[1] is None
    watcher.wait_for(lambda: watcher.applied() == 40)
    assert (writer.written_index, writer.written_revision) == (40, 41)


def test_a_task_that_is_refused_says_so_and_nothing_ends(writer, watcher) -> None:
    told: list[object] = []
    ended = threading.Event()

    def work() -> None:
        raise NotFoundError("no such thing")

    def done(result: object) -> None:
        told.append(result)
        ended.set()

    writer.task(work, done)
    assert ended.wait(WAIT_S)
    assert isinstance(told[0], NotFoundError)
    assert not watcher.fatal


def test_tasks_are_bounded(history, watcher) -> None:
    writer = make(history, watcher)
    for _ in range(HISTORY_TASKS_MAX):
        writer.task(lambda: None, lambda _result: None)
    with pytest.raises(OverloadedError):
        writer.task(lambda: None, lambda _result: None)
    writer.start()
    assert writer.close(WAIT_S)
    with pytest.raises(OverloadedError):
        writer.task(lambda: None, lambda _result: None)


def test_vacuum_gives_pages_back(history) -> None:
    world = World()
    world.put(b"k", bytes(2_000_000))
    history.write(world.effects)
    history.checkpoint(wait_s=1.0)
    before = history.path.stat().st_size
    with history._connection.begin():
        history._connection.exec_driver_sql("DELETE FROM revisions")
    history.vacuum()
    assert history.path.stat().st_size < before - 1_900_000


def test_a_small_batch_lingers_until_somebody_waits_for_it(
    history: History, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "SQL_LINGER_S", 3_600.0)
    writer = make(history, watcher)
    world = puts(4)
    writer.hurry()  # nothing is queued: this must not shorten the wait of what comes later
    writer.start()
    writer.submit(world.effects[:3])
    assert watcher.written == []
    writer.hurry()
    watcher.wait_for(lambda: watcher.applied() == 3)
    writer.submit(world.effects[3:])
    assert watcher.applied() == 3
    assert writer.close(WAIT_S)
    assert watcher.applied() == 4
