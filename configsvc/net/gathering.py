"""When connections write: once per pass of the member, or at the end of the loop's turn.

Links to other members and client connections gather here, each in a ``Gathering`` of its own: peers
are written to before clients. A member that runs a pass corks both, so that nothing is scheduled
for what the pass sends; the pass itself says when the others should have it.

Always true: a turn of the loop is asked for at most once, and finds nothing when a pass came first.

Not here: what waits on one connection (``transport.outbox``, ``http2.outbox``).
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Full(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write it."""


class Gathering:
    """The connections that have something to write."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._full: list[Full] = []
        self._corked = False
        self._scheduled = False

    def add(self, connection: Full) -> None:
        """``connection`` has something to write; it says so once until it is flushed."""
        self._full.append(connection)
        if not self._corked and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn_ends)

    def cork(self) -> None:
        """The caller promises to ``uncork`` before it gives the loop back."""
        self._corked = True

    def uncork(self) -> None:
        """Write what gathered since."""
        self._corked = False
        if self._full:
            self.flush()

    def flush(self) -> None:
        """One write for each connection that has something to write."""
        full, self._full = self._full, []
        for connection in full:
            connection.flush()

    def _turn_ends(self) -> None:
        self._scheduled = False
        self.flush()
