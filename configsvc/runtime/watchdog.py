"""A thread that watches the event loop (H1).

The loop stamps a cell; the thread looks at it. A stall is counted in the thread's own wake-ups, so
that a pause of the whole process is none. What the loop was doing is sampled early, before it is
known whether the stall is worth a line: that it is long is seen only when its cause may be over.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from configsvc.errors import ExitCode, FatalError

WAKE_S: Final = 0.05
SAMPLE_WAKES: Final = 2  # silent for 100 ms: counted, and its stack is kept
REPORT_WAKES: Final = 4  # for 200 ms: say what it did
FATAL_TIMEOUTS: Final = 10


class Watchdog:
    """Ends the process when the loop is silent for ten election timeouts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        report: Any,
        die: Callable[[FatalError], None],
        election_timeout: float,
    ) -> None:
        self._loop = loop
        self._report = report
        self._die = die
        self._stalled_wakes = max(REPORT_WAKES + 1, round(election_timeout / 2 / WAKE_S))
        self._fatal_wakes = max(
            self._stalled_wakes + 1, round(FATAL_TIMEOUTS * election_timeout / WAKE_S)
        )
        self._beat = 0
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.stalls_total = 0
        self.stalled_total = 0  # of these, those of half an election timeout
        self.stalled = False  # silent for half an election timeout, and still so

    def start(self) -> None:
        self._stamp()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _stamp(self) -> None:
        self._beat += 1
        if not self._stopped.is_set():
            self._loop.call_later(WAKE_S, self._stamp)

    def _watch(self) -> None:
        seen, silent, sample = -1, 0, ""
        while not self._stopped.wait(WAKE_S):
            if self._beat != seen:
                seen, silent, self.stalled = self._beat, 0, False
                continue
            silent += 1
            if silent == SAMPLE_WAKES:
                self.stalls_total += 1
                sample = self._stack()
            elif silent == REPORT_WAKES:
                self._report.warn("watchdog", "the event loop is busy", stack=sample)
            elif silent == self._stalled_wakes:
                self.stalled_total += 1
                self.stalled = True
                self._report.error("watchdog", "the event loop is stalled", stack=self._stack())
            elif silent >= self._fatal_wakes:
                self._report.error("watchdog", "the event loop is stuck", stack=self._stack())
                self._die(
                    FatalError(
                        ExitCode.STALLED, "the event loop is stuck", "the stack is in the log"
                    )
                )

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        parts: list[str] = []
        while frame is not None and len(parts) < 8:
            code = frame.f_code
            parts.append(f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        return " < ".join(parts)
