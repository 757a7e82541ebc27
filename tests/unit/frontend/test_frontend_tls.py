"""The front end behind mutual TLS: who gets in, by which protocol, and who is cut off."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import pytest
import uvloop

from configsvc.frontend import connection as connection_module
from configsvc.frontend import sweeper as sweeper_module
from configsvc.frontend.connection import ClientConnection
from configsvc.frontend.server import Frontend
from configsvc.net.shell import TlsConnection, TlsFailed
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.frontend_world import GET, ended, read_frames, until
from tests.support.frontend_world import World as PlainWorld
from tests.support.http2_frames import Client, grpc_message
from tests.support.tls_files import TestFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TestFiles:
    return TestFiles(tmp_path_factory.mktemp("tls"))


class SeeingApi(FakeApi):
    """Keeps what it was told about each connection."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes | None, str, str]] = []

    def connection(self, der, peer_ip, tls_version):  # type: ignore[no-untyped-def]
        self.seen.append((der, peer_ip, tls_version))
        return super().connection(der, peer_ip, tls_version)


class World(PlainWorld):
    """The same behind mutual TLS."""

    api: SeeingApi

    def __init__(self, files: TestFiles) -> None:
        super().__init__(api=SeeingApi(), tls=files.server_context())
        self.files = files

    async def enter(
        self, alpn: list[str], leaf: tuple[str, str] | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.connect(self.files.client_context(alpn, leaf))


async def answer_of(reader: asyncio.StreamReader, stream: int) -> bytes:
    """The body of the first DATA frame on ``stream``."""
    return (await read_frames(reader, h2.DATA, stream)).payload


def test_both_protocols_by_alpn(files: TestFiles) -> None:
    async def scenario() -> None:
        async with World(files) as world:
            reader, writer = await world.enter(["h2"], files.client)
            writer.write(Client.hello() + Client().call(1, b"hi"))
            assert await answer_of(reader, 1) == grpc_message(b"hi")
            for alpn in (["http/1.1"], []):
                reader, writer = await world.enter(alpn, files.client)
                writer.write(GET)
                assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
            der = ssl.PEM_cert_to_DER_cert(Path(files.client[0]).read_text())
            assert world.api.seen == [(der, "127.0.0.1", "TLSv1.3")] * 3

    uvloop.run(scenario())


@pytest.mark.parametrize("who", ["nobody", "stranger", "tls12", "plaintext"])
def test_who_may_not_come_in(files: TestFiles, who: str) -> None:
    async def scenario() -> None:
        async with World(files) as world:
            context: ssl.SSLContext | None = files.client_context(
                ["h2"],
                {"nobody": None, "stranger": files.stranger}.get(who, files.client),
            )
            assert context is not None
            if who == "tls12":
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            if who == "plaintext":
                context = None
            try:
                reader, writer = await world.connect(context)
            except (ssl.SSLError, ConnectionResetError):
                assert who == "tls12"
            else:
                writer.write(Client.hello() + Client().call(1, b"hi"))
                assert b"hi" not in await ended(reader)
            await until(lambda: world.refused)
            assert len(world.refused) == 1
            assert not world.api.seen
            assert not world.api.calls

    uvloop.run(scenario())


def test_a_certificate_that_is_not_acceptable_is_told(files: TestFiles) -> None:
    async def scenario() -> None:
        async with World(files) as world:
            world.api.refuse = True
            reader, writer = await world.enter(["h2"], files.client)
            client = Client()
            calls = b"".join(client.call(2 * n + 1, b"x") for n in range(3))
            writer.write(Client.hello() + calls)
            answers = client.answers(await ended(reader))
            assert [answers[n].status for n in (1, 3, 5)] == [16, 16, 16]
            assert not world.api.calls

    uvloop.run(scenario())


@pytest.mark.parametrize("dawdle", [b"", b"\x16\x03\x01"])
def test_unfinished_handshakes_end_in_time_and_harm_nobody(
    files: TestFiles, dawdle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_SECONDS_MAX", 0.3)
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.02)

    async def scenario() -> None:
        async with World(files) as world:
            silent = [await world.connect(None) for _ in range(100)]
            for _, writer in silent:
                writer.write(dawdle)
            reader, writer = await world.enter(["h2"], files.client)
            writer.write(Client.hello() + Client().call(1, b"hi"))
            assert await answer_of(reader, 1) == grpc_message(b"hi")
            for quiet, _ in silent:
                assert await ended(quiet) == b""
            assert world.refused == ["handshake took too long"] * 100
            assert len(world.listener.connections) == 1

    uvloop.run(scenario())


def test_a_finished_handshake_still_owes_a_request(
    files: TestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "OPENING_SECONDS_MAX", 0.1)
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.02)

    async def scenario() -> None:
        async with World(files) as world:
            reader, _ = await world.enter(["h2"], files.client)
            await ended(reader)
            assert world.refused == ["first request took too long"]

    uvloop.run(scenario())


