"""What only tells a commit index waits a moment, and goes away when something better leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from configsvc.limits import COMMIT_NEWS_HOLD_S
from configsvc.raft.messages import Entry, EntryKind, Message, MessageType
from configsvc.runtime.commit_news import CommitNews
from configsvc.types import LogIndex, NodeId, Term

A, B = NodeId(2), NodeId(3)


class FakeLoop:
    """One clock, timers fired by hand, and the link's end of the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.sent: list[Message] = []
        self.flushed = 0

    def call_later(self, delay: float, fn: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, fn))

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages

    def flush(self) -> None:
        self.flushed += 1

    def run_until(self, end: float) -> None:
        while self.timers and self.timers[0][0] <= end:
            self.now, fn = self.timers.pop(0)
            fn()
        self.now = end


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def news(loop: FakeLoop) -> CommitNews:
    return CommitNews(loop, loop, lambda: loop.now)  # type: ignore[arg-type]  # no handles


def append(to: NodeId, commit: int, *, entries: int = 0) -> Message:
    payload = tuple(
        Entry(Term(1), LogIndex(commit + 1 + n), EntryKind.NORMAL, b"x") for n in range(entries)
    )
    return Message(
        MessageType.APP,
        to,
        NodeId(1),
        Term(1),
        Term(1),
        LogIndex(commit),
        payload,
        LogIndex(commit),
    )


def test_news_is_held_and_then_told(loop: FakeLoop, news: CommitNews) -> None:
    told = append(A, 7)
    news.send([told])
    assert loop.sent == []
    loop.run_until(100.0 + COMMIT_NEWS_HOLD_S)
    assert loop.sent == [told]
    assert loop.timers == []


def test_an_append_with_entries_takes_its_place(loop: FakeLoop, news: CommitNews) -> None:
    entries = append(A, 7, entries=2)
    news.send([append(A, 7), append(B, 7), entries])
    assert loop.sent == [entries]
    assert news.spared == 1
    loop.run_until(101.0)
    assert loop.sent == [entries, append(B, 7)]  # the other peer still has to hear it


def test_newer_news_replaces_older_without_waiting_longer(loop: FakeLoop, news: CommitNews) -> None:
    news.send([append(A, 7)])
    loop.now += COMMIT_NEWS_HOLD_S * 0.9
    news.send([append(A, 8)])
    loop.run_until(100.0 + COMMIT_NEWS_HOLD_S)
    assert loop.sent == [append(A, 8)]


def test_young_news_outlasts_a_timer_that_was_set_for_other(
    loop: FakeLoop, news: CommitNews
) -> None:
    news.send([append(A, 7)])
    news.send([append(A, 7, entries=1)])
    loop.sent.clear()
    loop.now += COMMIT_NEWS_HOLD_S * 0.8
    news.send([append(A, 8)])
    loop.run_until(100.0 + COMMIT_NEWS_HOLD_S)
    assert loop.sent == []
    loop.run_until(100.0 + 2 * COMMIT_NEWS_HOLD_S)
    assert loop.sent == [append(A, 8)]


def test_a_peer_with_a_waiting_caller_is_told_at_once(loop: FakeLoop, news: CommitNews) -> None:
    news.send([append(A, 7), append(B, 7)])
    news.release(B)
    news.release(B)
    assert loop.sent == [append(B, 7)]


@pytest.mark.parametrize("kind", [k for k in MessageType if k is not MessageType.APP])
def test_nothing_else_waits(loop: FakeLoop, news: CommitNews, kind: MessageType) -> None:
    message = Message(kind, to=A)
    news.send([append(A, 7), message])
    assert loop.sent == [message]
