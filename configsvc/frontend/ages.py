"""How long a connection may last (LIM-15): idle ones and old ones are asked to come back.

Asked, not cut off: the peer hears a GOAWAY, what it began is finished, and its next call opens a
connection, perhaps to another member. **Streams that are open run on for as long as they like**,
and their connection with them, serving nothing new. A watch that were cut off would be resumed by
etcd's clients, but a quiet one from a revision that may be compacted by then; Lock, Observe and
Snapshot would not be resumed at all. Nor is an end of streams needed for safety: certificates are
judged with every request, and streams of a denied identity are ended at once (``server``).

Connections are looked at a few times per idle period, in slots of some seconds; nothing is done
per request and there is no timer per connection. Ages differ by chance, so that clients which
came together do not go together.

Always true: a connection is in one slot, until it was told everything or is gone.

Not here: what a GOAWAY is (``http2``), deadlines of handshakes and calls (``sweeper``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from configsvc.limits import (
    CONNECTION_AGE_JITTER,
    CONNECTION_AGE_S_MAX,
    CONNECTION_AGE_SLOT_S,
    CONNECTION_IDLE_S_MAX,
    DRAIN_NOTICE_S,
)

_LOOKS_PER_IDLE: Final = 4  # so idle connections last up to a quarter longer than they may


class Ages(NamedTuple):
    """What a connection is allowed, in seconds."""

    idle_s: float = CONNECTION_IDLE_S_MAX  # without a call or an open stream
    age_s: float = CONNECTION_AGE_S_MAX  # of all; each connection's own is up to a tenth off
    slot_s: float = CONNECTION_AGE_SLOT_S  # how late a look may be


class Ageing(Protocol):
    """A connection, as far as its age matters."""

    @property
    def activity(self) -> int | None:
        """A number that changes with every request; None while something is open."""

    def drain(self) -> None:
        """Begin a graceful end."""

    def finish_drain(self) -> None:
        """Do not wait any longer for the peer to hear of it."""


class _Life:
    """What is known of one connection."""

    __slots__ = ("active_at", "activity", "leaves_at", "slot", "told")

    def __init__(self, now: float, leaves_at: float) -> None:
        self.leaves_at = leaves_at
        self.activity: int | None = None
        self.active_at = now  # when its activity was last seen to be another one
        self.told = False  # drain has begun
        self.slot = 0


class Calendar:
    """Which connection is to be looked at when."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ages: Ages,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``chance`` gives numbers from 0 to 1; it spreads the ends of connections."""
        self._loop = loop
        self._ages = ages
        self._chance = chance
        self._lives: dict[Ageing, _Life] = {}
        self._slots: dict[int, dict[Ageing, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def joined(self, connection: Ageing) -> None:
        """A connection was accepted."""
        now = self._loop.time()
        spread = 1.0 + CONNECTION_AGE_JITTER * (2.0 * self._chance() - 1.0)
        life = self._lives[connection] = _Life(now, now + self._ages.age_s * spread)
        self._look_later(connection, life, now)
        if self._timer is None:
            self._timer = self._loop.call_later(self._ages.slot_s, self._tick)

    def left(self, connection: Ageing) -> None:
        """It is gone, or has been told everything."""
        life = self._lives.pop(connection, None)
        if life is not None:
            slot = self._slots[life.slot]
            del slot[connection]
            if not slot:
                del self._slots[life.slot]

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, now: float) -> None:
        """Look at everybody whose slot has come."""
        reached = int(now / self._ages.slot_s)
        for number in sorted(each for each in self._slots if each <= reached):
            for connection in list(self._slots.get(number, ())):
                self._judge(connection, now)

    # --- inside ----------------------------------------------------------------------------------

    def _judge(self, connection: Ageing, now: float) -> None:
        life = self._lives.get(connection)
        if life is None:
            return  # another one's end was its end
        self.left(connection)
        if life.told:
            connection.finish_drain()
            return
        activity = connection.activity
        if activity is None or activity != life.activity:
            life.activity, life.active_at = activity, now
        life.told = now >= life.leaves_at or now - life.active_at >= self._ages.idle_s
        self._lives[connection] = life
        self._look_later(connection, life, now)
        if life.told:
            connection.drain()

    def _look_later(self, connection: Ageing, life: _Life, now: float) -> None:
        at = now + self._ages.idle_s / _LOOKS_PER_IDLE
        at = now + DRAIN_NOTICE_S if life.told else min(at, life.leaves_at)
        life.slot = int(at / self._ages.slot_s) + 1  # the first that is not too early
        self._slots.setdefault(life.slot, {})[connection] = None

    def _tick(self) -> None:
        self._timer = None
        self.look(self._loop.time())
        if self._lives:
            self._timer = self._loop.call_later(self._ages.slot_s, self._tick)
