"""The peer port: what was accepted at its end, a process without descriptors, odd addresses."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from link_members import LinkMember, LogLines, until

from configsvc.net.sockets import bind
from configsvc.transport import listening
from configsvc.transport.listening import PeerListener


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


class Met(asyncio.Protocol):
    """A connection that closes itself."""

    def __init__(self, made: list[Met]) -> None:
        made.append(self)
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.mark.parametrize("turns", range(8))
def test_what_was_accepted_when_the_member_stops_is_closed(turns: int) -> None:
    """A peer dials at the very moment: it must hear the end, whichever turn of the loop it is."""

    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        with socket.create_connection(a.link.addresses[0]) as knocking:
            for _ in range(turns):
                await asyncio.sleep(0)
            await a.link.close()
            assert not a.link._open
            knocking.settimeout(2.0)
            try:
                assert knocking.recv(1) == b""
            except ConnectionResetError:
                pass  # it was still in the kernel's queue

    run(scenario)


def test_a_socket_without_its_transport_is_named_by_close() -> None:
    async def scenario() -> None:
        made: list[Met] = []
        loop = asyncio.get_running_loop()
        listener = PeerListener(loop, bind("127.0.0.1", 0), lambda: Met(made), LogLines())
        with socket.create_connection(listener.addresses[0]):
            listener._accept(listener._socks[0])
            arriving = listener.close()
            assert len(arriving) == 1
            await asyncio.wait(arriving)
            await until(lambda: made and made[0].lost)
        assert listener.close() == set(), "closing twice does nothing"

    run(scenario)


def test_without_descriptors_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ACCEPT_PAUSE_S", 0.02)

    class Poor(socket.socket):
        tries = 0

        def accept(self) -> Any:
            Poor.tries += 1
            if Poor.tries < 3:
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    async def scenario() -> None:
        made: list[Met] = []
        poor = Poor(socket.AF_INET, socket.SOCK_STREAM)
        poor.bind(("127.0.0.1", 0))
        poor.listen()
        poor.setblocking(False)
        told = LogLines()
        loop = asyncio.get_running_loop()
        listener = PeerListener(loop, [poor], lambda: Met(made), told)
        with socket.create_connection(listener.addresses[0]):
            await until(lambda: made and made[0].lost)
        assert 3 <= Poor.tries < 20, "it does not spin"
        assert len(told.lines) == 1, "once, not at each try"
        listener.close()

    run(scenario)


def test_localhost_is_every_loopback_address_that_there_is() -> None:
    socks = bind("localhost", 0)
    assert len({sock.getsockname()[1] for sock in socks}) == 1
    for sock in socks:
        sock.close()


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    (taken,) = bind("127.0.0.1", 0)
    with taken, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", taken.getsockname()[1])
