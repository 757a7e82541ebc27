"""The retained log: bases, overwriting, compaction, byte budgets."""

from __future__ import annotations

import pytest
from raft_fakes import entry

from configsvc.errors import InvariantViolationError
from configsvc.raft.errors import (
    Compacted,
    SnapshotOutOfDate,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)
from configsvc.raft.messages import Snapshot
from configsvc.raft.sizes import ENTRY_OVERHEAD, limit_bytes
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, Term


def three() -> MemoryLog:
    """Base (10, 2), entries 11 to 13."""
    log = MemoryLog(10, 2)
    log.append([entry(2, 11, b"a"), entry(3, 12, b"bb"), entry(3, 13, b"ccc")])
    return log


@pytest.mark.parametrize(("index", "term"), [(10, 2), (11, 2), (12, 3), (13, 3)])
def test_terms_are_known_from_the_base_on(index: int, term: int) -> None:
    assert three().term(index) == term


@pytest.mark.parametrize(("index", "error"), [(9, Compacted), (14, Unavailable)])
def test_terms_outside_are_not(index: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        three().term(index)


def test_entries_below_the_base_are_gone() -> None:
    with pytest.raises(Compacted):
        three().entries(10, 12, 1000)


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        pytest.param(0, 1, id="one-always-passes"),
        pytest.param(2 * ENTRY_OVERHEAD + 3, 2, id="exactly-two"),
        pytest.param(2 * ENTRY_OVERHEAD + 2, 1, id="one-byte-short-of-two"),
        pytest.param(1000, 3, id="all"),
    ],
)
def test_budget(budget: int, count: int) -> None:
    assert len(three().entries(11, 14, budget)) == count
    assert limit_bytes((), budget) == ()


def test_append_overwrites_and_cuts_what_is_behind() -> None:
    log = three()
    log.append([entry(4, 12, b"x")])
    assert log.last_index() == 12
    assert log.term(12) == 4
    assert log.bytes_retained == 2 * ENTRY_OVERHEAD + 2


def test_append_ignores_what_the_base_covers() -> None:
    log = three()
    log.append([entry(1, 9), entry(2, 10)])
    assert log.last_index() == 13
    log.append([entry(2, 10), entry(4, 11)])
    assert (log.last_index(), log.term(11)) == (11, 4)
    log.append([])
    assert log.last_index() == 11


def test_a_gap_is_a_bug() -> None:
    with pytest.raises(InvariantViolationError):
        three().append([entry(3, 15)])


def test_compaction_keeps_the_term_of_its_index() -> None:
    log = three()
    log.compact(12)
    assert (log.first_index(), log.term(12), log.last_index()) == (13, 3, 13)
    assert log.bytes_retained == ENTRY_OVERHEAD + 3
    for index in (12, 9):
        with pytest.raises(Compacted):
            log.compact(index)
    with pytest.raises(InvariantViolationError):
        log.compact(14)


def test_a_snapshot_replaces_everything() -> None:
    log = three()
    snapshot = Snapshot(LogIndex(20), Term(5))
    with pytest.raises(SnapshotTemporarilyUnavailable):
        log.snapshot()
    log.apply_snapshot(snapshot)
    assert (log.first_index(), log.last_index(), log.term(20)) == (21, 20, 5)
    assert log.bytes_retained == 0
    assert log.snapshot() == log.installed() == snapshot
    with pytest.raises(SnapshotOutOfDate):
        log.apply_snapshot(snapshot)


def test_a_source_names_the_snapshots_for_peers() -> None:
    named = Snapshot(LogIndex(7), Term(1))
    log = MemoryLog(snapshot_source=lambda: named)
    assert log.snapshot() is named
