"""One timer for all connections.

A timer per call or connection would cost more than the calls. The sweeper looks, four times a
second, at the connections that asked for it: young ones (handshake, first request) and watched
ones (deadlines, output that waits). Idle connections cost nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from configsvc.limits import MEMBER_OUT_BYTES_MAX

if TYPE_CHECKING:
    from configsvc.frontend.connection import ClientConnection

SWEEP_SECONDS: Final = 0.25
_RELIEF: Final = 7 / 8


class Sweeper:
    """Deadlines of connections and of their calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # In the order of their deadlines: every phase of youth lasts equally long.
        self._young: dict[ClientConnection, None] = {}
        self._young_of: Counter[str] = Counter()  # by address
        self._watched: dict[ClientConnection, None] = {}
        self._unsent = 0  # the sum over all connections
        self._timer: asyncio.TimerHandle | None = None

    def young(self, connection: ClientConnection, deadline: float) -> None:
        """Give ``connection`` until ``deadline`` to get on."""
        self.grown(connection)
        self._young[connection] = None
        self._young_of[connection.peer_ip] += 1
        connection.deadline = deadline
        self._start()

    def grown(self, connection: ClientConnection) -> None:
        """It has got on, or it is gone."""
        if connection in self._young:
            del self._young[connection]
            self._young_of[connection.peer_ip] -= 1
            if not self._young_of[connection.peer_ip]:
                del self._young_of[connection.peer_ip]
        connection.deadline = None

    def young_of(self, peer_ip: str) -> int:
        """How many unfinished connections one address has."""
        return self._young_of[peer_ip]

    def watch(self, connection: ClientConnection) -> None:
        """Ask it in every sweep, until it says no."""
        self._watched[connection] = None
        self._start()

    def forget(self, connection: ClientConnection) -> None:
        """It is closed."""
        self.grown(connection)
        self._watched.pop(connection, None)
        self._unsent -= connection.unsent
        connection.unsent = 0

    def oldest_young(self, peer_ip: str | None = None) -> ClientConnection | None:
        """The unfinished connection (of one address) that has waited longest."""
        for connection in self._young:
            if peer_ip is None or connection.peer_ip == peer_ip:
                return connection
        return None

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self, now: float) -> None:
        """Look at everybody once."""
        overdue = []
        for connection in self._young:
            if connection.deadline is not None and connection.deadline > now:
                break
            overdue.append(connection)
        for connection in overdue:
            self.grown(connection)
            connection.overdue()
        for connection in list(self._watched):
            if not connection.sweep(now):
                self._watched.pop(connection, None)

    def count_unsent(self, connection: ClientConnection, unsent: int) -> None:
        """So many bytes of answers wait for a watched connection; beyond the bound some go."""
        self._unsent += unsent - connection.unsent
        connection.unsent = unsent
        if self._unsent > MEMBER_OUT_BYTES_MAX:
            self._relieve(self._unsent - MEMBER_OUT_BYTES_MAX * _RELIEF)

    def _relieve(self, excess: float) -> None:
        """Give up answers that nobody reads: the most of whoever has most of them.

        By identity, so that many connections of one peer do not cost a single one of another.
        Some more than must be, so that the next answer does not ask for it again.
        """
        held: Counter[str] = Counter()
        of: dict[str, list[ClientConnection]] = {}
        for connection in sorted(self._watched, key=lambda each: each.unsent):
            held[connection.key] += connection.unsent
            of.setdefault(connection.key, []).append(connection)
        while excess > 0 and held.total():
            ((key, _),) = held.most_common(1)
            connection = of[key].pop()
            unsent = connection.unsent
            held[key] -= unsent
            excess -= unsent
            connection.sacrifice()

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.sweep(self._loop.time())
        if self._young or self._watched:
            self._start()
