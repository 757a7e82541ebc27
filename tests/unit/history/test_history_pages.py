"""How rows get into their pages: all of them, and those of the usual sizes next to each other."""

from __future__ import annotations

import sqlite3

import pytest
from history_world import World

from configsvc.limits import HISTORY_PAGE_BYTES
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History

ROWS = 100
VALUE_BYTES = 3_000


def test_values_of_kilobytes_share_pages(history: History) -> None:
    world = World()
    history.write([world.put(b"/k%d" % n, bytes(VALUE_BYTES)) for n in range(ROWS)])
    history.checkpoint()
    with sqlite3.connect(history.path) as raw:
        ((page,),) = raw.execute("PRAGMA page_size")
        ((pages,),) = raw.execute("PRAGMA page_count")
    raw.close()
    assert page == HISTORY_PAGE_BYTES
    assert pages * page < 2 * ROWS * VALUE_BYTES + 60 * page
    assert pages < ROWS


@pytest.mark.parametrize("count", [1, 3, 4, 5, 15, 16, 23, 127, 128, 149, 256, 300])
def test_any_number_of_rows_is_written_whole(
    history: History, reader: HistoryReader, count: int
) -> None:
    world = World()
    for number in range(count):
        world.commit([("put", b"k%d" % (number % 7), b"%d" % number, 0)])
    history.write(world.effects)
    rows = [row for _, events in reader.events(None, 0, count + 1, 1_000).groups for row in events]
    assert [event.row for event in rows] == world.rows
    assert [leaf for _, leaf in reader.leaves(0, count)] == [e.leaf for e in world.effects]
