"""A unary handler of several steps, written as a generator.

The generator yields what a handler returns, ``bytes`` or a ``Waiting``, and is resumed with the
encoded answer; a refusal is thrown into it. Whoever leaves is noticed between two steps, or at
once during a ``Pause``: ``CanceledError`` is thrown in, so that ``except`` and ``finally`` can
clean up with further steps. Writes that were handed on are always waited for, so that a clean-up
knows what there is to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from configsvc.errors import (
    CanceledError,
    ConfigServiceError,
    InternalFailureError,
    InvariantViolationError,
)
from configsvc.runtime.waiting import Waiting

T = TypeVar("T")
Steps = Generator["bytes | Waiting", bytes, T]


class Pause(Waiting):
    """A step that waits for something which may never come; leaving ends it at once."""

    __slots__ = ()


class Sequence(Waiting):
    """Runs a generator to its end; its return value is the answer.

    Args:
        steps: Not yet started.
        refusal: Turns a refusal into what the caller is told.
        report: Logs an unexpected failure and gives the id for the client.
    """

    __slots__ = ("_refusal", "_report", "_step", "_steps", "_told")

    def __init__(
        self,
        steps: Steps[bytes],
        refusal: Callable[[ConfigServiceError], ConfigServiceError],
        report: Callable[[BaseException], str],
    ) -> None:
        super().__init__()
        self._steps = steps
        self._refusal = refusal
        self._report = report
        self._step: Waiting | None = None
        self._told = False  # the generator knows that nobody waits any more
        self._resume(None)

    def cancel(self) -> None:
        """The caller went away or ran out of time; the generator cleans up."""
        if self.done:
            return
        super().cancel()
        if isinstance(self._step, Pause):
            self._told = True
            self._step.complete(CanceledError())

    def _resume(self, result: bytes | ConfigServiceError | None) -> None:
        """Go on until a step has to be waited for."""
        while True:
            self._step = None
            try:
                step = self._next(result)
            except StopIteration as end:
                self.complete(end.value)
                return
            except InvariantViolationError:
                raise
            except ConfigServiceError as error:
                self.complete(self._refusal(error))
                return
            except Exception as error:  # noqa: BLE001 - a bug ends this call, not the pass it runs in
                text = f"internal error, id={self._report(error)}"
                self.complete(InternalFailureError(text))
                return
            if self.cancelled and not self._told:
                self._told = True
                if isinstance(step, Waiting):
                    step.cancel()
                result = CanceledError()
            elif isinstance(step, bytes):
                result = step
            else:
                self._step = step
                step.bind(self._resume)
                return

    def _next(self, result: bytes | ConfigServiceError | None) -> bytes | Waiting:
        if result is None:
            return next(self._steps)
        if isinstance(result, bytes):
            return self._steps.send(result)
        return self._steps.throw(result)
