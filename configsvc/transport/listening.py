"""The peer port: accepts connections, and says which of them have no transport yet.

We accept ourselves instead of through ``create_server``: asyncio forgets a socket that it has
accepted but not wrapped yet when its server is closed, and the peer would wait for an end that
never comes.

Not here: what becomes of a connection (``transport.connection``), binding (``net.sockets``).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from configsvc.limits import ACCEPT_PAUSE_S, ACCEPTS_PER_PASS_MAX
from configsvc.net.sockets import accepted
from configsvc.transport.ports import Report


class PeerListener:
    """The sockets of one URL; they accept from the start."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socks: Sequence[socket.socket],
        make: Callable[[], asyncio.Protocol],
        report: Report,
    ) -> None:
        """``make``: the protocol of the next connection. ``report``: log lines."""
        self._loop = loop
        self._socks = tuple(socks)
        self._make = make
        self._report = report
        self._complained = False
        self._arriving: set[asyncio.Task[None]] = set()  # no transport yet
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the port that the system chose for port 0."""
        names = [sock.getsockname() for sock in self._socks]
        return [(str(name[0]), int(name[1])) for name in names]

    def close(self) -> set[asyncio.Task[None]]:
        """Accept no more. The tasks give their connection a transport, each within a few turns."""
        if self._pause is not None:
            self._pause.cancel()
        for sock in self._socks:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        return set(self._arriving)

    def _resume(self) -> None:
        self._pause = None
        for sock in self._socks:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _rest(self) -> None:
        """Out of descriptors: look away for a moment, the backlog waits in the kernel (N37)."""
        if not self._complained:
            self._complained = True
            self._report.warn("transport", "out of file descriptors: new connections wait")
        for sock in self._socks:
            self._loop.remove_reader(sock.fileno())
        if self._pause is None:
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)

    def _accept(self, listening: socket.socket) -> None:
        for sock, _ in accepted(listening, ACCEPTS_PER_PASS_MAX, self._rest):
            self._complained = False
            task = self._loop.create_task(self._attach(sock))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _attach(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError:
            sock.close()
