"""How far the log is cut, and for whom it is kept (S1)."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc import limits
from configsvc.raft.messages import Entry, EntryKind
from configsvc.raft.progress import ProgressState
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.types import LogIndex, Term
from tests.unit.runtime.runtime_fakes import FakeMember, peer


def made(entries: int, *, durable: int | None = None, size: int = 10) -> FakeMember:
    member = FakeMember()
    data = bytes(size)
    member.machine.log.append(
        [Entry(Term(1), LogIndex(i), EntryKind.NORMAL, data) for i in range(1, entries + 1)]
    )
    member.applied = entries
    member.history_durable = entries if durable is None else durable
    member.machine.raft.progress = {1: peer(entries), 2: peer(entries), 3: peer(entries)}
    return member


def cut(member: FakeMember) -> int:
    """The log's first index after one look."""
    faked: Any = member
    Housekeeping(faked)._cut_log()
    first = member.machine.log.first_index()
    assert member.wal.compacted == (first - 1)
    return int(first)


def test_a_short_log_is_left_alone() -> None:
    assert cut(made(149)) == 1


def test_a_long_one_keeps_what_followers_may_need() -> None:
    assert cut(made(151)) == 102  # 50 entries stay


def test_never_past_what_sql_holds_durably() -> None:
    member = made(500, durable=120)
    assert cut(member) == 121
    assert member.history.checkpoints_asked == 0


def test_a_checkpoint_is_asked_for_when_nothing_can_be_cut() -> None:
    member = made(500, durable=0)
    assert cut(member) == 1
    assert member.history.checkpoints_asked == 1


def test_kept_for_a_follower_that_catches_up() -> None:
    member = made(500)
    member.machine.raft.progress[3] = peer(200)
    assert cut(member) == 201


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(peer(200, active=False), id="silent"),
        pytest.param(peer(0, state=ProgressState.SNAPSHOT), id="being-installed"),
    ],
)
def test_not_kept_for_one_that_does_not(away: Any) -> None:
    member = made(500)
    member.machine.raft.progress[3] = away
    assert cut(member) == 451


def test_kept_from_where_an_install_stands() -> None:
    member = made(500)
    member.hold = 300
    assert cut(member) == 301


def test_beyond_the_bytes_nobody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_RETAINED_BYTES_MAX", 20_000)
    member = made(500, size=100)
    member.machine.raft.progress[3] = peer(200)
    member.hold = 150
    assert cut(member) == 451


def test_few_large_entries_are_cut_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "APPLY_LAG_BYTES_MAX", 40_000)
    member = made(60, size=1_000)
    first = cut(member)
    assert 1 < first < 60
    assert member.machine.log.bytes_retained <= 42_000


def test_the_first_entry_goes_as_soon_as_sql_holds_it() -> None:
    """A member that starts from nothing is then always installed."""
    member = made(5, durable=0)
    faked: Any = member
    keeper = Housekeeping(faked)
    keeper.begin_above_one()
    assert (member.machine.log.first_index(), member.history.checkpoints_asked) == (1, 1)
    member.history_durable = 3
    keeper.begin_above_one()
    assert member.machine.log.first_index() == 2
    assert member.wal.compacted == 0  # the files keep it
