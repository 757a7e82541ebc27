"""Progress of long work, on standard error: in place on a terminal, else now and then a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

_TERMINAL_EVERY_S: Final = 0.2
_LINE_EVERY_S: Final = 5.0


class Progress:
    """``step`` as often as one likes; it prints when it is time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live = sys.stderr.isatty()
        self._began = self._printed = clock()
        self._open = False  # a line without its end is on the terminal

    def step(self, text: Callable[[float], str]) -> None:
        """``text`` gets the seconds since the beginning, and is called only to print."""
        now = self._clock()
        if now - self._printed < (_TERMINAL_EVERY_S if self._live else _LINE_EVERY_S):
            return
        self._printed = now
        line = text(now - self._began)
        if self._live:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False


def counted(done: int, total: int, what: str, seconds: float) -> str:
    """``12,000 of 40,000 keys copied, 3,100/s``; a total of 0 is not shown."""
    of = f" of {total:,}" if total else ""
    return f"{done:,}{of} {what}, {done / max(seconds, 0.001):,.0f}/s"
