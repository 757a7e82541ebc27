"""The front end on real sockets: protocols on one port, limits on connections, drain, stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from configsvc.frontend import connection as connection_module
from configsvc.frontend import listener as listener_module
from configsvc.frontend import sweeper as sweeper_module
from configsvc.frontend.listener import Listener, folded
from configsvc.frontend.server import Frontend, raise_descriptor_limit
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Client, frame, grpc_message

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"

Loop = Callable[[Awaitable[None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loop:
    """Both loops: the product's own and the one that tests of others may use."""
    return uvloop.run if request.param == "uvloop" else asyncio.run  # type: ignore[return-value]


class World:
    """A front end on a port of its own, and what it reported."""

    def __init__(self, **options: bool) -> None:
        self.api = FakeApi()
        self.http = FakeHttp()
        self.refused: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.counts: Counter[str] = Counter()
        self.frontend = Frontend(
            self.api,
            self.http,
            on_refused=lambda _ip, reason: self.refused.append(reason),
            refused_counts=self.counts,
        )
        self.listener: Listener = self.frontend.listen("127.0.0.1", 0, tls=None, **options)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.listener.address)
        self.writers.append(writer)
        return reader, writer

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.frontend.stop(0.0)
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)
        assert not self.listener.connections
        assert self.frontend.admission.unary == 0
        assert self.frontend.admission.in_bytes == 0


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
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


