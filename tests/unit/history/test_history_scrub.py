"""The daily scrub over a real history: every value is opened, whatever page it is on (W10)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from history_world import World

from configsvc.limits import SCRUB_PAGE_REVISIONS
from configsvc.runtime.scrubbing import Scrubber
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from tests.support.simdisk import SimDisk

REVISIONS = 2 * SCRUB_PAGE_REVISIONS + 7


def _scrub(reader: HistoryReader, last: int) -> tuple[int, list[int]]:
    alarms: list[int] = []

    async def once() -> int:
        member = SimpleNamespace(
            reader=reader,
            written_revision=last,
            loop=asyncio.get_running_loop(),
            report=SimpleNamespace(info=lambda *_, **__: None, error=lambda *_, **__: None),
            raise_alarm=alarms.append,
        )
        scrubber = Scrubber(member, SimDisk(), lambda seconds: asyncio.sleep(0))  # type: ignore[arg-type]
        await scrubber.run_once()
        return scrubber.bad_total

    return asyncio.run(once()), alarms


@pytest.mark.parametrize("revision", [0, 2, SCRUB_PAGE_REVISIONS + 2, REVISIONS + 1])
def test_one_bad_value_is_found_wherever_it_is(
    history: History, reader: HistoryReader, revision: int
) -> None:
    world = World()
    for number in range(REVISIONS):
        world.put(b"k%d" % (number % 5), b"value %d" % number)
    history.write(world.effects)
    history.checkpoint()
    with history._connection.begin():
        history._connection.exec_driver_sql(
            f"UPDATE revisions SET value = zeroblob(length(value)) WHERE revision = {revision}"
        )
    bad, alarms = _scrub(reader, world.revision)
    assert (bad, len(alarms)) == ((1, 1) if revision else (0, 0))


def test_a_page_that_sql_does_not_hold_yet_ends(history: History, reader: HistoryReader) -> None:
    world = World()
    world.put(b"k", b"v")
    history.write(world.effects)
    assert _scrub(reader, world.revision + 5 * SCRUB_PAGE_REVISIONS) == (0, [])