def test_large_bodies_both_ways(files: TestFiles) -> None:
    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    async def scenario() -> None:
        async with World(files) as world:
            _, port = world.listener.address
            credentials = grpc.ssl_channel_credentials(
                read(str(files.servers.path)), read(files.client[1]), read(files.client[0])
            )
            options = [("grpc.max_receive_message_length", -1)]
            async with grpc.aio.secure_channel(
                f"localhost:{port}", credentials, options=options
            ) as channel:
                echo = channel.unary_unary("/test.Echo/Unary")
                big = channel.unary_unary("/test.Echo/Big")
                bodies = [bytes((n,)) * 1_500_000 for n in range(6)]
                answers = await asyncio.gather(*(echo(body, timeout=20) for body in bodies))
                assert answers == bodies
                assert len(await big(b"20000000", timeout=20)) == 20_000_000

    asyncio.run(scenario())


def test_a_new_context_counts_for_new_connections(files: TestFiles) -> None:
    async def scenario() -> None:
        world = World(files)
        await world.frontend.stop(0.0)
        contexts = [files.server_context()]
        frontend = Frontend(world.api, FakeHttp())
        world.listener = frontend.listen("127.0.0.1", 0, tls=lambda: contexts[-1])
        reader, writer = await world.enter(["http/1.1"], files.client)
        strict = files.server_context()
        strict.load_verify_locations(str(files.strangers.path))
        contexts.append(strict)
        # The stranger's authority is trusted now; the connection from before goes on.
        _, late = await world.enter(["http/1.1"], files.stranger)
        late.write(GET)
        writer.write(GET)
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
        await until(lambda: len(world.api.seen) >= 2)
        for each in world.writers:
            each.transport.abort()
        await frontend.stop(0.0)

    asyncio.run(scenario())


def test_tls_that_cannot_write_ends_its_connection_alone(
    files: TestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with World(files) as world:
            _reader, writer = await world.enter(["h2"], files.client)
            writer.write(Client.hello() + Client().call(1, b"x", "/test.Echo/Wait"))
            await until(lambda: world.api.waiting)

            def broken(_self: TlsConnection, _plaintext: bytes) -> bytes:
                raise TlsFailed("protocol is shutdown", b"")

            monkeypatch.setattr(TlsConnection, "send", broken)
            world.api.waiting[0].complete(b"done")  # nothing comes back out of the flush
            await until(lambda: not world.listener.connections)
            assert world.refused == ["TLS would not write"]

    uvloop.run(scenario())


@pytest.mark.parametrize("denied", [True, False])
def test_a_handshake_of_before_a_revocation_is_judged_by_it(files: TestFiles, denied: bool) -> None:
    """Else a certificate could come in by the trust of before, and stay."""

    async def scenario() -> None:
        async with World(files) as world:
            slow, writer = await world.connect()
            await until(lambda: world.frontend.connection_count == 1)
            assert world.frontend.disconnect(lambda _: denied) == 0
            await writer.start_tls(
                files.client_context(["h2"], files.client), server_hostname="localhost"
            )
            writer.write(Client.hello() + Client().call(1, b"hi"))
            if denied:
                assert not await ended(slow)
                await until(lambda: not world.frontend.connection_count)
                assert world.refused == ["certificate denied meanwhile"]
            else:
                assert await answer_of(slow, 1) == grpc_message(b"hi")

    asyncio.run(scenario())


def test_a_connection_that_is_given_up_before_it_has_a_transport_is_closed_then(
    files: TestFiles,
) -> None:
    async def scenario() -> None:
        async with World(files) as world:
            tls = TlsConnection(files.server_context(), server_side=True)
            arriving = ClientConnection(world.listener, tls, "127.0.0.1")
            arriving.abort()
            transport = Mute()
            arriving.connection_made(transport)
            assert transport.aborted
            arriving.connection_lost(None)

    asyncio.run(scenario())


class Mute(asyncio.Transport):
    """A transport of nobody."""

    aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def abort(self) -> None:
        self.aborted = True
