"""Connections on real sockets: protocols on one port, deadlines, slow peers, how they end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from configsvc.frontend import connection as connection_module
from configsvc.frontend import sweeper as sweeper_module
from tests.support import http2_frames as h2
from tests.support.frontend_world import GET, Loop, World, ended, read_frames, until
from tests.support.http2_frames import Client, frame, grpc_message


def test_two_protocols_on_one_port(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            for _ in range(2):
                writer.write(GET)
                assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            reader, writer = await world.connect()
            for byte in Client.hello() + Client().call(1, b"hi"):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            data = await read_frames(reader, h2.DATA, 1)
            assert data.payload == grpc_message(b"hi")

    run(scenario())


class CountedTransport:
    """A transport whose writes are counted."""

    def __init__(self, inner: asyncio.Transport | None) -> None:
        self._inner = inner
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._inner.write(data)  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_answers_of_one_pass_are_one_write(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            client = Client()
            calls = b"".join(client.call(2 * n + 1, b"x", "/test.Echo/Wait") for n in range(10))
            writer.write(Client.hello() + calls)
            await until(lambda: len(world.api.waiting) == 10)
            (connection,) = world.listener.connections
            counted = CountedTransport(connection._transport)
            connection._transport = counted  # type: ignore[assignment]  # what a flush uses
            for waiting in world.api.waiting:
                waiting.complete(b"done")
            for n in range(10):
                assert (await read_frames(reader, h2.DATA, 2 * n + 1)).payload[5:] == b"done"
            assert counted.writes == 1

    run(scenario())


def test_an_aborted_connection_frees_everything(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            _reader, writer, _client = await world.busy()
            writer.transport.abort()
            await until(lambda: not world.listener.connections)
            assert world.api.waiting[0].cancelled
            assert world.api.streams[0].heard == ["cancel"]
            assert world.frontend.admission.unary == 0

    run(scenario())


def test_a_peer_that_said_goodbye_may_still_be_sending(run: Loop) -> None:
    """Its ping crosses our end: a reset could cost it what we wrote before."""

    async def scenario() -> None:
        async with World() as world:
            loop = asyncio.get_running_loop()
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, world.listener.address)
                goodbye = frame(h2.GOAWAY, payload=bytes(8))
                await loop.sock_sendall(client, Client.hello() + goodbye)
                while await asyncio.wait_for(loop.sock_recv(client, 4_096), 5):
                    pass
                for _ in range(3):
                    await loop.sock_sendall(client, frame(h2.PING, payload=b"crossing"))
                    await asyncio.sleep(0)
                assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                client.shutdown(socket.SHUT_WR)
                await until(lambda: not world.listener.connections)

    run(scenario())


def test_who_lingers_after_its_end_is_cut_off(run: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "TLS_SHUTDOWN_SECONDS_MAX", 0.05)

    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.write(Client.hello() + frame(h2.GOAWAY, payload=bytes(8)))
            await ended(reader)
            await until(lambda: not world.listener.connections)

    run(scenario())


@pytest.mark.parametrize(
    "opening",
    [b"", b"P", b"PRI * HTTP/2.0\r\n\r\n", h2.PREFACE, b"GET / HT"],
    ids=["silent", "one-byte", "half-preface", "no-settings", "half-header"],
)
def test_a_dawdling_peer_is_closed(
    run: Loop, opening: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "OPENING_SECONDS_MAX", 0.05)
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.01)

    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.write(opening)
            await ended(reader)
            assert world.refused == ["first request took too long"]
            await until(lambda: not world.listener.connections)

    run(scenario())


def test_resting_connections_are_kept(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            one, one_writer = await world.connect()
            two, two_writer = await world.connect()
            one_writer.write(GET)
            await one.readuntil(b"}")
            two_writer.write(Client.hello() + frame(h2.PING, 0, 0, b"12345678"))
            await read_frames(two, h2.PING)
            world.frontend._sweeper.sweep(asyncio.get_running_loop().time() + 1_000.0)
            one_writer.write(GET)
            await asyncio.wait_for(one.readuntil(b"}"), 5)
            two_writer.write(Client().call(1, b"x"))
            await read_frames(two, h2.DATA, 1)

    run(scenario())


def test_a_fault_is_told_reported_and_closed(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.write(Client.hello() + frame(h2.PING, 0, 1, b"12345678"))
            last = h2.split(await ended(reader))[-1]
            assert last.kind == h2.GOAWAY
            assert last.payload[8:] == b"ping on a stream"
            assert world.refused == ["ping on a stream"]

    run(scenario())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (Client.hello() + frame(h2.DATA, 0, 0), "malformed"),
        (Client.hello() + frame(h2.PRIORITY, 0, 1, bytes(5)) * 1_500, "flood"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "malformed"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, "flood"),
    ],
)
def test_every_refusal_is_counted_by_its_kind(run: Loop, data: bytes, kind: str) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.write(data)
            await ended(reader)
            assert world.counts == {kind: 1}

    run(scenario())


def test_deadlines_of_calls_are_kept_without_timers(
    run: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.01)

    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            extra = (("grpc-timeout", "30m"),)
            writer.write(Client.hello() + Client().call(1, b"x", "/test.Echo/Wait", extra=extra))
            await read_frames(reader, h2.HEADERS, 1)
            assert world.api.waiting[0].cancelled

    run(scenario())


def test_a_peer_that_does_not_read_is_closed(run: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once blocked by the socket, once by its own windows."""
    monkeypatch.setattr(connection_module, "SLOW_READER_SECONDS_MAX", 0.1)
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.01)

    async def scenario() -> None:
        async with World() as world:
            for settings in ({"initial_window_size": 2**31 - 1}, {"initial_window_size": 0}):
                _reader, writer = await world.connect()
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(
                    Client.hello(**settings)
                    + h2.window_update(0, 2**31 - 1 - 65_535)
                    + Client().call(1, b"30000000", "/test.Echo/Big")
                )
                await until(lambda: world.refused)
                await until(lambda: not world.listener.connections)
                assert world.refused == ["reads too slowly"]
                world.refused.clear()
                writer.transport.abort()

    run(scenario())


def test_a_full_socket_bounds_what_is_framed(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(
                Client.hello(initial_window_size=2**31 - 1)
                + h2.window_update(0, 2**31 - 1 - 65_535)
                + Client().call(1, b"30000000", "/test.Echo/Big")
            )
            await until(lambda: world.listener.connections)
            (connection,) = world.listener.connections
            await until(lambda: connection._paused)
            transport = connection._transport
            assert transport is not None
            assert transport.get_write_buffer_size() < 2 * 2**20
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            got = 0
            while got < 30_000_005:
                head = await asyncio.wait_for(reader.readexactly(9), 5)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                got += len(payload) if head[3] == h2.DATA else 0

    run(scenario())
