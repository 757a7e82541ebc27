"""Long work on the loop, in slices: one slice per turn, of whoever's turn it is.

What takes a hundred milliseconds in one go holds up every put for as long. Cut into slices, it
holds each step of a put up by one slice, however many pieces of long work there are.

Always true:
  * A turn of the loop is asked for exactly while somebody waits, and runs one slice.
  * Meanwhile other threads get the interpreter soon (``interpreter``).
  * While a write waits, each slice is followed by a rest: the write's other steps are done by other
    threads and processes, which want the core that the slices would keep busy. Long work goes on
    all the same, if writes never end.

Not here: how much one slice is (whoever works bounds it in ``limits``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from configsvc.limits import SLICE_REST_S
from configsvc.runtime.interpreter import INTERPRETER, Interpreter

Slice = Callable[[], bool]  # does a little; whether there is more to do


class Soon(Protocol):
    """What is asked of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class Slices:
    """Who has long work to do, in turns."""

    def __init__(
        self,
        loop: Soon,
        writes_wait: Callable[[], bool] = lambda: False,
        interpreter: Interpreter = INTERPRETER,
    ) -> None:
        """``writes_wait``: whether some write of this member is on its way."""
        self._loop = loop
        self._writes_wait = writes_wait
        self._interpreter = interpreter
        self._waiting: deque[Slice] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: Slice) -> None:
        """Call ``work`` once per turn that comes to it, until it says that nothing is left."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._interpreter.long_work_begins()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        work = waiting[0]
        more = False
        try:
            more = work()
        finally:
            # Whoever fails is taken out; what it raised is the loop's to tell.
            waiting.popleft()
            if more:
                waiting.append(work)
            if not waiting:
                self._interpreter.long_work_ends()
            elif self._writes_wait():
                self._loop.call_later(SLICE_REST_S, self._turn)
            else:
                self._loop.call_soon(self._turn)
