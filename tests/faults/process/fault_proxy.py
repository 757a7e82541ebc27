"""A proxy between members that can cut any directed link, without privileges.

Members advertise the proxy's ports and listen on others, so every peer connection goes through
here. Who dials is found by the owner of the connection's other end. A cut link holds bytes back,
in one direction or both, as a network does that loses every packet: connections stay half-open
until their ends give them up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK = 65_536
LOOK_S = 0.02
_SOCKET = re.compile(r"socket:\[(\d+)\]")

Link = tuple[str, str]  # from, to


class FaultProxy:
    """Runs in a thread of its own; ``cut`` may be set from any thread."""

    def __init__(self, owner_of: Callable[[int], str | None]) -> None:
        """``owner_of``: name of the member whose process has the socket of that local port."""
        self.cut: set[Link] = set()
        self.passed = 0  # bytes
        self._owner_of = owner_of
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def serve(self, target: str, port: int, to_port: int) -> None:
        """Pass connections to ``port`` on to ``to_port``, which is ``target``'s."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._pass(target, to_port, reader, writer)

        async def listen() -> None:
            self._servers.append(await asyncio.start_server(accept, "127.0.0.1", port))

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def stop(self) -> None:
        def end() -> None:
            for server in self._servers:
                server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(end)
        self._thread.join(5)
        self._loop.close()

    async def _pass(
        self,
        target: str,
        to_port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        # Cancelled at any point: a socket that is left open is a warning in somebody else's test.
        with contextlib.suppress(OSError, asyncio.CancelledError), closing(writer):
            port = writer.get_extra_info("peername")[1]
            dialler = await self._loop.run_in_executor(None, self._owner_of, port)
            there, back = await asyncio.open_connection("127.0.0.1", to_port)
            with closing(back):
                name = dialler or "?"
                await asyncio.gather(
                    self._pump((name, target), reader, back),
                    self._pump((target, name), there, writer),
                )

    async def _pump(
        self, link: Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(CHUNK):
            while link in self.cut:
                await asyncio.sleep(LOOK_S)
            self.passed += len(data)
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError


@contextlib.contextmanager
def closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """The dialler, or the target, shall see at once that the other end is gone."""
    try:
        yield
    finally:
        writer.transport.abort()


def socket_owner(port: int, pids: dict[str, int]) -> str | None:
    """Which of the processes has the TCP socket with this local port."""
    inode = _inode_of(port)
    if inode is None:
        return None
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = _SOCKET.match(os.readlink(f"/proc/{pid}/fd/{number}"))
                    if found and found[1] == inode:
                        return name
    return None


def _inode_of(port: int) -> str | None:
    wanted = f"{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{wanted}") and fields[9] != "0":
            return fields[9]
    return None
