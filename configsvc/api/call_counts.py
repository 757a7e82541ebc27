"""Calls of one method, counted where they begin and end; read when a scrape comes.

Whoever carries calls (``frontend``, ``gateway``) counts: each call that began ends exactly once,
with the status that its client was told, or as cancelled if the client left before. What is turned
away before its method is known to be called (a message too large or cut short) counts nowhere.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
CODES: Final = 17  # of gRPC, OK included


class CallCounts:
    """Plain numbers: a call costs two additions."""

    __slots__ = ("handled", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.handled = [0] * CODES  # calls that ended, by their code
        self.received = 0  # messages on streams; a unary call has one of each
        self.sent = 0


UNCOUNTED: Final = CallCounts()  # of paths that name no method; nobody reads it
