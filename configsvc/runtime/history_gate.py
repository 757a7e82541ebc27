"""Questions about the past, asked off the loop and answered on it.

SQL is written behind the answer of a write. A question therefore names the index it must see; it
waits until the writer has passed it, then runs on a reader thread. One thread hop per question,
never per row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from configsvc.errors import (
    ConfigServiceError,
    CorruptError,
    InternalFailureError,
    OverloadedError,
)
from configsvc.runtime.waiting import Answer, Waiting, answered
from configsvc.storage.seal.errors import SealBroken

QUESTIONS_MAX: Final = 1_000  # waiting and running; OverloadedError beyond

R = TypeVar("R")


class HistoryGate:
    """Runs functions of the history reader once SQL holds what they must see."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        report: Callable[[BaseException], str],
        on_damage: Callable[[SealBroken], None],
    ) -> None:
        self._loop = loop
        self._executor = executor
        self._on_damage = on_damage  # a stored row is not what was written (FC-9)
        self._report = report  # logs an unexpected failure, gives the id for the client
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._running = 0
        self.written = 0
        self.hurry: Callable[[], None] = _nobody  # tells the writer that somebody waits

    def ask(self, index: int, question: Callable[[], R], answer: Callable[[R], Answer]) -> Waiting:
        """Run ``question`` on a reader thread when SQL holds ``index``; encode on the loop.

        Raises:
            OverloadedError: QUESTIONS_MAX wait or run already.
        """
        waiting = Waiting()
        self.run(index, question, lambda result: self._deliver(waiting, result, answer))
        return waiting

    def run(
        self, index: int, question: Callable[[], R], done: Callable[[R | ConfigServiceError], None]
    ) -> None:
        """As ``ask``, with the result itself handed to ``done`` on the loop."""
        if self._running + len(self._waiting) >= QUESTIONS_MAX:
            raise OverloadedError

        def start() -> None:
            self._running += 1
            future = self._loop.run_in_executor(self._executor, question)
            future.add_done_callback(finish)

        def finish(future: asyncio.Future[R]) -> None:
            self._running -= 1
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                done(future.result())
            elif isinstance(error, SealBroken):
                self._on_damage(error)
                done(CorruptError())
            elif isinstance(error, ConfigServiceError):
                done(error)
            else:
                done(InternalFailureError(f"internal error, id={self._report(error)}"))

        if index <= self.written:
            start()
        else:
            self._waiting.append((index, start))
            self.hurry()

    def on_written(self, index: int) -> None:
        """SQL holds everything up to ``index`` now."""
        self.written = index
        if not self._waiting:
            return
        ready = [start for at, start in self._waiting if at <= index]
        self._waiting = [(at, start) for at, start in self._waiting if at > index]
        for start in ready:
            start()

    def _deliver(
        self, waiting: Waiting, result: R | ConfigServiceError, answer: Callable[[R], Answer]
    ) -> None:
        if waiting.cancelled:
            return
        if not isinstance(result, ConfigServiceError):
            waiting.complete(answered(self._report, answer, result))
        else:
            waiting.complete(result)


def _nobody() -> None:
    """No writer is told."""
