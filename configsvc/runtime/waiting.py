"""A slot for an answer that is not there yet, completed in bulk by the runtime."""

from __future__ import annotations

from collections.abc import Callable

from configsvc.errors import ConfigServiceError

Finish = Callable[["bytes | ConfigServiceError"], None]


class Waiting:
    """An answer that is not there yet.

    The adapter calls ``bind`` exactly once, right after the handler returned. If the result is
    already there ``bind`` calls ``finish`` at once. The runtime calls ``complete`` exactly once;
    after ``cancel`` nothing is delivered any more (a write may still happen: its outcome is
    simply not told).
    """

    __slots__ = ("_finish", "_result", "cancelled")

    def __init__(self) -> None:
        self._finish: Finish | None = None
        self._result: bytes | ConfigServiceError | None = None
        self.cancelled = False

    def bind(self, finish: Finish) -> None:
        """Name who gets the result."""
        self._finish = finish
        if self._result is not None and not self.cancelled:
            finish(self._result)

    def complete(self, result: bytes | ConfigServiceError) -> None:
        """Deliver; called by the runtime on the event loop."""
        if self._result is not None:
            return
        self._result = result
        if self._finish is not None and not self.cancelled:
            self._finish(result)

    def cancel(self) -> None:
        """The caller went away or ran out of time."""
        self.cancelled = True

    @property
    def done(self) -> bool:
        """Whether a result was delivered or nobody wants it."""
        return self._result is not None or self.cancelled
