"""A slot for an answer that is not there yet, completed in bulk by the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from configsvc.errors import ConfigServiceError, InternalFailureError, InvariantViolationError

R = TypeVar("R")


class Pieces:
    """A very long encoded answer that nobody has put together.

    One after the other the parts are the message; each alone is a message of the same type, with
    some of the fields, in the order of their numbers.

    Who is handed them and needs time to make something else of them says ``keep``, and ``release``
    when they are done with; until then whoever made them takes them for unfinished.
    """

    __slots__ = ("_kept", "_then", "parts", "size")

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.parts = parts
        self.size = sum(map(len, parts))  # bytes of all
        self._kept = False
        self._then: Callable[[], None] | None = None

    def keep(self) -> None:
        """Work on them goes on."""
        self._kept = True

    def release(self) -> None:
        """It is over; safe to call twice."""
        self._kept = False
        then, self._then = self._then, None
        if then is not None:
            then()

    def when_released(self, then: Callable[[], None]) -> None:
        """Call ``then`` once nobody keeps them."""
        if self._kept:
            self._then = then
        else:
            then()

    def whole(self) -> bytes:
        """The message in one piece."""
        return b"".join(self.parts)


Answer = bytes | Pieces
Finish = Callable[["bytes | ConfigServiceError"], None]
FinishPieces = Callable[["Answer | ConfigServiceError"], None]


class Waiting:
    """An answer that is not there yet.

    The adapter calls ``bind`` exactly once, right after the handler returned. If the result is
    already there ``bind`` calls ``finish`` at once. The runtime calls ``complete`` exactly once;
    after ``cancel`` nothing is delivered any more (a write may still happen: its outcome is
    simply not told).
    """

    __slots__ = ("_behind", "_finish", "_result", "_whole", "cancelled")

    def __init__(self) -> None:
        self._finish: Any = None
        self._whole = True  # pieces are put together for ``_finish``
        self._result: Answer | ConfigServiceError | None = None
        self._behind: Waiting | None = None
        self.cancelled = False

    def bind(self, finish: Finish) -> None:
        """Name who gets the result."""
        self._finish = finish
        if self._result is not None and not self.cancelled:
            self._deliver(self._result)

    def bind_pieces(self, finish: FinishPieces) -> None:
        """Likewise, for somebody who writes a long answer piece by piece."""
        self._whole = False
        self.bind(cast("Finish", finish))

    def follow(self, other: Waiting) -> None:
        """Have the result of ``other``; who cancels this one cancels it as well."""
        self._behind = other
        if self.cancelled:
            other.cancel()
        other.bind_pieces(self.complete)

    def complete(self, result: Answer | ConfigServiceError) -> None:
        """Deliver; called by the runtime on the event loop."""
        if self._result is not None:
            return
        self._result = result
        if self._finish is not None and not self.cancelled:
            self._deliver(result)

    def cancel(self) -> None:
        """The caller went away or ran out of time."""
        self.cancelled = True
        if self._behind is not None:
            self._behind.cancel()

    def _deliver(self, result: Answer | ConfigServiceError) -> None:
        if self._whole and type(result) is Pieces:
            result = result.whole()
        self._finish(result)

    @property
    def done(self) -> bool:
        """Whether a result was delivered or nobody wants it."""
        return self._result is not None or self.cancelled


def answered(
    report: Callable[[BaseException], str], work: Callable[..., R], *args: Any
) -> R | ConfigServiceError:
    """What ``work`` gives, or what it refused with; a bug in it ends this call and no other.

    ``report`` logs a bug and gives the id for the client.

    Raises:
        InvariantViolationError: this member is not what it must be, and has to end.
    """
    try:
        return work(*args)
    except InvariantViolationError:
        raise
    except ConfigServiceError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the pass it runs in has others to answer
        return InternalFailureError(f"internal error, id={report(error)}")
