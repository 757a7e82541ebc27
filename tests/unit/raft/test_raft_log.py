"""The core's view of the log: stable and unstable parts, matching, committing, paging."""

from __future__ import annotations

import pytest
from raft_fakes import entry

from configsvc.errors import InvariantViolationError
from configsvc.raft.errors import Compacted, Unavailable
from configsvc.raft.log import RaftLog
from configsvc.raft.messages import EntryKind, Snapshot
from configsvc.raft.sizes import ENTRY_OVERHEAD
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, Term


def mixed(*, page: int = 10_000) -> RaftLog:
    """Base (10, 1); 11 and 12 stable in terms 1 and 2, 13 and 14 unstable in 2 and 3."""
    storage = MemoryLog(10, 1)
    storage.append([entry(1, 11), entry(2, 12)])
    log = RaftLog(storage, commit_hint=0, applied=0, applying_bytes_max=page)
    log.append([entry(2, 13), entry(3, 14)])
    return log


def test_start_from_a_base() -> None:
    log = RaftLog(MemoryLog(10, 1), commit_hint=0, applied=0, applying_bytes_max=1)
    assert (log.applied, log.committed, log.last_index, log.last_term()) == (10, 10, 10, 1)


@pytest.mark.parametrize(("hint", "applied", "commit"), [(11, 12, 12), (12, 11, 12), (0, 0, 10)])
def test_commit_starts_at_the_higher_of_hint_and_applied(
    hint: int, applied: int, commit: int
) -> None:
    storage = MemoryLog(10, 1)
    storage.append([entry(1, 11), entry(1, 12)])
    log = RaftLog(storage, commit_hint=hint, applied=applied, applying_bytes_max=1)
    assert log.committed == commit


@pytest.mark.parametrize(("hint", "applied"), [(13, 0), (0, 9), (0, 13)])
def test_a_log_that_contradicts_its_state_is_refused(hint: int, applied: int) -> None:
    storage = MemoryLog(10, 1)
    storage.append([entry(1, 11), entry(1, 12)])
    with pytest.raises(InvariantViolationError):
        RaftLog(storage, commit_hint=hint, applied=applied, applying_bytes_max=1)


@pytest.mark.parametrize(("index", "term"), [(10, 1), (11, 1), (12, 2), (13, 2), (14, 3)])
def test_terms_across_the_border(index: int, term: int) -> None:
    log = mixed()
    assert log.term(index) == log.known_term(index) == term
    assert log.matches(index, term)
    assert not log.matches(index, term + 1)


@pytest.mark.parametrize(("index", "error"), [(9, Compacted), (15, Unavailable)])
def test_unknown_terms(index: int, error: type[Exception]) -> None:
    log = mixed()
    assert log.known_term(index) == 0
    assert not log.matches(index, 0)
    with pytest.raises(error):
        log.term(index)


def test_entries_across_the_border() -> None:
    log = mixed()
    assert [e.index for e in log.entries(11, 15, 10_000)] == [11, 12, 13, 14]
    assert [e.index for e in log.entries(12, 14, 10_000)] == [12, 13]
    assert [e.index for e in log.entries(11, 15, 3 * ENTRY_OVERHEAD)] == [11, 12, 13]
    assert [e.index for e in log.entries(11, 15, ENTRY_OVERHEAD)] == [11]
    assert [e.index for e in log.entries(14, 15, 0)] == [14]
    assert log.entries(15, 15, 10) == ()


@pytest.mark.parametrize(
    ("prev", "entries", "commit", "last_new", "last", "committed"),
    [
        pytest.param((14, 3), [(3, 15)], 15, 15, 15, 15, id="extends"),
        pytest.param((14, 3), [(3, 15)], 99, 15, 15, 15, id="commit-never-beyond-what-is-new"),
        pytest.param((12, 2), [(4, 13)], 0, 13, 13, 10, id="conflict-cuts"),
        pytest.param((11, 1), [(2, 12), (2, 13)], 12, 13, 14, 12, id="known-prefix-cuts-nothing"),
        pytest.param((12, 2), [], 13, 12, 14, 12, id="empty-append-matches-its-previous-only"),
        pytest.param((11, 1), [(2, 12), (2, 13), (4, 14)], 10, 14, 14, 10, id="last-differs"),
    ],
)
def test_matching_appends(
    prev: tuple[int, int],
    entries: list[tuple[int, int]],
    commit: int,
    last_new: int,
    last: int,
    committed: int,
) -> None:
    log = mixed()
    new = tuple(entry(term, index) for term, index in entries)
    assert log.try_append(*prev, new, commit) == last_new
    assert (log.last_index, log.committed) == (last, committed)
    for appended in new:
        assert log.term(appended.index) == appended.term


@pytest.mark.parametrize("prev", [(14, 2), (15, 3), (9, 1)])
def test_appends_that_do_not_match_change_nothing(prev: tuple[int, int]) -> None:
    log = mixed()
    assert log.try_append(*prev, (entry(9, prev[0] + 1),), 99) is None
    assert (log.last_index, log.committed) == (14, 10)


