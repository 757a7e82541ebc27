"""LIM-15: idle and old connections are asked to go, gently and not all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import grpc
import pytest

from configsvc.frontend.ages import Ages, Calendar
from configsvc.limits import (
    CONNECTION_AGE_JITTER,
    CONNECTION_AGE_S_MAX,
    CONNECTION_AGE_SLOT_S,
    CONNECTION_IDLE_S_MAX,
    DRAIN_NOTICE_S,
)
from tests.support import http2_frames as h2
from tests.support.frontend_world import GET, Loop, World, ended, read_frames, until
from tests.support.http2_frames import Client, frame

LATE_S = CONNECTION_AGE_SLOT_S + 0.001  # a look may be this late


class FakeLoop:
    """A loop whose time passes when told; its timers go off in their order."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, callback)
        self._timers.append(timer)
        return timer

    def run_until(self, at: float) -> None:
        while True:
            self._timers = [each for each in self._timers if not each.cancelled]
            due = min(self._timers, key=lambda each: each.at, default=None)
            if due is None or due.at > at:
                break
            self._timers.remove(due)
            self.now = due.at
            due.callback()
        self.now = at

    @property
    def timers(self) -> int:
        return sum(not each.cancelled for each in self._timers)


class FakeTimer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeConnection:
    """What the calendar sees of a connection, and when it was told what."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.activity: int | None = 0
        self.told: list[tuple[str, float]] = []

    def drain(self) -> None:
        self.told.append(("drain", self._loop.now - 1_000.0))

    def finish_drain(self) -> None:
        self.told.append(("finish", self._loop.now - 1_000.0))

    @property
    def drained_at(self) -> float:
        assert self.told[0][0] == "drain"
        return self.told[0][1]


def calendar(loop: FakeLoop, chance: Callable[[], float] = lambda: 0.5) -> Calendar:
    return Calendar(cast("asyncio.AbstractEventLoop", loop), Ages(), chance)


def test_an_idle_connection_is_asked_once_and_then_not_waited_for() -> None:
    loop = FakeLoop()
    made, connection = calendar(loop), FakeConnection(loop)
    made.joined(connection)
    loop.run_until(1_000.0 + CONNECTION_IDLE_S_MAX - 1)
    assert connection.told == []
    loop.run_until(1_000.0 + 10 * CONNECTION_AGE_S_MAX)
    assert [what for what, _ in connection.told] == ["drain", "finish"]
    (_, first), (_, second) = connection.told
    assert CONNECTION_IDLE_S_MAX <= first <= CONNECTION_IDLE_S_MAX * 1.25 + 5 * LATE_S
    assert DRAIN_NOTICE_S <= second - first <= DRAIN_NOTICE_S + LATE_S
    assert loop.timers == 0  # nobody is left to look at


def test_a_request_now_and_then_is_not_idle() -> None:
    loop = FakeLoop()
    made, connection = calendar(loop), FakeConnection(loop)
    made.joined(connection)
    at = 0.0
    while at < CONNECTION_AGE_S_MAX - CONNECTION_IDLE_S_MAX:
        at += CONNECTION_IDLE_S_MAX * 0.9
        loop.run_until(1_000.0 + at)
        assert connection.told == []
        connection.activity = int(at)


@pytest.mark.parametrize("activity", [None, 1], ids=["stream", "calls"])
def test_an_old_connection_is_asked_whatever_it_does(activity: int | None) -> None:
    loop = FakeLoop()
    made, connection = calendar(loop), FakeConnection(loop)
    made.joined(connection)
    for step in range(1, 41):
        connection.activity = activity if activity is None else activity + step
        loop.run_until(1_000.0 + step * CONNECTION_AGE_S_MAX / 20)
    assert CONNECTION_AGE_S_MAX <= connection.drained_at <= CONNECTION_AGE_S_MAX + LATE_S
    assert [what for what, _ in connection.told] == ["drain", "finish"]


def test_after_its_last_stream_a_connection_has_the_whole_idle_time() -> None:
    loop = FakeLoop()
    made, connection = calendar(loop), FakeConnection(loop)
    made.joined(connection)
    connection.activity = None
    closed_at = CONNECTION_IDLE_S_MAX / 2
    loop.run_until(1_000.0 + closed_at)
    connection.activity = 0
    loop.run_until(1_000.0 + closed_at + CONNECTION_IDLE_S_MAX - 1)
    assert connection.told == []


def test_who_came_together_does_not_go_together() -> None:
    loop = FakeLoop()
    chances = iter(range(1_000))
    made = calendar(loop, lambda: next(chances) / 999)
    crowd = [FakeConnection(loop) for _ in range(1_000)]
    for each in crowd:
        each.activity = None
        made.joined(each)
    loop.run_until(1_000.0 + 2 * CONNECTION_AGE_S_MAX)
    ends = [each.drained_at for each in crowd]
    spread = CONNECTION_AGE_JITTER * CONNECTION_AGE_S_MAX
    assert CONNECTION_AGE_S_MAX - spread <= min(ends)
    assert max(ends) <= CONNECTION_AGE_S_MAX + spread + LATE_S
    at_once = max(ends.count(end) for end in set(ends))
    assert at_once <= 1_000 * CONNECTION_AGE_SLOT_S / (2 * spread) + 1  # fourteen


def test_a_connection_that_is_gone_leaves_nothing_behind() -> None:
    loop = FakeLoop()
    made = calendar(loop)
    crowd = [FakeConnection(loop) for _ in range(3)]
    for each in crowd:
        made.joined(each)
    for each in crowd[:2]:
        made.left(each)
    made.left(crowd[0])  # said twice
    loop.run_until(1_000.0 + CONNECTION_AGE_S_MAX)
    assert [len(each.told) for each in crowd] == [0, 0, 2]
    assert (made._lives, made._slots, loop.timers) == ({}, {}, 0)


def test_a_neighbours_end_may_be_the_end_of_another() -> None:
    loop = FakeLoop()
    made = calendar(loop)
    one, two = FakeConnection(loop), FakeConnection(loop)
    one.drain = lambda: made.left(two)  # type: ignore[method-assign]
    made.joined(one)
    made.joined(two)
    loop.run_until(1_000.0 + 2 * CONNECTION_AGE_S_MAX)
    assert two.told == []


def test_a_calendar_that_is_stopped_asks_nobody() -> None:
    loop = FakeLoop()
    made, connection = calendar(loop), FakeConnection(loop)
    made.joined(connection)
    made.stop()
    loop.run_until(1_000.0 + 2 * CONNECTION_AGE_S_MAX)
    assert connection.told == []


def test_an_old_connection_over_a_real_socket(run: Loop) -> None:
    """The watch goes on, the waiting call gets its answer, then the connection ends in peace."""

    async def scenario() -> None:
        async with World(Ages(idle_s=60.0, age_s=0.2, slot_s=0.01)) as world:
            reader, writer, client = await world.busy()
            goaway = await read_frames(reader, h2.GOAWAY)
            assert goaway.payload == (2**31 - 1).to_bytes(4, "big") + bytes(4)
            ping = await read_frames(reader, h2.PING)
            # What crosses the announcement is still served.
            writer.write(client.call(5, b"crossing"))
            assert (await read_frames(reader, h2.DATA, 5)).payload[5:] == b"crossing"
            writer.write(frame(h2.PING, h2.ACK, 0, ping.payload))
            last = await read_frames(reader, h2.GOAWAY)
            assert last.payload == (5).to_bytes(4, "big") + bytes(4)
            await until(lambda: not world.frontend._calendar._lives)  # it was told everything
            world.api.waiting[0].complete(b"in time")
            assert (await read_frames(reader, h2.DATA, 1)).payload[5:] == b"in time"
            world.api.streams[0].sink.send(b"event")
            assert (await read_frames(reader, h2.DATA, 3)).payload[5:] == b"event"
            assert world.api.streams[0].heard == []
            world.api.streams[0].sink.finish(None)
            trailers = await read_frames(reader, h2.HEADERS, 3)
            assert trailers.flags & h2.END_STREAM
            assert await ended(reader) == h2.reset(3, 0)  # we want no more of its request
            assert not world.counts  # nobody did anything wrong

    run(scenario())


def test_a_peer_that_acknowledges_nothing_is_not_waited_for(run: Loop) -> None:
    async def scenario() -> None:
        async with World(Ages(idle_s=0.1, age_s=60.0, slot_s=0.01)) as world:
            reader, writer = await world.connect()
            writer.write(Client.hello() + Client().call(1, b"x"))
            await read_frames(reader, h2.DATA, 1)
            frames = h2.split(await ended(reader))
            goaways = [each.payload[:4] for each in frames if each.kind == h2.GOAWAY]
            assert [int.from_bytes(each, "big") for each in goaways] == [2**31 - 1, 1]
            assert not world.counts

    run(scenario())


def test_idle_http1_is_closed_and_busy_http1_is_not(run: Loop) -> None:
    async def scenario() -> None:
        async with World(Ages(idle_s=0.2, age_s=60.0, slot_s=0.01)) as world:
            busy, busy_writer = await world.connect()
            busy_writer.write(GET.replace(b"/health", b"/wait"))
            await until(lambda: world.http.running)
            idle, idle_writer = await world.connect()
            idle_writer.write(GET)
            await idle.readuntil(b"}")
            assert await ended(idle) == b""  # later than the busy one's turn would have come
            world.http.running[0].sink.respond(200, (), b"{}")
            assert b"200 OK" in await asyncio.wait_for(busy.readuntil(b"}"), 5)
            assert not world.counts

    run(scenario())


def test_a_stock_client_sees_no_error_while_its_connections_age() -> None:
    """Unary calls move on to new connections; a stream from before goes on to its end."""

    async def scenario() -> None:
        async with World(Ages(idle_s=60.0, age_s=0.2, slot_s=0.01)) as world:
            host, port = world.listener.address
            async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
                stream = channel.stream_stream("/test.Echo/Stream")(timeout=20)
                await stream.write(b"first")
                assert await stream.read() == b"first"
                echo = channel.unary_unary("/test.Echo/Unary")
                number = 0
                while len(world.api.identities) < 6:  # one for each connection
                    calls = [echo(b"%d" % n, timeout=10) for n in range(number, number + 20)]
                    answers = await asyncio.gather(*calls)
                    assert answers == [b"%d" % n for n in range(number, number + 20)]
                    number += 20
                await stream.write(b"last")
                assert await stream.read() == b"last"
                await stream.write(b"finish")
                assert await stream.read() == grpc.aio.EOF
                assert await stream.code() == grpc.StatusCode.OK
            assert not world.counts

    asyncio.run(scenario())
