"""The sync client's channels: one per endpoint, replaced as a whole for new TLS files (PKI-16).

Always true: a retired set is closed when the last call that borrowed from it has ended, and not
before; whoever holds a long stream is told to move.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from configsvc.client.endpoints import Endpoint


class ChannelSet:
    """Channels made with the same TLS files. Safe to use from several threads."""

    def __init__(self, open_channel: Callable[[Endpoint], grpc.Channel]) -> None:
        self._open = open_channel
        self._channels: dict[Endpoint, grpc.Channel] = {}
        self._users = 0
        self._movers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self.retired = False

    @contextmanager
    def borrow(
        self, endpoint: Endpoint, on_retire: Callable[[], None] | None = None
    ) -> Iterator[grpc.Channel]:
        """Use a channel; ``on_retire`` is called when the set gets retired meanwhile.

        Raises:
            EndpointError: the channel cannot be made (TLS files).
        """
        with self._lock:
            channel = self._channels.get(endpoint)
            if channel is None:
                channel = self._channels[endpoint] = self._open(endpoint)
            self._users += 1
            if on_retire is not None:
                self._movers.add(on_retire)
        try:
            yield channel
        finally:
            with self._lock:
                self._users -= 1
                if on_retire is not None:
                    self._movers.discard(on_retire)
            self._close_if_done()

    @property
    def users(self) -> int:
        """How many calls and streams hold a channel now."""
        return self._users

    def retire(self) -> None:
        """Take no new work into account; close as soon as nobody uses the set."""
        with self._lock:
            self.retired = True
            movers = list(self._movers)
        for move in movers:
            move()
        self._close_if_done()

    def close(self) -> None:
        """Close at once: calls in flight end as cancelled."""
        with self._lock:
            self.retired = True
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def _close_if_done(self) -> None:
        with self._lock:
            done = self.retired and not self._users
        if done:
            self.close()
