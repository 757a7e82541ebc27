"""Who comes in: bounds on connections, addresses to listen on, running out of descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from configsvc.frontend import listener as listener_module
from configsvc.frontend.listener import folded
from configsvc.frontend.server import raise_descriptor_limit
from configsvc.net import sockets
from tests.support.frontend_fakes import FakeHttp
from tests.support.frontend_world import GET, Loop, World, ended, until


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


def test_a_crowd_is_let_in_by_slices(run: Loop) -> None:
    """A handshake costs; whoever is in already has its turn between two slices."""

    class Counted:
        """A listening socket with a crowd before it."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.slices: list[int] = []

        def accept(self) -> object:
            accepted = self.sock.accept()
            self.slices[-1] += 1
            return accepted

    async def scenario() -> None:
        async with World() as world:
            (sock,) = world.listener._socks
            crowd = [socket.create_connection(world.listener.address) for _ in range(40)]
            counted = Counted(sock)
            for _ in range(3):  # before the loop has its own turn
                counted.slices.append(0)
                world.listener._accept(counted)  # type: ignore[arg-type]
            assert counted.slices == [16, 16, 8]
            await until(lambda: len(world.listener.connections) == 40)
            for each in crowd:
                each.close()
            await until(lambda: not world.listener.connections)

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
                patched.setattr(sockets.socket, "getaddrinfo", two_loopbacks)
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
    monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *_, **__: rows)
    (sock,) = sockets.bind("localhost", 0)
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    rows.pop()
    with pytest.raises(OSError, match="assign"):
        sockets.bind("localhost", 0)


def test_an_address_that_is_taken_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        rows = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
        ]
        monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *_, **__: rows)
        with pytest.raises(OSError, match="in use"):
            sockets.bind("localhost", port)


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