def test_answers_of_one_pass_are_one_write(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            reader, writer = await world.connect()
            client = Client()
            calls = b"".join(client.call(2 * n + 1, b"x", "/test.Echo/Wait") for n in range(10))
            writer.write(Client.hello() + calls)
            await until(lambda: len(world.api.waiting) == 10)
            (connection,) = world.listener.connections
            writes: list[int] = []
            inner = connection._write
            connection._write = lambda data: (writes.append(len(data)), inner(data))[1]  # type: ignore[method-assign, func-returns-value]
            for waiting in world.api.waiting:
                waiting.complete(b"done")
            for n in range(10):
                assert (await read_frames(reader, h2.DATA, 2 * n + 1)).payload[5:] == b"done"
            assert len(writes) == 1

    run(scenario())


def test_an_aborted_connection_frees_everything(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            _reader, writer = await world.connect()
            client = Client()
            writer.write(
                Client.hello()
                + client.call(1, b"x", "/test.Echo/Wait")
                + client.headers(3, "/test.Echo/Stream")
            )
            await until(lambda: world.api.streams)
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


def test_when_full_the_oldest_unfinished_connection_goes(
    run: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "CONNECTIONS_MAX", 3)

    async def scenario() -> None:
        async with World() as world:
            pairs = []
            for number in range(3):
                pairs.append(await world.connect())
                if number == 0:
                    pairs[0][1].write(GET)
                    await pairs[0][0].readuntil(b"}")
            await until(lambda: len(world.listener.connections) == 3)
            pairs.append(await world.connect())
            assert await ended(pairs[1][0]) == b""
            for index in (0, 2, 3):
                pairs[index][1].write(GET)
                await asyncio.wait_for(pairs[index][0].readuntil(b"}"), 5)
            # Nobody is unfinished any more: now the newcomer is turned away.
            late = await world.connect()
            assert await ended(late[0]) == b""

    run(scenario())


def test_unfinished_connections_of_one_address_are_bounded(
    run: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKES_PER_ADDRESS_MAX", 2)

    async def scenario() -> None:
        async with World() as world:
            pairs = []
            for number in range(3):
                pairs.append(await world.connect())
                if number < 2:
                    await until(lambda: len(world.listener.connections) == len(pairs))
            assert await ended(pairs[0][0]) == b""

    run(scenario())


def test_connections_of_one_identity_are_bounded(
    run: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("configsvc.frontend.admission.CONNECTIONS_PER_IDENTITY_MAX", 1)

    async def scenario() -> None:
        async with World() as world:
            one, one_writer = await world.connect()
            one_writer.write(GET)
            await one.readuntil(b"}")
            two, two_writer = await world.connect()
            two_writer.write(GET)
            assert b"200" not in await ended(two)
            assert world.refused == ["too many connections of one identity"]
            one_writer.transport.abort()
            await until(lambda: not world.listener.connections)
            three, three_writer = await world.connect()
            three_writer.write(GET)
            await asyncio.wait_for(three.readuntil(b"}"), 5)

    run(scenario())


def test_running_out_of_descriptors_is_survived(run: Loop) -> None:
    class Poor:
        """A listening socket whose process has no descriptor left, for a while."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.failures = 3

        def accept(self) -> object:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return self.sock.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.sock, name)

    async def scenario() -> None:
        async with World() as world:
            (sock,) = world.listener._socks
            world.listener._socks = (Poor(sock),)  # type: ignore[assignment]
            world.listener._resume()
            reader, writer = await world.connect()
            writer.write(GET)
            await asyncio.wait_for(reader.readuntil(b"}"), 5)

    run(scenario())


def test_stop_tells_everybody_and_answers_what_is_there(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            await stopped(world)

    async def stopped(world: World) -> None:
        reader, writer = await world.connect()
        client = Client()
        writer.write(
            Client.hello()
            + client.call(1, b"x", "/test.Echo/Wait")
            + client.headers(3, "/test.Echo/Stream")
        )
        idle, idle_writer = await world.connect()
        idle_writer.write(GET)
        await idle.readuntil(b"}")
        await until(lambda: world.api.streams)
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
        assert 0.25 < loop.time() - before < 1.0
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


def test_a_listener_without_http(run: Loop) -> None:
    async def scenario() -> None:
        async with World(serves_http=False) as world:
            reader, writer = await world.connect()
            writer.write(GET)
            assert b"404" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)

    run(scenario())


def test_a_listener_with_an_application_of_its_own(run: Loop) -> None:
    async def scenario() -> None:
        async with World() as world:
            own = FakeHttp()
            listener = world.frontend.listen("127.0.0.1", 0, tls=None, serves_grpc=False, http=own)
            reader, writer = await asyncio.open_connection(*listener.address)
            world.writers.append(writer)
            writer.write(GET)
            await asyncio.wait_for(reader.readuntil(b"}"), 5)
            assert [request.path for request in own.requests] == ["/health"]
            assert not world.http.requests

    run(scenario())


def two_loopbacks(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
    """A resolver for which every name has both loopback addresses, each of them twice."""
    rows = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    return rows * 2


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_p14_localhost_is_both_loopbacks(run: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with World() as world:
            with monkeypatch.context() as patched:
                patched.setattr(listener_module.socket, "getaddrinfo", two_loopbacks)
                listener = world.frontend.listen("localhost", 0, tls=None)
            (six, port), (four, same) = listener.addresses
            assert (six, four, port) == ("::1", "127.0.0.1", same)
            for host in ("::1", "127.0.0.1"):
                reader, writer = await asyncio.open_connection(host, port)
                world.writers.append(writer)
                writer.write(GET)
                assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            listener.close()
            for host in ("::1", "127.0.0.1"):
                with pytest.raises(OSError, match=r"refused|Connect"):
                    await asyncio.open_connection(host, port)

    run(scenario())


def test_an_address_that_is_not_here_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(listener_module.socket, "getaddrinfo", lambda *_, **__: rows)
    (sock,) = listener_module.bind("localhost", 0)
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    rows.pop()
    with pytest.raises(OSError, match="assign"):
        listener_module.bind("localhost", 0)


def test_an_address_that_is_taken_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        rows = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
        ]
        monkeypatch.setattr(listener_module.socket, "getaddrinfo", lambda *_, **__: rows)
        with pytest.raises(OSError, match="in use"):
            listener_module.bind("localhost", port)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
        ("not an address", ""),
    ],
)
def test_peer_addresses(address: str, expected: str) -> None:
    assert folded(address) == expected


def test_the_descriptor_limit_is_raised() -> None:
    assert raise_descriptor_limit() > 0
