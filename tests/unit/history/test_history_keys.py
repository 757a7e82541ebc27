"""Another key file while the history is read and written (ENC-5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from history_world import World

from configsvc.errors import ConfigError
from configsvc.mvcc.messages import RangeOp
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.history.writer import HistoryWriter
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import span_of

ALL = RangeOp(span_of(b"\0", b"\0"))


def small_world() -> World:
    world = World()
    for number in range(4):
        world.put(b"k%d" % (number % 2), b"v%d" % number)
    return world


@pytest.fixture
def new(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "new.key")


def values(reader: HistoryReader, revision: int) -> list[bytes]:
    return [row.value for row in reader.range_at(ALL, revision).kvs]


def test_a_reader_opens_under_both_keys_while_they_change(
    history: History, reader: HistoryReader, new: KeyFile
) -> None:
    world = small_world()
    history.write(world.effects)
    revision = history.meta().visible_revision
    expected = values(reader, revision)
    assert expected
    for step in (lambda: reader.use_key_file(new), lambda: history.rewrap(new)):
        step()
        reader._idle.clear()  # a connection of its own each time: nothing is remembered
        assert values(reader, revision) == expected
    reader.use_key_file(new)  # said again, the first one is not forgotten for itself
    assert reader._older_key is not None
    assert reader._older_key.key_id != new.key_id


def test_a_reader_with_neither_key_says_so(
    history: History, reader: HistoryReader, new: KeyFile, tmp_path: Path
) -> None:
    history.write(small_world().effects)
    other = KeyFile.create(tmp_path / "other.key")
    history.rewrap(other)
    with pytest.raises(ConfigError):
        values(reader, 2)
    reader.use_key_file(new)
    with pytest.raises(ConfigError):
        values(reader, 2)


def test_the_writer_rewraps_and_checkpoints_in_its_turn(
    history: History, key_file: KeyFile, new: KeyFile, path: Path
) -> None:
    durable: list[int] = []
    fatal: list[BaseException] = []
    writer = HistoryWriter(
        history, on_written=lambda *_: None, on_durable=durable.append, on_fatal=fatal.append
    )
    writer.start()
    world = small_world()
    writer.submit(world.effects)
    done: list[Any] = []
    works: list[Callable[[], int]] = [lambda: writer.rewrap(new), writer.checkpoint_now]
    for work in works:
        writer.task(work, done.append)
    assert writer.close(5.0)
    assert fatal == []
    assert done[0] == 1
    assert done[1] in (0, *durable)
    with pytest.raises(ConfigError):
        History.open(path, history.meta().identity, key_file, create=False)
