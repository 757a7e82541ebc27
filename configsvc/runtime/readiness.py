"""Whether a member serves: told to whoever asked to be told.

Always true: nothing is served before the state that judges it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Readiness:
    """Not ready at first; ``set`` tells every change once to every watcher."""

    def __init__(self) -> None:
        self.now = False
        self._watchers: dict[Any, Callable[[], None]] = {}

    def set(self, value: bool) -> None:
        if self.now != value:
            self.now = value
            for tell in list(self._watchers.values()):
                tell()

    def watch(self, owner: Any, tell: Callable[[], None]) -> None:
        """Call ``tell`` after every change, until ``forget(owner)``."""
        self._watchers[owner] = tell

    def forget(self, owner: Any) -> None:
        self._watchers.pop(owner, None)
