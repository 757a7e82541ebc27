"""When the last watcher has its event, though reads are digested later than they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench import watching
from bench.frames import BenchFault
from bench.watching import Crowd, WatchLink


class Watcher(WatchLink):
    """A watcher whose reads are strings of events (``e``) and of other frames."""

    def __init__(self) -> None:
        self.reads = []
        self.coming: list[bytes] = []

    def arrived(self) -> bytes:
        return self.coming.pop(0) if self.coming else b""

    def digest(self, data: bytes) -> None:
        self.events += data.count(b"e")


class FakeLinks:
    """Reads of all watchers in turn, one each, until nothing comes."""

    def __init__(self, watchers: list[Watcher]) -> None:
        self._watchers = watchers

    def run_until(self, done: Callable[[], bool], _seconds: float) -> bool:
        while not done():
            if not any(watcher.coming for watcher in self._watchers):
                return False
            for watcher in self._watchers:
                watcher.readable()
        return True


def crowd(monkeypatch: pytest.MonkeyPatch, *coming: list[bytes]) -> Crowd:
    clock = iter(range(1, 100))
    monkeypatch.setattr(watching, "time", FakeTime(lambda: float(next(clock))))
    watchers = [Watcher() for _ in coming]
    for watcher, reads in zip(watchers, coming, strict=True):
        watcher.coming = list(reads)
    links: Any = FakeLinks(watchers)
    return Crowd(links, watchers)


class FakeTime:
    def __init__(self, now: Callable[[], float]) -> None:
        self.perf_counter = now


def test_the_last_read_with_an_event_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crowd(monkeypatch, [b"e"], [b"e"], [b"e"]).wait_for(1) == 3.0


def test_another_frame_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reads come in the order 1: p, 2: e, 3: e (of the first), 4: p (of the second).
    assert crowd(monkeypatch, [b"p", b"e"], [b"e", b"p"]).wait_for(1) == 3.0


def test_all_events_of_a_round_count(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = crowd(monkeypatch, [b"ee", b"e", b"e"], [b"eee"])
    assert asked.wait_for(3) == 3.0
    with pytest.raises(BenchFault):
        asked.wait_for(4)
