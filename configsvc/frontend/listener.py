"""Listening sockets: accepting in slices, bounds on connections, running out of descriptors.

We accept ourselves instead of through ``create_server``: a burst of handshakes must not hold up
the requests of others, and a process without free descriptors must neither spin nor die (N37).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence

from configsvc.frontend.ages import Calendar
from configsvc.frontend.connection import ClientConnection
from configsvc.frontend.refusals import CROWDED, Refusals
from configsvc.frontend.shared import Shared, log
from configsvc.frontend.sweeper import Sweeper
from configsvc.limits import (
    ACCEPT_PAUSE_S,
    ACCEPTS_PER_PASS_MAX,
    CONNECTIONS_MAX,
    DEAD_PEER_SECONDS_MAX,
    HANDSHAKES_PER_ADDRESS_MAX,
)
from configsvc.net.gathering import Gathering
from configsvc.net.shell import TlsConnection
from configsvc.net.sockets import accepted
from configsvc.runtime.slices import Slices


class Listener:
    """The sockets of one URL and the connections that came in through them."""

    def __init__(
        self,
        socks: Sequence[socket.socket],
        shared: Shared,
        gathering: Gathering,
        sweeper: Sweeper,
        calendar: Calendar,
        tls: Callable[[], ssl.SSLContext] | None,
        refusals: Refusals,
        bulk: Slices,
    ) -> None:
        """``tls`` gives the context for the next connection; None is plaintext."""
        self.shared = shared
        self.gathering = gathering
        self.bulk = bulk  # connections with more to write than one write takes
        self.sweeper = sweeper
        self._calendar = calendar
        self.connections: dict[ClientConnection, None] = {}
        self._socks = tuple(socks)
        self._tls = tls
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._arriving: dict[ClientConnection, asyncio.Task[None]] = {}  # no transport yet
        self._pause: asyncio.TimerHandle | None = None
        self._complained = False
        self._resume()

    @property
    def address(self) -> tuple[str, int]:
        """The first of ``addresses``."""
        return self.addresses[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the port that the system chose for port 0."""
        names = [sock.getsockname() for sock in self._socks]
        return [(str(name[0]), int(name[1])) for name in names]

    def young(self) -> list[ClientConnection]:
        """Those of whom TLS has not said yet who they are."""
        return [each for each in (*self._arriving, *self.connections) if each.handshaking]

    def close(self) -> None:
        """Accept no more; connections go on."""
        if self._socks[0].fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        for sock in self._socks:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    # --- told by connections ---------------------------------------------------------------------

    def opened(self, connection: ClientConnection) -> None:
        """A connection has its transport."""
        self._arriving.pop(connection, None)
        self.connections[connection] = None
        self._calendar.joined(connection)

    def closed(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self.connections.pop(connection, None)
        self._calendar.left(connection)
        self.sweeper.forget(connection)

    def refused(self, connection: ClientConnection, kind: str, reason: str) -> None:
        """A peer was cut off; ``kind`` is one of ``refusals``, ``reason`` a constant of ours."""
        self._refusals.refused(kind, connection.peer_ip, reason)

    # --- accepting -------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for sock, address in accepted(listening, ACCEPTS_PER_PASS_MAX, self._rest):
            self._welcome(sock, folded(address[0]))

    def _rest(self) -> None:
        """Out of descriptors: look away for a moment, the backlog waits in the kernel."""
        if not self._complained:
            self._complained = True
            log.warning("out of file descriptors: new connections wait")
        for sock in self._socks:
            self._loop.remove_reader(sock.fileno())
        if self._pause is None:
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        for sock in self._socks:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _welcome(self, sock: socket.socket, peer_ip: str) -> None:
        self._complained = False
        if len(self.connections) + len(self._arriving) >= CONNECTIONS_MAX:
            oldest = self.sweeper.oldest_young()
            self._refusals.refused(CROWDED, peer_ip, "too many connections")
            if oldest is None:
                sock.close()
                return
            oldest.abort()
        if self.sweeper.young_of(peer_ip) >= HANDSHAKES_PER_ADDRESS_MAX:
            oldest = self.sweeper.oldest_young(peer_ip)
            self._refusals.refused(CROWDED, peer_ip, "too many handshakes of one address")
            if oldest is not None:
                oldest.abort()
        _tune(sock)
        tls = None
        if self._tls is not None:
            tls = TlsConnection(self._tls(), server_side=True)
        connection = ClientConnection(self, tls, peer_ip)
        self._arriving[connection] = self._loop.create_task(self._attach(sock, connection))

    async def _attach(self, sock: socket.socket, connection: ClientConnection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:
            self._arriving.pop(connection, None)
            sock.close()


def _tune(sock: socket.socket) -> None:
    """No delay, and let the kernel find out about peers that vanished without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", DEAD_PEER_SECONDS_MAX),
        ("TCP_KEEPINTVL", DEAD_PEER_SECONDS_MAX // 4),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", DEAD_PEER_SECONDS_MAX * 1_000),
    ):
        option = getattr(socket, name, None)  # not every system has them all
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def folded(address: str) -> str:
    """A peer address without scope, IPv4-mapped IPv6 as IPv4 (ID-9); "" when it is none."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)
