"""Stored data is read again, slowly; what is bad is told, counted and raised as an alarm (W10)."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.apply.state import CORRUPT
from configsvc.errors import ConfigServiceError, StoppedError
from configsvc.limits import SCRUB_EVERY_S, SCRUB_FIRST_S, SCRUB_PAGE_REVISIONS
from configsvc.raft.messages import HardState
from configsvc.runtime.scrubbing import PAGE_PAUSE_S, SEGMENT_PAUSE_S, Scrubber
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.segments import segment_name
from configsvc.storage.wal.wal import Wal, WalOptions
from tests.support.simdisk import SimDisk, SimFile

SEGMENTS = 4


class Pages:
    """A history of which some revisions do not open."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.bad = bad
        self.asked: list[tuple[int, int]] = []
        self.closed = False

    def events(self, span: None, first: int, last: int, limit: int, **rest: Any) -> Any:
        if self.closed:
            raise StoppedError
        self.asked.append((first, last))
        if any(first <= revision <= last for revision in self.bad):
            raise SealBroken("a value does not open")
        return SimpleNamespace(through=last)


class Store:
    """A member with a log of a few segments on a simulated disk."""

    def __init__(self, bad: tuple[int, ...] = (), revision: int = 300) -> None:
        self.disk = SimDisk()
        self.alarms: list[int] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.pauses: list[float] = []
        self.reader = Pages(bad)
        self.written_revision = revision
        self.self_id = 97
        self.report = SimpleNamespace(info=self._say, error=self._say)
        self._fill()

    def _say(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.append((msg, fields))

    def raise_alarm(self, alarm: int) -> None:
        self.alarms.append(alarm)

    def _fill(self) -> None:
        options = WalOptions(segment_bytes=16 * 1024, entropy=lambda n: bytes(range(n)))
        identity = WalIdentity(1, 2, bytes(16), True)
        wal = Wal.create(self.disk, identity, KeyFile(bytes(32)), options=options)
        term = 0
        while wal.segment_count < SEGMENTS:
            term += 1
            wal.append(HardState(term), 0, 0, b"")

    def spoil(self, number: int) -> None:
        name = segment_name(number)
        inode = self.disk.state.inodes[self.disk.state.live[name]]
        inode.live[8192 + 10] ^= 1

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def scrubber(self) -> Scrubber:
        self.loop = asyncio.get_running_loop()
        return Scrubber(self, self.disk, self._pause)  # type: ignore[arg-type]

    def scrub(self) -> Scrubber:
        async def once() -> Scrubber:
            scrubber = self.scrubber()
            await scrubber.run_once()
            return scrubber

        return asyncio.run(once())


async def two_passes(store: Store) -> Scrubber:
    """A scrubber that is cancelled when its second pass is over, or has failed."""
    scrubber = store.scrubber()

    async def pause(seconds: float) -> None:
        store.pauses.append(seconds)
        if store.pauses.count(SCRUB_EVERY_S) == 2:
            raise asyncio.CancelledError

    scrubber._pause = pause
    with pytest.raises(asyncio.CancelledError):
        await scrubber.run()
    return scrubber


def test_what_is_well_is_read_whole_and_slowly() -> None:
    store = Store()
    scrubber = store.scrub()
    assert (scrubber.passes_total, scrubber.bad_total, store.alarms) == (1, 0, [])
    assert store.lines == [
        (
            "stored data was read again",
            {"segments": SEGMENTS - 1, "revisions": 299, "bad": 0},
        )
    ]
    assert store.reader.asked == [(2, 129), (130, 257), (258, 300)]
    assert store.pauses == [SEGMENT_PAUSE_S] * (SEGMENTS - 1) + [PAGE_PAUSE_S] * 3


def test_a_bad_segment_is_told_and_raises_the_alarm() -> None:
    store = Store()
    store.spoil(2)
    scrubber = store.scrub()
    assert scrubber.bad_total == 1
    assert store.alarms == [CORRUPT]
    told = [fields["reason"] for msg, fields in store.lines if msg == "stored data is damaged"]
    assert len(told) == 1
    assert segment_name(2) in told[0]
    assert store.lines[-1][1]["bad"] == 1  # and the rest was read


def test_a_sector_that_the_disk_cannot_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    real, calls = SimFile.pread, []

    def pread(file: SimFile, length: int, offset: int) -> bytes:
        if length > 8192:  # a segment's frames, not its header
            calls.append(length)
            if len(calls) == 2:
                raise OSError(errno.EIO, "bad sector")
        return real(file, length, offset)

    monkeypatch.setattr(SimFile, "pread", pread)
    assert store.scrub().bad_total == 1
    assert store.alarms == [CORRUPT]
    assert segment_name(2) in store.lines[0][1]["reason"]
    assert len(calls) == SEGMENTS - 1, "the others are read"


def test_rows_that_do_not_open_raise_the_alarm_and_the_others_are_read() -> None:
    store = Store(bad=(3, 200))
    scrubber = store.scrub()
    assert scrubber.bad_total == 2
    assert set(store.alarms) == {CORRUPT}
    assert store.reader.asked[-1] == (258, 300)


def test_a_segment_that_compaction_took_meanwhile_is_no_finding() -> None:
    store = Store()
    store.spoil(1)
    names = store.disk.names
    taken: list[str] = []

    def later() -> list[str]:
        found = names()
        if taken:
            return [name for name in found if name != segment_name(1)]
        taken.append("looked")
        return found

    store.disk.names = later  # type: ignore[method-assign]
    assert store.scrub().bad_total == 0
    assert store.alarms == []


def test_an_alarm_that_cannot_be_raised_does_not_end_the_pass() -> None:
    store = Store(bad=(3, 200))

    def refused(alarm: int) -> None:
        raise ConfigServiceError("not now")

    store.raise_alarm = refused  # type: ignore[method-assign]
    assert store.scrub().bad_total == 2


def test_a_history_that_closes_ends_the_pass() -> None:
    store = Store()
    store.reader.closed = True
    scrubber = store.scrub()
    assert (scrubber.passes_total, scrubber.bad_total) == (1, 0)
    assert store.lines[-1][1]["revisions"] == 0


def test_a_pass_that_fails_is_said_and_the_next_one_comes() -> None:
    store = Store(revision=SCRUB_PAGE_REVISIONS)
    names, failing = store.disk.names, [OSError(errno.EMFILE, "too many open files")]

    def scarce() -> list[str]:
        if failing:
            raise failing.pop()
        return names()

    store.disk.names = scarce  # type: ignore[method-assign]

    assert asyncio.run(two_passes(store)).passes_total == 1
    assert store.lines[0] == ("stored data was not read", {"reason": "OSError"})
    assert store.alarms == [], "a shortage of ours says nothing about the disk"


def test_the_first_pass_comes_late_and_the_next_a_day_after() -> None:
    store = Store(revision=SCRUB_PAGE_REVISIONS)

    assert asyncio.run(two_passes(store)).passes_total == 2
    assert SCRUB_FIRST_S <= store.pauses[0] <= 2 * SCRUB_FIRST_S
