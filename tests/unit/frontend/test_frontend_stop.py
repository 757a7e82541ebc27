"""The end of a front end, and of the connections of one identity."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import http2_frames as h2
from tests.support.frontend_world import GET, Loop, World, ended, read_frames, until
from tests.support.http2_frames import Client, frame


def test_stop_tells_everybody_and_answers_what_is_there(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            await stopped(world)

    async def stopped(world: World) -> None:
        reader, writer, _client = await world.busy()
        idle, idle_writer = await world.connect()
        idle_writer.write(GET)
        await idle.readuntil(b"}")
        port = world.listener.address[1]
        stopping = asyncio.ensure_future(world.frontend.stop(5.0))
        goaway = await read_frames(reader, h2.GOAWAY)
        assert int.from_bytes(goaway.payload[:4], "big") == 2**31 - 1
        ping = await read_frames(reader, h2.PING)
        writer.write(frame(h2.PING, h2.ACK, 0, ping.payload))
        last = await read_frames(reader, h2.GOAWAY)
        assert int.from_bytes(last.payload[:4], "big") == 3
        trailers = await read_frames(reader, h2.HEADERS, 3)
        assert Client().fields(trailers.payload)["grpc-status"] == "14"
        assert not stopping.done()
        world.api.waiting[0].complete(b"in time")
        answer = await read_frames(reader, h2.DATA, 1)
        assert answer.payload[5:] == b"in time"
        await asyncio.wait_for(stopping, 2)
        assert await ended(idle) == b""
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    run(scenario())


def test_stop_does_not_wait_longer_than_told(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            await stopped(world)

    async def stopped(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(Client.hello() + Client().call(1, b"x", "/test.Echo/Wait"))
        await until(lambda: world.api.waiting)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await world.frontend.stop(0.3)
        assert 0.25 < loop.time() - before < 5.0  # the call itself would never end
        assert world.api.waiting[0].cancelled
        await ended(reader)

    run(scenario())


def test_connections_of_a_denied_identity_are_ended(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            writer.write(Client.hello() + Client().headers(1, "/test.Echo/Stream"))
            await until(lambda: world.api.streams)
            assert world.frontend.connection_count == 1
            assert world.frontend.disconnect(lambda identity: identity.key == "other") == 0
            assert world.frontend.disconnect(lambda identity: "alice" in identity.key) == 1
            trailers = await read_frames(reader, h2.HEADERS, 1)
            assert Client().fields(trailers.payload)["grpc-status"] == "14"
            await ended(reader)
            assert world.api.streams[0].heard == ["cancel"]

    run(scenario())
