"""Dialling one peer on one lane, again and again, at its advertised URLs (L4, P15).

Back-off doubles with jitter up to a second, starts afresh after a connection that worked, and is
cut short when the peer shows up by dialling us. A renewal opens the next connection while the
last one is still in use (PKI-16).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final

from configsvc.config import split_url
from configsvc.limits import PEER_BACKOFF_MAX_S, PEER_BACKOFF_MIN_S, PEER_DIAL_SECONDS_MAX
from configsvc.net.contexts import ReloadableContext
from configsvc.net.shell import TlsConnection, TlsFailed
from configsvc.transport.connection import PeerConnection

Make = Callable[[TlsConnection | None], PeerConnection]
Failed = Callable[[str], None]  # a constant reason


NOBODY_LISTENS: Final = "nobody listens there"


class Dialler:
    """Keeps one connection to one peer; ``close`` ends it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        urls: Sequence[str],
        context: ReloadableContext | None,
        make: Make,
        failed: Failed,
    ) -> None:
        """``context`` None is plaintext; ``make`` makes the protocol of one attempt."""
        self.urls = tuple(urls)
        self._loop = loop
        self._context = context
        self._make = make
        self._failed = failed
        self._next_url = 0
        self._wake = asyncio.Event()
        self._renew = False
        self._task = loop.create_task(self._run())

    def hurry(self) -> None:
        """The peer is there: do not wait out the back-off."""
        self._wake.set()

    def renew(self) -> None:
        """Open a new connection under the context in force now; the old one stays until then."""
        self._renew = True
        self._wake.set()

    def close(self) -> asyncio.Future[None]:
        """Dial no more; the result is done once that is so. An open connection is not touched."""
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        backoff = PEER_BACKOFF_MIN_S
        while True:
            connection = None
            try:
                connection = await self._try()
            except Exception as error:  # noqa: BLE001  # nobody awaits us: the next try must come
                what = {"message": "a peer could not be dialled", "exception": error}
                self._loop.call_exception_handler(what)
            if connection is not None:
                await self._while_open(connection)
                if connection.hello is not None:
                    backoff = PEER_BACKOFF_MIN_S
            if self._renew:
                self._renew = False
                continue
            await self._rest(backoff * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
            backoff = min(PEER_BACKOFF_MAX_S, backoff * 2)

    async def _while_open(self, connection: PeerConnection) -> None:
        """Until the connection is gone or a renewal is asked for."""
        while not connection.gone.done() and not self._renew:
            self._wake.clear()
            waker = self._loop.create_task(self._wake.wait())
            try:
                await asyncio.wait((waker, connection.gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waker.cancel()

    async def _rest(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _try(self) -> PeerConnection | None:
        url = self.urls[self._next_url % len(self.urls)]
        self._next_url += 1
        try:
            scheme, host, port = split_url(url)
            if (scheme == "https") != (self._context is not None):
                self._failed("URL's scheme does not fit this cluster")
                return None
            tls = None
            if self._context is not None:
                context = self._context.current
                tls = TlsConnection(context, server_side=False, server_hostname=host)
            made = self._make(tls)
            async with asyncio.timeout(PEER_DIAL_SECONDS_MAX):
                await self._loop.create_connection(lambda: made, host, port)
        except ConnectionRefusedError:
            self._failed(NOBODY_LISTENS)
            return None
        except (OSError, TimeoutError):
            self._failed("cannot be reached")
            return None
        except (ValueError, TlsFailed):
            self._failed("URL cannot be used")
            return None
        return made
