"""The local socket: status for people and scripts, and the few things they may ask for (I8).

One request and one answer per connection, both a line of JSON. Mode 0600, and the peer's uid is
checked besides. With a group configured its members may connect, too, and only look. A second
socket, when configured, speaks Prometheus text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

from configagent.errors import SettingsError
from configsvc import limits

Answer = dict[str, Any]
Handle = Callable[[dict[str, Any]], Awaitable[Answer]]
Serve = Callable[[bytes, bool], Awaitable[bytes]]  # a request, and whether it may only look
LOOKS: Final = frozenset({"status"})  # commands that change nothing
_PATIENCE_S: Final = 5.0
_SO_PEERGROUPS: Final = 59  # Linux 4.13; not in the socket module
_GROUPS_MAX: Final = 256  # of one peer: one in more is judged by its first


class LocalServer:
    """Listens on a unix socket. ``group``: whose members may look; None: only we and root."""

    def __init__(self, path: str, serve: Serve, group: int | None = None) -> None:
        self._path = path
        self._serve = serve
        self._group = group
        self._clients = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            SettingsError: the path cannot be used.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # ours: the state directory's lock is held
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._client, self._path, limit=limits.AGENT_SOCKET_BYTES_MAX
            )
            if self._group is not None:
                os.chown(self._path, -1, self._group, follow_symlinks=False)
                os.chmod(self._path, 0o660)
        except OSError as error:
            raise SettingsError(f"socket {self._path}: {error.strerror or error}") from None
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            ours = _is_ours(writer)
            if self._clients <= limits.AGENT_SOCKET_CLIENTS_MAX and (ours or self._looks(writer)):
                async with asyncio.timeout(_PATIENCE_S):
                    request = await reader.readline()
                writer.write(await self._serve(request, not ours))
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            return  # its loss
        finally:
            self._clients -= 1
            writer.close()

    def _looks(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the peer is of the group: the mode alone is not relied on."""
        return self._group is not None and self._group in _groups_of(writer)


def _groups_of(writer: asyncio.StreamWriter) -> set[int]:
    peer: socket.socket = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    found = {struct.unpack("3i", raw)[2]}
    with contextlib.suppress(OSError):
        more = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _GROUPS_MAX)
        found.update(struct.unpack(f"{len(more) // 4}I", more))
    return found


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return uid in (0, os.geteuid())


def json_server(path: str, handle: Handle, group: int | None = None) -> LocalServer:
    """A server whose requests and answers are objects."""

    async def serve(request: bytes, looks: bool) -> bytes:
        try:
            asked = json.loads(request)
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return b'{"error": "a JSON object in one line is wanted"}\n'
        if looks and asked.get("command") not in LOOKS:
            return b'{"error": "this account may only look: ask as the agent\'s user or root"}\n'
        return json.dumps(await handle(asked)).encode() + b"\n"

    return LocalServer(path, serve, group)


def ask(path: str, request: dict[str, Any], timeout_s: float = 10.0) -> Answer:
    """Ask a running agent (for the command line).

    Raises:
        OSError: none listens there.
        ValueError: it did not answer properly.
    """
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(timeout_s)
        door.connect(path)
        door.sendall(json.dumps(request).encode() + b"\n")
        with door.makefile("rb") as stream:
            answer = json.loads(stream.read())
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    return answer


def metrics_server(path: str, text: Callable[[], str], group: int | None = None) -> LocalServer:
    """A server that speaks just enough HTTP for a scraper."""

    async def serve(request: bytes, looks: bool) -> bytes:
        body = text().encode()
        head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return LocalServer(path, serve, group)
