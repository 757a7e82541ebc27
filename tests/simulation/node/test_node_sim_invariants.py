"""Each invariant of its own with a violation planted: the run must go red, and name it.

Not here: bounds (``test_node_sim_bounds``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from configsvc.raft.messages import ConfState
from configsvc.raft.readqueue import ReadQueue
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.runtime.watch_hub import Watcher, WatchHub
from configsvc.storage.wal.current import CurrentSegment, SegmentMaker
from configsvc.storage.wal.segments import SPARE_NAME, segment_name
from configsvc.storage.wal.spare import Spare
from configsvc.storage.wal.wal import Wal
from tests.simulation.node import sim_minority, sim_node
from tests.simulation.node.sim_planted import Case, Patch, noticed, run
from tests.support.simdisk import Op


def reads_without_rounds(patch: Patch) -> None:
    confirmed = ReadQueue.take_confirmed

    def alone(self: ReadQueue, conf: ConfState, own: Any) -> Any:
        for member in conf.voters:
            self._acked[member] = self.begun
        return confirmed(self, conf, own)

    patch.setattr(ReadQueue, "take_confirmed", alone)


def lease_reads(patch: Patch) -> None:
    product = sim_node.product_config
    patch.setattr(
        sim_node, "product_config", lambda *a: replace(product(*a), read_only="lease-based")
    )


def a_page_for_a_full_stream_counts_as_sent(patch: Patch) -> None:
    """Two watches of one stream catch up in one turn, and the first one fills it."""
    work = WatchHub._hand_over

    def hasty(self: WatchHub, watcher: Watcher, batches: Any, next_revision: int) -> None:
        full = watcher.stream.blocked
        work(self, watcher, batches, next_revision)
        if full:
            watcher.next_revision = max(watcher.next_revision, next_revision)

    def all_of_a_turn(self: WatchHub) -> bool:
        self._feeding.go_on()
        for watcher in [w for w in self._ready.values() if not w.stream.blocked]:
            self._advance(watcher)
        return self._feeding.busy or any(not w.stream.blocked for w in self._ready.values())

    patch.setattr(WatchHub, "_hand_over", hasty)
    patch.setattr(WatchHub, "catch_up", all_of_a_turn)


def names_that_are_not_synced(patch: Patch) -> None:
    def name(self: SegmentMaker, number: int) -> None:
        self._disk.rename(SPARE_NAME, segment_name(number))

    patch.setattr(SegmentMaker, "_name", name)


def headers_that_are_not_synced(patch: Patch) -> None:
    name = SegmentMaker._name

    def touched(self: SegmentMaker, number: int) -> None:
        self._disk.open(SPARE_NAME).pwrite(b"late", 512)
        name(self, number)

    patch.setattr(SegmentMaker, "_name", touched)


def removals_at_once(patch: Patch) -> None:
    def recycle(self: Spare, name: str, size: int) -> None:
        self._disk.unlink(name)

    patch.setattr(Spare, "recycle", recycle)


def newest_goes_first(patch: Patch) -> None:
    compact = Wal.compact

    def backwards(self: Wal, up_to: int) -> int:
        if len(self._older) > 1 and self._older[-1].max_index <= up_to:
            self._older.reverse()
        return compact(self, up_to)

    patch.setattr(Wal, "compact", backwards)


def a_segment_is_left_out(patch: Patch) -> None:
    begin = SegmentMaker.begin

    def skip(self: SegmentMaker, number: int, *rest: Any) -> CurrentSegment:
        return begin(self, number + 1 if number > 2 else number, *rest)

    patch.setattr(SegmentMaker, "begin", skip)


def another_entry_under_the_same_index(patch: Patch) -> None:
    append = MemoryLog.append
    done: list[int] = []

    def other(self: MemoryLog, entries: Any) -> None:
        entries = list(entries)
        if entries and entries[-1].data and entries[-1].index > 20 and len(done) < 1:
            done.append(entries[-1].index)
            entries[-1] = entries[-1]._replace(data=entries[-1].data + b"\x00")
        append(self, entries)

    patch.setattr(MemoryLog, "append", other)


def a_log_cut_at_what_sql_has_applied(patch: Patch) -> None:
    def now(self: Housekeeping) -> None:
        member = self._member
        member.wal.compact(member.applied)
        tick(self)

    tick = Housekeeping.tick
    patch.setattr(Housekeeping, "tick", now)


def slow_elections(patch: Patch) -> None:
    product = sim_node.product_config
    patch.setattr(
        sim_node, "product_config", lambda who, ticks, *rest: product(who, 4 * ticks, *rest)
    )
    patch.setattr(sim_minority, "KINDS", ("isolated",))


SMALL = {"segment_bytes": 16 * 1024, "snapshot_count": 5, "catchup_entries": 1, "ops_per_s": 60.0}
CASES = {
    "reads without rounds": Case("I13", reads_without_rounds),
    "lease reads": Case("I13", lease_reads),
    "names that are not synced": Case("I21 a frame", names_that_are_not_synced),
    "headers that are not synced": Case("I21 .* is named", headers_that_are_not_synced),
    "removals at once": Case("I21 .* removal of", removals_at_once, SMALL),
    "newest goes first": Case("I21 .* older one", newest_goes_first, SMALL),
    "a segment is left out": Case("I21 segments with a gap", a_segment_is_left_out, SMALL),
    "other bytes under an index": Case("I2 ", another_entry_under_the_same_index),
    "a log cut too far": Case("I9 the log ends", a_log_cut_at_what_sql_has_applied),
    "slow elections": Case("I25", slow_elections),
    "a page for a full stream": Case(
        "I17 watcher got",
        a_page_for_a_full_stream_counts_as_sent,
        {"shared_streams": True, "watchers": 4, "limits": {"WATCH_CATCHUP_REVISIONS": 1}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planted_violation_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noticed(CASES[name], monkeypatch)


def test_the_same_runs_pass_without_it() -> None:
    """Nothing but the planted violation made them red."""
    for swarm in ({}, SMALL):
        assert run(0, swarm).counts["minorities"] == 1


def test_a_file_step_is_judged_by_what_is_durable() -> None:
    """The disk's rules alone, without a cluster."""
    from tests.simulation.node.sim_log import NodeDisk

    disk = NodeDisk()
    file = disk.create(segment_name(1))
    with pytest.raises(AssertionError, match="I21 a frame"):
        file.pwrite(b"x", 0)
    disk.sync_dir()
    file.pwrite(b"x", 0)
    with pytest.raises(AssertionError, match="I21 segments with a gap"):
        disk.do(Op("create", name=segment_name(3), inode=9))
