"""Virtual time: one heap of events for a whole cluster, and the event loop that each member gets.

Every decision of a run comes from one seeded ``random.Random``; time is integer nanoseconds and
moves only when the heap says so. An event belongs to the world or to one start of one member. A
member's events wait while it is paused, and are dropped once that start is over.

Not here: what the events are (``sim_node``, ``sim_net``, ``sim_faults``, ``sim_clients``).
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

S: Final = 1_000_000_000
MS: Final = 1_000_000
CALLS_PER_EVENT_MAX: Final = 20_000  # a member that never comes to rest is a bug

Fn = Callable[..., Any]


class Died(BaseException):
    """This start of a member is over. Not an ``Exception``: nothing may catch it on its way."""


class Life(Protocol):
    """One start of one member, as the kernel sees it."""

    alive: bool
    paused: bool
    late: deque[tuple[bool, Fn, tuple[Any, ...]]]

    def enter(self, fn: Fn, args: tuple[Any, ...]) -> None:
        """Run ``fn`` as this member, and everything that it causes at once."""


class Kernel:
    """The heap, the clock and the dice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0
        self.events = 0
        self._serial = 0
        self._heap: list[tuple[int, int, Life | None, bool, Fn, tuple[Any, ...]]] = []

    def at(self, delay: int, fn: Fn, *args: Any) -> None:
        """An event of the world ``delay`` nanoseconds from now."""
        self._push(delay, None, False, fn, args)

    def for_life(self, life: Life, delay: int, io: bool, fn: Fn, *args: Any) -> None:
        """An event of a member. ``io``: after a pause it comes before timers, as with a socket."""
        self._push(delay, life, io, fn, args)

    def _push(self, delay: int, life: Life | None, io: bool, fn: Fn, args: tuple[Any, ...]) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (self.now + max(0, delay), self._serial, life, io, fn, args))

    def run(self, duration: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stops early, with True, as soon as ``until`` holds after an event."""
        end = self.now + duration
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= end:
            self.now, _, life, io, fn, args = pop(heap)
            self.events += 1
            if life is None:
                fn(*args)
            elif not life.alive:
                continue
            elif life.paused:
                life.late.append((io, fn, args))
                continue
            else:
                life.enter(fn, args)
            if until is not None and until():
                return True
        self.now = end
        return False

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability


class SimFuture:
    """As much of a future as the product uses."""

    def __init__(self) -> None:
        self._done: list[Callable[[SimFuture], None]] = []
        self._result: Any = None
        self._error: Exception | None = None
        self.finished = False

    def add_done_callback(self, fn: Callable[[SimFuture], None]) -> None:
        self._done.append(fn)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception | None:
        return self._error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result

    def finish(self, work: Fn, args: tuple[Any, ...]) -> None:
        try:
            self._result = work(*args)
        except Exception as error:
            self._error = error
        self.finished = True
        for fn in self._done:
            fn(self)


class Timer:
    __slots__ = ("cancelled",)

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class NodeLoop:
    """The event loop of one start of one member."""

    def __init__(self, kernel: Kernel, life: Life, rate: float) -> None:
        self._kernel = kernel
        self._life = life
        self._rate = rate  # of the member's monotonic clock against the world's
        self.ready: deque[tuple[Fn, tuple[Any, ...]]] = deque()
        self._workers: dict[Any, int] = {}  # executor -> when its last piece of work ends
        self.worker_delay: Callable[[], int] = lambda: MS

    def call_soon(self, fn: Fn, *args: Any) -> None:
        self.ready.append((fn, args))

    def call_soon_threadsafe(self, fn: Fn, *args: Any) -> None:
        self.ready.append((fn, args))

    def call_later(self, delay: float, fn: Fn, *args: Any) -> Timer:
        timer = Timer()
        wait = int(delay * S / self._rate)
        self._kernel.for_life(self._life, wait, False, _fire, timer, fn, args)
        return timer

    def run_in_executor(self, executor: Any, work: Fn, *args: Any) -> SimFuture:
        """Threads take time; what they do happens at its end."""
        future = SimFuture()
        # What one executor is given is done in that order.
        done = max(self._workers.get(executor, 0), self._kernel.now + self.worker_delay())
        self._workers[executor] = done
        delay = done - self._kernel.now
        self._kernel.for_life(self._life, delay, True, future.finish, work, args)
        return future

    def drain(self) -> None:
        """Everything that was to be called soon."""
        ready = self.ready
        calls = 0
        while ready:
            fn, args = ready.popleft()
            fn(*args)
            calls += 1
            assert calls < CALLS_PER_EVENT_MAX, "a member never comes to rest"


def _fire(timer: Timer, fn: Fn, args: tuple[Any, ...]) -> None:
    if not timer.cancelled:
        fn(*args)


class SimExecutor:
    """Stands in for a thread pool; work goes to the loop of the member that runs now."""

    current: NodeLoop | None = None  # set by whoever lets a member run

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, work: Fn, *args: Any) -> SimFuture:
        loop = SimExecutor.current
        assert loop is not None, "work for a thread comes from a member"
        return loop.run_in_executor(self, work, *args)

    def shutdown(self, wait: bool = True) -> None:
        return
