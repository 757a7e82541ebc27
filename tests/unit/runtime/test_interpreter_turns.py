"""The switch interval is short while long work is under way, and the ordinary one otherwise."""

from __future__ import annotations

import pytest

from configsvc.errors import InvariantViolationError
from configsvc.limits import SWITCH_INTERVAL_LONG_WORK_S, SWITCH_INTERVAL_S
from configsvc.runtime.interpreter import Interpreter
from configsvc.runtime.slices import Slices
from tests.support.turns import Turns


class World:
    def __init__(self) -> None:
        self.intervals: list[float] = []
        self.interpreter = Interpreter(self.intervals.append)
        self.interpreter.set_up()
        self.loop = Turns()
        self.slices = Slices(self.loop, self.interpreter)

    @property
    def short(self) -> bool:
        return self.intervals[-1] == SWITCH_INTERVAL_LONG_WORK_S


def test_a_thread_asks_sooner_while_slices_are_worked_on() -> None:
    world = World()
    assert world.intervals == [SWITCH_INTERVAL_S]
    left = [3]

    def work() -> bool:
        assert world.short
        left[0] -= 1
        return left[0] > 0

    world.slices.add(work)
    world.slices.add(lambda: False)
    while world.loop.soon:
        world.loop.next()
    assert left == [0]
    assert world.intervals == [SWITCH_INTERVAL_S, SWITCH_INTERVAL_LONG_WORK_S, SWITCH_INTERVAL_S]


def test_work_that_fails_gives_the_ordinary_interval_back() -> None:
    world = World()

    def work() -> bool:
        raise OSError

    world.slices.add(work)
    with pytest.raises(OSError):
        world.loop.next()
    assert not world.short


def test_the_last_one_that_ends_restores_it() -> None:
    world = World()
    world.interpreter.long_work_begins()
    world.interpreter.long_work_begins()
    world.interpreter.long_work_ends()
    assert world.short
    world.interpreter.long_work_ends()
    assert not world.short
    with pytest.raises(InvariantViolationError):
        world.interpreter.long_work_ends()
