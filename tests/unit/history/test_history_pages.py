"""Rows of the usual sizes lie next to each other, without a page of their own each."""

from __future__ import annotations

import sqlite3

from history_world import World

from configsvc.limits import HISTORY_PAGE_BYTES
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
