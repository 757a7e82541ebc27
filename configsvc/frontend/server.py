"""The front end as the composition root sees it: listen, drain, stop.

``Frontend`` owns the listeners and what they share: admission counts, the sweeper, the calendar of
ages, and who has something to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from collections import Counter
from collections.abc import Callable

from configsvc.api.contract import ApiTable, ConnectionIdentity, HttpApp
from configsvc.api.traffic import ClientTraffic
from configsvc.errors import StoppedError
from configsvc.frontend.admission import Admission
from configsvc.frontend.ages import Ages, Calendar
from configsvc.frontend.connection import ClientConnection
from configsvc.frontend.listener import Listener
from configsvc.frontend.refusals import Refusals, Refused
from configsvc.frontend.shared import Refuse, Shared, UnknownMethod
from configsvc.frontend.sweeper import Sweeper
from configsvc.limits import DRAIN_NOTICE_S, HTTP2_STREAMS_MAX
from configsvc.net.gathering import Gathering
from configsvc.net.sockets import bind
from configsvc.runtime.slices import Slices


class Frontend:
    """All client listeners of a member. Create it on the running loop."""

    def __init__(
        self,
        api: ApiTable,
        http: HttpApp | None,
        *,
        max_streams: int = HTTP2_STREAMS_MAX,
        on_refused: Refused | None = None,
        refused_counts: Counter[str] | None = None,
        on_unknown_method: UnknownMethod | None = None,
        refuse: Refuse | None = None,
        traffic: ClientTraffic | None = None,
        ages: Ages | None = None,
        slices: Slices | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            api: Methods, identities and statuses.
            http: Answers what is not gRPC; None answers 404.
            max_streams: Per connection.
            on_refused: ``(peer_ip, reason)`` of every peer that is cut off.
            refused_counts: Where they are counted by kind (``refusals``); None: nobody looks.
            on_unknown_method: The identity of every call of a method that does not exist.
            refuse: Tells a refused gRPC call its status once that is recorded; None: at once.
            traffic: Where bytes of HTTP/2 are counted; None: nobody looks.
            ages: How long connections may last; None: as ``limits`` has it.
            slices: Where large answers stand in line; None: in a line of their own.
        """
        loop = asyncio.get_running_loop()
        self.admission = Admission()
        self.listeners: list[Listener] = []
        self._api = api
        self._http = http
        self._loop = loop
        self._max_streams = max_streams
        self._refusals = Refusals(loop.time, on_refused, refused_counts)
        self._on_unknown_method = on_unknown_method
        self._refuse = refuse
        self._traffic = traffic
        self.answers = Gathering(loop)  # corked by whoever completes many calls at once
        self._bulk = Slices(loop) if slices is None else slices  # an empty line is false
        self._sweeper = Sweeper(loop)
        self._calendar = Calendar(loop, ages or Ages())

    def listen(
        self,
        host: str,
        port: int,
        *,
        tls: Callable[[], ssl.SSLContext] | None,
        serves_grpc: bool = True,
        serves_http: bool = True,
        http: HttpApp | None = None,
    ) -> Listener:
        """Open one listener.

        Args:
            host: Address to bind; of a name, all addresses (P14).
            port: 0 lets the system choose, see ``Listener.address``.
            tls: Gives the context for the next connection (``net.contexts``), so that a reload
                counts for new ones; None is plaintext, which only ``--insecure-dev`` may ask for.
            serves_grpc: False for ``--listen-client-http-urls`` and ``--listen-metrics-urls``.
            serves_http: False when another listener takes HTTP off this one.
            http: Answers what is not gRPC here; None is the application of all listeners.

        Raises:
            OSError: the address cannot be bound.
        """
        shared = Shared(
            self._api,
            (http or self._http) if serves_http else None,
            self._loop.time,
            max_streams=self._max_streams,
            serves_grpc=serves_grpc,
            admission=self.admission,
            on_unknown_method=self._on_unknown_method,
            refuse=self._refuse,
            traffic=self._traffic,
        )
        listener = Listener(
            bind(host, port),
            shared,
            self.answers,
            self._sweeper,
            self._calendar,
            tls,
            self._refusals,
            self._bulk,
        )
        self.listeners.append(listener)
        return listener

    @property
    def connection_count(self) -> int:
        """Open connections of all listeners."""
        return sum(len(listener.connections) for listener in self.listeners)

    def disconnect(self, which: Callable[[ConnectionIdentity], bool]) -> int:
        """End the connections whose identity ``which`` picks; returns how many.

        For identities that were denied and trust that was withdrawn: streams end with "server
        stopped", waiting calls still get their answers. A handshake that is under way goes by the
        trust of before: ``which`` is asked again when it says whose it is.
        """
        for listener in self.listeners:
            for connection in listener.young():
                connection.doubt(which)
        picked = [each for each in self._connections() if each.is_of(which)]
        for connection in picked:
            connection.drain()
            connection.finish_drain(StoppedError())
        return len(picked)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing new, finish what is there, close; within ``grace_s`` seconds.

        Peers are told to go elsewhere, streams end with "server stopped", unary calls get their
        answers as long as the time lasts.
        """
        for listener in self.listeners:
            listener.close()
        for connection in self._connections():
            connection.drain()
        deadline = self._loop.time() + grace_s
        await self._wait_until_gone(min(self._loop.time() + DRAIN_NOTICE_S, deadline))
        for connection in self._connections():
            connection.finish_drain(StoppedError())
        await self._wait_until_gone(deadline)
        for connection in self._connections():
            connection.abort()
        self._sweeper.stop()
        self._calendar.stop()
        await asyncio.sleep(0)

    def _connections(self) -> list[ClientConnection]:
        return [each for listener in self.listeners for each in listener.connections]

    async def _wait_until_gone(self, deadline: float) -> None:
        while self._connections() and self._loop.time() < deadline:
            await asyncio.sleep(0.01)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one (LIM-3); returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
