"""Large answers of many connections: one bounded write per turn of the loop, in turns."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configsvc.frontend.connection import ClientConnection
from configsvc.frontend.listener import Listener
from configsvc.frontend.shared import Shared
from configsvc.limits import OUTPUT_PASS_BYTES_MAX
from configsvc.runtime.slices import Slices
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Client
from tests.support.turns import Turns

LARGE = b"x" * (3 * OUTPUT_PASS_BYTES_MAX)


class Transport:
    """A socket that takes everything, or nothing."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    write_eof = close

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


class World:
    def __init__(self) -> None:
        self.loop = Turns()
        self.http = FakeHttp()
        self.bulk = Slices(self.loop)
        nothing = SimpleNamespace(
            young=_nothing, grown=_nothing, watch=_nothing, forget=_nothing, count_unsent=_nothing
        )
        self.listener = SimpleNamespace(
            shared=Shared(FakeApi(), self.http, lambda: 0.0),
            sweeper=nothing,
            gathering=SimpleNamespace(add=lambda each: self.loop.call_soon(each.flush)),
            bulk=self.bulk,
            opened=_nothing,
            closed=_nothing,
            refused=_nothing,
        )

    def connect(self) -> tuple[ClientConnection, Transport, Client]:
        connection = ClientConnection(cast(Listener, self.listener), None, "127.0.0.1")
        transport = Transport()
        connection.connection_made(cast(Any, transport))
        client = Client()
        hello = client.hello(initial_window_size=2**31 - 1) + h2.SETTINGS_ACK
        connection.data_received(hello + h2.window_update(0, 2**31 - 1 - 65_535))
        transport.writes.clear()
        return connection, transport, client

    def waits(self, connection: ClientConnection, client: Client, stream: int = 1) -> Any:
        """The sink of a request that is not answered yet."""
        ask = client.headers(stream, "/wait", end=True, method="GET", content_type=None)
        connection.data_received(ask)
        return self.http.running[-1].sink


def _nothing(*_: Any) -> None:
    pass


@pytest.fixture
def world() -> World:
    return World()


def test_large_answers_take_turns_and_small_ones_do_not_wait(world: World) -> None:
    peers = [world.connect() for _ in range(3)]
    sinks = [world.waits(connection, client) for connection, _, client in peers]
    for sink in sinks[:2]:
        sink.respond(200, (), LARGE)
    world.loop.all_waiting()  # both are dirty; both have more than one write takes
    assert [len(transport.writes) for _, transport, _ in peers] == [0, 0, 0]
    assert len(world.bulk) == 2
    small = peers[2][1]
    sinks[2].respond(200, (), b"small")
    order: list[int] = []
    while world.loop.soon:
        before = [len(transport.writes) for _, transport, _ in peers]
        world.loop.all_waiting()
        wrote = [len(t.writes) - n for (_, t, _), n in zip(peers, before, strict=True)]
        assert sum(wrote[:2]) <= 1  # of all large answers, one piece a turn
        order += [number for number, count in enumerate(wrote) if count]
    assert order.index(2) <= 1
    assert len(small.writes) == 1
    for number in (0, 1):
        writes = peers[number][1].writes
        assert max(map(len, writes)) < OUTPUT_PASS_BYTES_MAX + 2_000
        answer = peers[number][2].answers(b"".join(writes))[1]
        assert (answer.body, answer.ended) == (LARGE, True)
    assert abs(order.count(0) - order.count(1)) <= 1


def test_a_lost_connection_leaves_the_line(world: World) -> None:
    connection, transport, client = world.connect()
    world.waits(connection, client).respond(200, (), LARGE)
    world.loop.all_waiting()
    assert len(world.bulk) == 1
    connection.connection_lost(None)
    wrote = len(transport.writes)
    world.loop.all_waiting()
    assert (len(world.bulk), len(transport.writes), len(world.loop.soon)) == (0, wrote, 0)


def test_an_end_waits_until_everything_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: SimpleNamespace(call_later=_nothing))
    connection, transport, client = world.connect()
    sink = world.waits(connection, client)
    connection.drain()
    world.loop.all_waiting()
    connection.finish_drain()
    sink.respond(200, (), LARGE)
    while world.loop.soon and not transport.closed:
        world.loop.all_waiting()
    answer = client.answers(b"".join(transport.writes))[1]
    assert (answer.body, answer.ended, transport.closed) == (LARGE, True, True)


def test_a_full_socket_is_left_alone(world: World) -> None:
    connection, transport, client = world.connect()
    world.waits(connection, client).respond(200, (), LARGE)
    world.loop.all_waiting()
    connection.pause_writing()
    wrote = len(transport.writes)
    while world.loop.soon:
        world.loop.all_waiting()
    assert len(transport.writes) == wrote
    connection.resume_writing()
    while world.loop.soon:
        world.loop.all_waiting()
    assert client.answers(b"".join(transport.writes))[1].body == LARGE
