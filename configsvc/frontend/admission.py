"""Counts that span connections: how many there are, of whom, and what they hold.

All on the event loop, no locks. What happens at each bound is said in ``limits``.
"""

from __future__ import annotations

from configsvc.limits import (
    CONNECTIONS_PER_IDENTITY_MAX,
    IDENTITY_IN_BYTES_MAX,
    MEMBER_IN_BYTES_MAX,
    STREAMS_MAX,
    STREAMS_PER_IDENTITY_MAX,
    UNARY_IN_FLIGHT_MAX,
    UNARY_PER_IDENTITY_MAX,
)


class Tally:
    """What one identity uses at this moment. Without an identity only the sums count."""

    __slots__ = ("connections", "in_bytes", "key", "streams", "unary")

    def __init__(self, key: str) -> None:
        self.key = key
        self.connections = 0
        self.in_bytes = 0  # its part of ``Admission.in_bytes``
        self.streams = 0
        self.unary = 0


class Admission:
    """The sums over all listeners of a member."""

    def __init__(self) -> None:
        self.unary = 0  # unary calls that wait for their answer
        self.streams = 0  # gRPC streams that run
        self.in_bytes = 0  # incomplete messages and requests, all connections
        self._tallies: dict[str, Tally] = {}

    def join(self, key: str) -> Tally | None:
        """Count a connection of ``key``; None when that identity has too many already."""
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally(key)
        if key and tally.connections >= CONNECTIONS_PER_IDENTITY_MAX:
            return None
        tally.connections += 1
        return tally

    def leave(self, tally: Tally) -> None:
        """A counted connection is gone."""
        tally.connections -= 1
        if not tally.connections:
            self._tallies.pop(tally.key, None)

    def full(self, tally: Tally) -> bool:
        """Whether one more unary call of ``tally`` is too much."""
        if self.unary >= UNARY_IN_FLIGHT_MAX:
            return True
        return tally.unary >= UNARY_PER_IDENTITY_MAX and tally.key != ""

    def run_stream(self, tally: Tally, change: int) -> None:
        """``tally`` runs a stream more, or one fewer."""
        tally.streams += change
        self.streams += change

    def overrun(self, tally: Tally) -> bool:
        """Whether more streams run, all or of ``tally``, than may."""
        if self.streams > STREAMS_MAX:
            return True
        return tally.streams > STREAMS_PER_IDENTITY_MAX and tally.key != ""

    def hold(self, tally: Tally, change: int) -> None:
        """``tally`` keeps so many bytes more, or fewer, of incomplete messages."""
        tally.in_bytes += change
        self.in_bytes += change

    def crowded(self, tally: Tally, more: int = 0) -> bool:
        """Whether incomplete messages, with ``more`` bytes of ``tally``, take too much memory."""
        if self.in_bytes + more > MEMBER_IN_BYTES_MAX:
            return True
        return tally.in_bytes + more > IDENTITY_IN_BYTES_MAX and tally.key != ""
