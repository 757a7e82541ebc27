"""Connections write once per pass, or at the end of the loop's turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from configsvc.net.gathering import Gathering


class FakeLoop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, fn: Callable[[], None]) -> None:
        self.soon.append(fn)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for fn in soon:
            fn()


class Writer:
    def __init__(self, more: Callable[[Writer], None] = lambda _: None) -> None:
        self.writes = 0
        self._more = more

    def flush(self) -> None:
        self.writes += 1
        if self.writes == 1:
            self._more(self)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def gathering(loop: FakeLoop) -> Gathering:
    return Gathering(loop)  # type: ignore[arg-type]  # the part that is used


def test_outside_of_a_pass_the_turn_writes(loop: FakeLoop, gathering: Gathering) -> None:
    one, two = Writer(), Writer()
    gathering.add(one)
    gathering.add(two)
    assert len(loop.soon) == 1
    loop.turn()
    assert (one.writes, two.writes) == (1, 1)
    assert loop.soon == []


def test_a_pass_writes_without_a_turn(loop: FakeLoop, gathering: Gathering) -> None:
    one = Writer()
    gathering.cork()
    gathering.add(one)
    assert one.writes == 0
    gathering.flush()
    assert one.writes == 1
    gathering.add(one)
    gathering.uncork()
    assert one.writes == 2
    assert loop.soon == []


def test_what_is_left_over_is_written_later(loop: FakeLoop, gathering: Gathering) -> None:
    one = Writer(more=gathering.add)
    gathering.cork()
    gathering.add(one)
    gathering.uncork()
    assert one.writes == 1
    loop.turn()
    assert one.writes == 2


def test_a_turn_that_was_scheduled_before_the_pass_finds_nothing(
    loop: FakeLoop, gathering: Gathering
) -> None:
    one = Writer()
    gathering.add(one)
    gathering.cork()
    gathering.uncork()
    assert one.writes == 1
    loop.turn()
    assert one.writes == 1
    gathering.add(one)
    assert len(loop.soon) == 1


def test_a_pass_also_writes_what_waited_for_the_turn(loop: FakeLoop, gathering: Gathering) -> None:
    one, two = Writer(), Writer()
    gathering.add(one)
    gathering.cork()
    gathering.add(two)
    gathering.uncork()
    assert (one.writes, two.writes) == (1, 1)
    loop.turn()
    assert (one.writes, two.writes) == (1, 1)
