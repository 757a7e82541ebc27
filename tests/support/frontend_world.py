"""A front end on real sockets, and a few ways to wait for what it does."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

from configsvc.frontend.ages import Ages
from configsvc.frontend.listener import Listener
from configsvc.frontend.server import Frontend
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"

Loop = Callable[[Awaitable[None]], None]


class World:
    """A front end on a port of its own, and what it reported; ``tls`` None is plaintext."""

    def __init__(
        self,
        ages: Ages | None = None,
        *,
        api: FakeApi | None = None,
        tls: ssl.SSLContext | None = None,
        **options: bool,
    ) -> None:
        self.api = api or FakeApi()
        self.http = FakeHttp()
        self.refused: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.counts: Counter[str] = Counter()
        self.frontend = Frontend(
            self.api,
            self.http,
            on_refused=lambda _ip, reason: self.refused.append(reason),
            refused_counts=self.counts,
            ages=ages,
        )
        self.listener: Listener = self.frontend.listen(
            "127.0.0.1", 0, tls=None if tls is None else lambda: tls, **options
        )

    async def connect(
        self, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.listener.address, ssl=tls)
        self.writers.append(writer)
        return reader, writer

    async def busy(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, h2.Client]:
        """A connection with a call that waits, on stream 1, and a gRPC stream that runs, on 3."""
        reader, writer = await self.connect()
        client = h2.Client()
        call = client.call(1, b"x", "/test.Echo/Wait")
        writer.write(client.hello() + call + client.headers(3, "/test.Echo/Stream"))
        await until(lambda: self.api.streams)
        return reader, writer, client

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.frontend.stop(0.0)
        for writer in self.writers:
            writer.transport.abort()
        await until(lambda: not self.listener.connections)
        assert self.frontend.admission.unary == 0
        assert self.frontend.admission.streams == 0
        assert self.frontend.admission.in_bytes == 0


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except (ConnectionResetError, ssl.SSLError):
        return b""


async def read_frames(reader: asyncio.StreamReader, kind: int, stream: int = 0) -> h2.Frame:
    """Frames until one of ``kind`` on ``stream``."""
    while True:
        head = await asyncio.wait_for(reader.readexactly(9), 5)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        (each,) = h2.split(head + payload)
        if each.kind == kind and each.stream == stream:
            return each


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)
