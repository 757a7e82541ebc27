"""Long work in slices: who wants the interpreter gets it, and writes that wait get the core."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from configsvc.errors import InvariantViolationError
from configsvc.limits import SLICE_REST_S, SWITCH_INTERVAL_LONG_WORK_S, SWITCH_INTERVAL_S
from configsvc.runtime.interpreter import Interpreter
from configsvc.runtime.slices import Slices
from tests.support.turns import Turns


class World:
    def __init__(self) -> None:
        self.intervals: list[float] = []
        self.interpreter = Interpreter(self.intervals.append)
        self.interpreter.set_up()
        self.loop = Turns()
        self.slices = Slices(self.loop, interpreter=self.interpreter)

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
    assert world.intervals == [SWITCH_INTERVAL_S, SWITCH_INTERVAL_LONG_WORK_S]
    world.interpreter.long_work_ends()
    assert world.intervals[2:] == [SWITCH_INTERVAL_S]
    with pytest.raises(InvariantViolationError):
        world.interpreter.long_work_ends()


def test_slices_rest_while_a_write_waits_and_go_on_all_the_same() -> None:
    class Loop(Turns):
        def __init__(self) -> None:
            super().__init__()
            self.rests: list[float] = []

        def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
            self.rests.append(delay)
            self.call_soon(callback)

    loop, waits, done = Loop(), [True], [0]
    slices = Slices(loop, lambda: waits[0], Interpreter(lambda _: None))

    def work() -> bool:
        done[0] += 1
        return done[0] < 6

    slices.add(work)
    assert not loop.rests  # the first slice does not wait
    loop.next()
    loop.next()
    assert (done[0], loop.rests) == (2, [SLICE_REST_S] * 2)
    waits[0] = False
    loop.next()
    loop.next()
    assert (done[0], len(loop.rests)) == (4, 2)
    waits[0] = True
    while loop.soon:
        loop.next()
    assert (done[0], len(loop.rests)) == (6, 3)  # it ends although writes do not