def test_committed_entries_are_never_replaced() -> None:
    log = mixed()
    log.commit_to(13)
    with pytest.raises(InvariantViolationError):
        log.try_append(12, 2, (entry(4, 13),), 13)
    with pytest.raises(InvariantViolationError):
        log.commit_to(15)
    log.commit_to(11)
    assert log.committed == 13


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        pytest.param(14, 3, (14, 3), id="itself"),
        pytest.param(14, 2, (13, 2), id="skips-a-later-term"),
        pytest.param(14, 1, (11, 1), id="skips-two"),
        pytest.param(14, 0, (9, 0), id="below-the-base-counts-with-term-0"),
        pytest.param(0, 5, (0, 0), id="nothing"),
    ],
)
def test_conflict_by_term(index: int, term: int, found: tuple[int, int]) -> None:
    assert mixed().conflict_by_term(index, term) == found


@pytest.mark.parametrize(
    ("index", "term", "good"),
    [(14, 3, True), (13, 3, False), (15, 3, True), (1, 4, True), (99, 2, False)],
)
def test_up_to_date(index: int, term: int, good: bool) -> None:
    assert mixed().up_to_date(index, term) is good


def test_unstable_entries_only_when_allowed() -> None:
    log = mixed()
    log.commit_to(14)
    assert [e.index for e in log.next_committed(allow_unstable=False)] == [11, 12]
    assert [e.index for e in log.next_committed(allow_unstable=True)] == [11, 12, 13, 14]


def test_paging_hands_out_each_entry_once_and_waits_for_acknowledgements() -> None:
    log = mixed(page=2 * ENTRY_OVERHEAD)
    log.commit_to(14)
    seen = []
    while page := log.next_committed(allow_unstable=True):
        assert log.has_next_committed(allow_unstable=True)
        seen += [e.index for e in page]
        log.accept_applying(page, allow_unstable=True)
        assert (
            log.next_committed(allow_unstable=True) == ()
        )  # something stayed behind, or all is out
        assert not log.has_next_committed(allow_unstable=True)
        log.applied_to(page[-1].index, len(page) * ENTRY_OVERHEAD)
    assert seen == [11, 12, 13, 14]
    assert log.applying_bytes() == 0


def test_pages_are_bounded_by_entries_too() -> None:
    storage = MemoryLog()
    storage.append([entry(1, i) for i in range(1, 6)])
    log = RaftLog(storage, commit_hint=5, applied=0, applying_entries_max=2)
    pages = []
    while page := log.next_committed(allow_unstable=True):
        pages.append([e.index for e in page])
        log.accept_applying(page, allow_unstable=True)
        log.applied_to(page[-1].index, len(page) * ENTRY_OVERHEAD)
    assert pages == [[1, 2], [3, 4], [5]]


def test_stable_acknowledgements_name_term_and_index() -> None:
    log = mixed()
    unstable = log.unstable
    unstable.accept()
    unstable.stable_to(13, 9)  # overwritten since
    unstable.stable_to(12, 2)  # stable already
    unstable.stable_to(15, 3)  # not there
    assert unstable.offset == 13
    unstable.stable_to(13, 2)
    assert (unstable.offset, len(unstable.entries)) == (14, 1)
    unstable.stable_to(14, 3)
    assert (unstable.offset, unstable.entries, log.last_index) == (15, [], 14)


def test_what_replaces_handed_out_entries_is_handed_out_again() -> None:
    log = mixed()
    assert [e.index for e in log.unstable.next_entries()] == [13, 14]
    log.unstable.accept()
    assert log.unstable.next_entries() == ()
    log.append([entry(4, 14), entry(4, 15)])
    assert [(e.term, e.index) for e in log.unstable.next_entries()] == [(4, 14), (4, 15)]
    log.append([entry(5, 12)])  # even below what was unstable
    assert [(e.term, e.index) for e in log.unstable.next_entries()] == [(5, 12)]
    assert log.last_index == 12


def test_a_waiting_snapshot_stops_application_and_hides_storage() -> None:
    log = mixed()
    log.restore(Snapshot(LogIndex(20), Term(4)))
    assert (log.first_index(), log.last_index, log.committed) == (21, 20, 20)
    assert (log.term(20), log.known_term(12)) == (4, 0)
    assert log.next_committed(allow_unstable=True) == ()
    with pytest.raises(Compacted):
        log.entries(12, 13, 100)
    assert log.unstable.next_snapshot() is not None
    log.unstable.accept()
    assert log.unstable.next_snapshot() is None
    log.unstable.stable_snapshot_to(19)
    assert log.unstable.snapshot is not None
    log.unstable.stable_snapshot_to(20)
    assert log.unstable.snapshot is None


def test_unapplied_changes_are_found_on_every_page() -> None:
    storage = MemoryLog()
    plain = [entry(1, i, b"x" * 300_000) for i in range(1, 9)]
    storage.append([*plain, entry(1, 9, b"", EntryKind.CONF_CHANGE)])
    log = RaftLog(storage, commit_hint=8, applied=0, applying_bytes_max=1)
    assert not log.has_unapplied_conf_change()
    log.commit_to(9)
    assert log.has_unapplied_conf_change()
