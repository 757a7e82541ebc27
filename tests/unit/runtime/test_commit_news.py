"""A commit index waits a moment for entries, and is told when none came."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from configsvc.limits import COMMIT_NEWS_HOLD_S
from configsvc.runtime.commit_news import BUSY_HOLDS, CommitNews
from configsvc.types import NodeId

A, B, ALL = NodeId(2), NodeId(3), NodeId(0)


class FakeCore:
    """A leader with two followers: what is committed, and what each was told."""

    def __init__(self) -> None:
        self.commit_index = 0
        self.told = {A: 0, B: 0}
        self.messages: list[tuple[NodeId, int]] = []
        self.commit_untold = False

    def commit(self, index: int) -> None:
        self.commit_index = index
        self.commit_untold = True

    def send_entries(self) -> None:
        self.told = dict.fromkeys(self.told, self.commit_index)

    def tell_commit(self, up_to: int, *, to: NodeId = ALL) -> bool:
        if to == ALL:
            self.commit_untold = up_to < self.commit_index
        late = [who for who in self.told if self.told[who] < up_to and to in (ALL, who)]
        for who in late:
            self.told[who] = self.commit_index
            self.messages.append((who, self.commit_index))
        return bool(late)


class Rig:
    """Passes, one clock, timers that ring when time is moved."""

    def __init__(self) -> None:
        self.core = FakeCore()
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.wakes = 0
        self.news = CommitNews(self.core, self, self._wake)

    def _wake(self) -> None:
        self.wakes += 1
        self.end_of_pass()

    def call_later(self, delay: float, fn: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, fn))

    def end_of_pass(self) -> None:
        if self.core.commit_untold:
            self.news.look()

    def commit(self, index: int) -> None:
        self.core.commit(index)
        self.end_of_pass()

    def run_until(self, end: float) -> None:
        while self.timers and self.timers[0][0] <= end:
            self.now, fn = self.timers.pop(0)
            fn()
        self.now = end


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_no_entries_carry_is_told_once(rig: Rig) -> None:
    rig.commit(7)
    rig.run_until(COMMIT_NEWS_HOLD_S * 0.9)
    assert rig.core.messages == []
    rig.run_until(COMMIT_NEWS_HOLD_S)
    assert rig.core.messages == [(A, 7), (B, 7)]
    assert rig.wakes == 1
    rig.run_until(1.0)
    assert len(rig.core.messages) == 2
    assert rig.timers == []  # a silent cluster costs nothing


def test_what_entries_carried_is_not_told_again(rig: Rig) -> None:
    rig.commit(7)
    rig.core.send_entries()
    rig.run_until(1.0)
    assert rig.core.messages == []
    assert rig.wakes == 0
    assert rig.timers == []


def test_young_news_has_its_own_time(rig: Rig) -> None:
    rig.commit(7)
    rig.core.send_entries()
    rig.run_until(COMMIT_NEWS_HOLD_S * 0.9)
    rig.commit(8)
    rig.run_until(COMMIT_NEWS_HOLD_S * 1.5)
    assert rig.core.messages == []
    rig.run_until(COMMIT_NEWS_HOLD_S * (1 + BUSY_HOLDS))
    assert rig.core.messages == [(A, 8), (B, 8)]


def test_news_after_steady_commits_waits_two_looks_at_most(rig: Rig) -> None:
    for index in range(1, 50):
        rig.commit(index)
        rig.core.send_entries()
        rig.run_until(rig.now + COMMIT_NEWS_HOLD_S / 7)
    rig.commit(50)
    rig.run_until(rig.now + 2 * BUSY_HOLDS * COMMIT_NEWS_HOLD_S)
    assert rig.core.messages == [(A, 50), (B, 50)]


def test_steady_commits_keep_one_timer(rig: Rig) -> None:
    for index in range(1, 50):
        rig.commit(index)
        rig.core.send_entries()
        rig.run_until(rig.now + COMMIT_NEWS_HOLD_S / 7)
        assert len(rig.timers) == 1
    assert rig.core.messages == []


def test_a_peer_with_a_waiting_caller_is_told_at_once(rig: Rig) -> None:
    rig.news.expects(B, 7)
    rig.news.deliver()
    assert rig.core.messages == []  # not committed yet
    rig.commit(7)
    rig.news.deliver()
    assert rig.core.messages == [(B, 7)]
    assert not rig.news.expected
    rig.run_until(COMMIT_NEWS_HOLD_S)
    assert rig.core.messages == [(B, 7), (A, 7)]


def test_of_several_awaited_entries_each_commit_is_told(rig: Rig) -> None:
    rig.news.expects(B, 5)
    rig.news.expects(B, 9)
    rig.commit(6)
    rig.news.deliver()
    assert rig.core.messages == [(B, 6)]
    rig.commit(8)
    rig.news.deliver()
    assert rig.core.messages == [(B, 6), (B, 8)]
    assert rig.news.expected
    rig.commit(9)
    rig.news.deliver()
    assert rig.core.messages[2:] == [(B, 9)]
    assert not rig.news.expected


def test_what_is_awaited_is_forgotten_with_the_leadership(rig: Rig) -> None:
    rig.news.expects(B, 7)
    rig.news.forget()
    rig.commit(7)
    rig.news.deliver()
    assert rig.core.messages == []


def test_a_leader_that_no_longer_is_says_nothing(rig: Rig) -> None:
    rig.commit(7)
    rig.core.commit_untold = False
    rig.core.told = {}
    rig.run_until(1.0)
    assert rig.core.messages == []
    assert rig.timers == []
