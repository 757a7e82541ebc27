"""How fast a history is read for an install, judged by what the writes of its leader suffer.

The thread that reads holds the interpreter while it works. A write meets it several times on its
way, and waits each time until the thread lets go: so the thread works in slices, each shorter than
a write takes, and rests behind each. How long a slice is bounds what one write can lose; the share
of its time that the thread works says how many writes lose something. The share moves: it shrinks
while syncs and the loop's timers take clearly longer than before the install, and grows again while
they do not; far when nobody writes. What is read also says how fast the receiver works and writes
to its disk. The share has a floor, so every install ends; and as the log that is held for it nears
its bound, the reader rests less and in the end not at all: an install that fails there was for
nothing, and the next one meets the same writes.

Not here: when there is something to read (``install_sender``), reading (``storage.snapshot``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from configsvc import limits

_QUIET_WEIGHT: Final = 0.2  # of the newest look, in what is known of quiet times
_SHRINK: Final = 0.75  # the share's factor after a look at which writes suffered
_GROW: Final = 1.1  # after one at which they did not


class Pace:
    """One member's, on the loop: ``note`` at every tick, installs or not."""

    def __init__(self, tick: float) -> None:
        """``tick``: seconds that should lie between two calls of ``note``."""
        self.share = limits.INSTALL_SHARE_BUSY  # of its time the reader works; any thread reads it
        self.quiet_s: float | None = None  # sync and lateness while nothing was read; None: unknown
        self._chosen = self.share  # by what writes suffer; the log may ask for more
        self._tick = tick
        self._before: float | None = None
        self._looked = 0.0
        self._frames = 0
        self._reading = False
        self._syncs: list[float] = []
        self._late: list[float] = []

    def note(
        self, now: float, frames: int, sync_s: float, *, reading: bool, log_bytes: int = 0
    ) -> None:
        """What can be seen at one tick.

        Args:
            now: of the monotonic clock.
            frames: written to the log since the start; one more: ``sync_s`` is news.
            sync_s: how long the newest of them took, in seconds.
            reading: whether an install is under way.
            log_bytes: of the log that is kept.
        """
        if reading != self._reading:
            self._reading = reading
            self._chosen = limits.INSTALL_SHARE_BUSY
            self._forget(now)
        if self._before is not None:
            self._late.append(max(0.0, now - self._before - self._tick))
        self._before = now
        if frames != self._frames:
            self._frames = frames
            self._syncs.append(sync_s)
        if now - self._looked >= limits.INSTALL_LOOK_S:
            self._look()
            self._forget(now)
        self.share = max(self._chosen, urgency(log_bytes))

    def _forget(self, now: float) -> None:
        self._looked = now
        self._syncs.clear()
        self._late.clear()

    def _look(self) -> None:
        if not self._syncs:  # nobody writes: nobody suffers, and nothing is learnt
            if self._reading:
                self._move(_GROW, limits.INSTALL_SHARE_MAX)
            return
        seen = _mean(self._syncs) + _mean(self._late)
        quiet = self.quiet_s
        if not self._reading:
            self.quiet_s = seen if quiet is None else quiet + _QUIET_WEIGHT * (seen - quiet)
        elif quiet is not None:
            suffers = seen > limits.INSTALL_SUFFER_MAX * quiet + limits.INSTALL_SUFFER_S
            self._move(_SHRINK if suffers else _GROW, limits.INSTALL_SHARE_BUSY)
        else:
            self._move(1.0, limits.INSTALL_SHARE_BUSY)

    def _move(self, factor: float, most: float) -> None:
        self._chosen = min(max(self._chosen * factor, limits.INSTALL_SHARE_MIN), most)


class Breath:
    """One install's, in the thread that reads: call it after every few records.

    What counts is the thread's own CPU time: on a busy machine, and while it waits for the disk or
    for the interpreter, it takes nothing from the loop.
    """

    def __init__(
        self,
        pace: Pace,
        *,
        worked: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``worked``: seconds of CPU that the calling thread has used so far."""
        self._pace = pace
        self._worked = worked
        self._sleep = sleep
        self._began: float | None = None  # unknown before the first call in the thread

    def __call__(self) -> None:
        """Rest, if a slice of work is over: the longer, the longer it was."""
        now = self._worked()
        slice_s = 0.0 if self._began is None else now - self._began
        if slice_s >= limits.INSTALL_SLICE_S:
            rest = slice_s * (1 / self._pace.share - 1)
            self._sleep(min(rest, limits.INSTALL_REST_S_MAX))
        if slice_s >= limits.INSTALL_SLICE_S or self._began is None:
            self._began = now


def urgency(log_bytes: int) -> float:
    """The least share, 0 to 1, while so much of the log is kept."""
    low, high = limits.INSTALL_LOG_CALM_BYTES, limits.INSTALL_LOG_URGENT_BYTES
    return min(max((log_bytes - low) / (high - low), 0.0), 1.0)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
