"""An event loop's next turn, made by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Turns:
    """What is called soon, and when."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.soon.append(callback)

    def call_later(self, _: float, callback: Callable[[], None], /) -> None:
        """Time does not pass here."""
        self.call_soon(callback)

    def next(self) -> None:
        """The one that waits longest."""
        self.soon.popleft()()

    def all_waiting(self) -> None:
        """Those that wait now, as one pass of a loop does; not what they ask for."""
        for _ in range(len(self.soon)):
            self.next()
