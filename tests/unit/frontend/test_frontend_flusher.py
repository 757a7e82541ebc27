"""Answers of one pass leave together, with the pass or at the end of the loop's turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from configsvc.frontend.sweeper import Flusher


class FakeLoop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, fn: Callable[[], None]) -> None:
        self.soon.append(fn)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for fn in soon:
            fn()


class Client:
    def __init__(self) -> None:
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def flusher(loop: FakeLoop) -> Any:
    return Flusher(loop)  # type: ignore[arg-type]  # the part that is used


def test_outside_of_a_pass_one_turn_flushes_all(loop: FakeLoop, flusher: Any) -> None:
    one, two = Client(), Client()
    flusher.mark(one)
    flusher.mark(two)
    assert len(loop.soon) == 1
    loop.turn()
    assert (one.flushes, two.flushes) == (1, 1)


def test_a_pass_flushes_by_itself(loop: FakeLoop, flusher: Any) -> None:
    one = Client()
    flusher.cork()
    flusher.mark(one)
    assert one.flushes == 0
    flusher.uncork()
    assert one.flushes == 1
    assert loop.soon == []


def test_a_turn_that_was_due_finds_nothing_after_a_pass(loop: FakeLoop, flusher: Any) -> None:
    one, two = Client(), Client()
    flusher.mark(one)
    flusher.cork()
    flusher.mark(two)
    flusher.uncork()
    assert (one.flushes, two.flushes) == (1, 1)
    loop.turn()
    assert (one.flushes, two.flushes) == (1, 1)
    flusher.mark(one)
    assert len(loop.soon) == 1
