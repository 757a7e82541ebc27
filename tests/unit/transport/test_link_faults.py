"""What goes wrong between members: restarts, slow and silent peers, changed URLs, renewals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from link_members import LinkMember, connected, introduce, tls_of, until

from configsvc import limits
from configsvc.identity import pki as product
from configsvc.raft.messages import MessageType
from configsvc.transport import connection as connection_module
from configsvc.transport import dialling
from configsvc.transport.hello import BULK, CONTROL
from configsvc.types import NodeId
from tests.support.pki import Pki


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PEER_PING_S", 0.1)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))  # type: ignore[arg-type]


def plain(me: int, **more: object) -> LinkMember:
    return LinkMember(asyncio.get_running_loop(), me, None, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to ``target`` that stops reading from the dialler when the event is set (P15)."""
    host, port = target.removeprefix("http://").split(":")
    stopped, over = asyncio.Event(), asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stops: bool
    ) -> None:
        while not (stops and stopped.is_set()):
            data = await reader.read(65_536)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        else:
            await asyncio.sleep(3_600)
        writer.close()

    def keep(writer: asyncio.StreamWriter) -> None:
        """A dialler may come, or the way to the target open, when the test has ended."""
        writers.append(writer)
        if over.is_set():
            writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep(writer)
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:  # the target is gone: so is this way to it
            writer.transport.abort()
            return
        keep(back)
        for task in (pump(reader, back, stops=True), pump(there, writer, stops=False)):
            tasks.add(asyncio.create_task(task))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        here = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{here}", stopped
    finally:
        server.close()
        over.set()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def test_a_restarted_peer_replaces_its_older_connections() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        again = plain(2, incarnation=2)
        async with connected(a, b):
            # The machine of b is gone without a word; b starts again elsewhere.
            await again.listen()
            again.link.set_peers({a.id: (a.url,)})
            await until(lambda: (a.id, CONTROL) in again.link._out)
            await until(lambda: a.log.having("replaced by a newer start of the peer"))
            a.link.set_peers({b.id: (again.url,)})
            await until(lambda: (b.id, BULK) in a.link._out)
            a.link.send([a.append(b.id, 1, [b"x"])])
            await until(lambda: again.messages)
            # What is left of the earlier start is not let in again.
            b.link.set_peers({})
            b.link.set_peers({a.id: (a.url,)})
            await until(lambda: b.log.having("an earlier start"))
        await again.link.close()

    run(scenario)


def test_messages_to_nobody_are_dropped_and_reported_once_per_pass() -> None:
    async def scenario() -> None:
        a = plain(1)
        a.link.send([a.append(9, 1, [b"x"]), a.append(9, 2, [b"y"]), a.beat(9)])
        assert a.unreachable == []  # not from within the core's own step
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert a.unreachable == [9]
        assert a.link.counters.dropped == 3
        assert not a.link.send_frame(NodeId(9), 2, b"x")
        await a.link.close()

    run(scenario)


def test_a_peer_that_is_lost_is_dialled_again() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        async with connected(a, b):
            for connection in list(b.link._open):
                connection._transport.abort()  # type: ignore[union-attr]
            await until(lambda: a.unreachable)
            await until(lambda: (b.id, BULK) in a.link._out and (a.id, BULK) in b.link._out)
            a.link.send([a.append(b.id, 1, [b"x"])])
            await until(lambda: b.messages)

    run(scenario)


def test_a_bug_at_one_try_does_not_end_the_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        failures: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        a, b = plain(1), plain(2)
        await a.listen()
        await b.listen()
        real, bugs = dialling.split_url, [KeyError("control"), KeyError("bulk")]

        def split(url: str) -> tuple[str, str, int]:
            if bugs:
                raise bugs.pop(0)
            return real(url)

        monkeypatch.setattr(dialling, "split_url", split)
        a.link.set_peers({b.id: (b.url,)})
        await until(lambda: a.link._out.keys() >= {(b.id, CONTROL), (b.id, BULK)})
        assert [type(failure) for failure in failures] == [KeyError, KeyError]
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_a_bug_at_one_look_does_not_end_the_looking() -> None:
    async def scenario() -> None:
        failures: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        a, b = plain(1), plain(2)
        async with connected(a, b):
            [control, *_] = a.link._open
            looks: list[float] = []

            def look(now: float, **_: float) -> None:
                looks.append(now)
                raise KeyError("a bug")

            control.look = look  # type: ignore[method-assign]
            await until(lambda: len(looks) >= 2)
        assert failures

    run(scenario)


def test_a_slow_peer_costs_a_bounded_queue_and_control_goes_on() -> None:
    async def scenario() -> None:
        a, b = plain(1, progress_s=0.3), plain(2)
        await a.listen()
        await b.listen()
        async with proxy(b.url) as (url, stopped):
            a.link.set_peers({b.id: (url,)})
            await until(lambda: a.link._out.keys() >= {(b.id, CONTROL), (b.id, BULK)})
            stopped.set()
            bulk = a.link._out[b.id, BULK]
            payload = bytes(900_000)
            for at in range(40):
                a.link.send([a.append(b.id, at + 1, [payload])])
                await asyncio.sleep(0)
                assert bulk.queued_bytes <= limits.PEER_QUEUE_BYTES_MAX
            assert a.link.counters.dropped > 10
            assert a.unreachable
            await until(lambda: a.log.having("the peer does not read"), seconds=5)
            assert bulk.queued_bytes == 0
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_heartbeats_do_not_pile_up_behind_a_slow_reader() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        async with connected(a, b):
            control = a.link._out[b.id, CONTROL]
            control.pause_writing()
            for round_ in range(1_000):
                a.link.send([a.beat(b.id, round_=round_)])
            assert control.queued_bytes < 1_000
            control.resume_writing()
            await until(lambda: b.messages)
            assert [m.read_round for _, m in b.messages] == [999]

    run(scenario)


def test_a_silent_peer_is_noticed() -> None:
    async def scenario() -> None:
        a, b = plain(1, silence_s=0.6), plain(2)
        await a.listen()
        await b.listen()
        async with proxy(b.url) as (url, stopped):
            a.link.set_peers({b.id: (url,)})
            await until(lambda: (b.id, CONTROL) in a.link._out)
            stopped.set()  # pings do not get through, so no answer comes back
            await until(lambda: a.log.having("the peer is silent"), seconds=4)
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


@pytest.mark.usefixtures("quick_pings")
def test_an_idle_connection_stays_up() -> None:
    async def scenario() -> None:
        a, b = plain(1, silence_s=0.6), plain(2, silence_s=0.6)
        async with connected(a, b):
            since = a.link.active_since(b.id)
            await asyncio.sleep(1.0)  # longer than the silence that would end it
            assert a.link.active_since(b.id) == since

    run(scenario)


def test_own_standstill_is_not_held_against_peers() -> None:
    async def scenario() -> None:
        a, b = plain(1, silence_s=1.1), plain(2, silence_s=1.1)
        async with connected(a, b):
            since = a.link.active_since(b.id)
            time.sleep(1.3)  # the loop stands still, as in a long pause
            await asyncio.sleep(0.3)
            assert a.link.active_since(b.id) == since
            assert not a.unreachable

    run(scenario)


def test_changed_urls_are_dialled_anew_and_forgotten_peers_are_not() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        await a.listen()
        await b.listen()
        a.link.set_peers({b.id: ("http://127.0.0.1:1",)})  # nobody is there
        await until(lambda: a.log.having("nobody listens there"))
        assert set(a.gone) == {b.id}
        a.link.set_peers({b.id: ("http://127.0.0.1:1", b.url)})
        await until(lambda: (b.id, CONTROL) in a.link._out)
        assert len(a.log.having("nobody listens there")) <= 2  # not once per attempt
        a.link.set_peers({})
        await until(lambda: not a.link._open)
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_a_peer_forgotten_before_its_hello_is_let_go_at_once() -> None:
    async def scenario() -> None:
        a = plain(1)
        silent = socket.create_server(("127.0.0.1", 0))
        with contextlib.closing(silent):
            port = silent.getsockname()[1]
            a.link.set_peers({NodeId(2): (f"http://127.0.0.1:{port}",)})
            await until(lambda: a.link._open)
            for _ in range(5):  # the dialler gets hold of it
                await asyncio.sleep(0)
            a.link.set_peers({})
            await until(lambda: not a.link._open, "the connection is closed", 1.0)
        await a.link.close()

    run(scenario)


def test_a_url_of_the_other_scheme_is_never_dialled() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        await b.listen()
        a.link.set_peers({b.id: (b.url.replace("http:", "https:"),)})
        await until(lambda: a.log.having("scheme"))
        assert not b.link._open
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_an_unknown_certified_peer_gets_its_answers(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, tls_of(pki, 1)), LinkMember(loop, 2, tls_of(pki, 2))
        await a.listen()
        b.link.set_peers({a.id: (a.url,)})  # a does not know of b
        await until(lambda: a.link.connected(b.id))
        a.link.send([a.beat(b.id)])
        a.link.send_frame(b.id, 4, b"reply", bulk=True)
        await until(lambda: b.messages and b.frames)
        assert a.link.counters.sent_messages == 1
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_a_renewed_certificate_is_used_before_the_old_connection_goes(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 0x11, tls_of(pki, 0x11)), LinkMember(loop, 0x12, tls_of(pki, 0x12))
        async with connected(a, b):
            before = a.link._out[b.id, CONTROL]
            product.issue(pki.directory, "member", "11", dns=["localhost"], ips=["127.0.0.1"])
            assert a.link.reload_tls() == ""
            await until(lambda: a.link._out.get((b.id, CONTROL)) is not before)
            assert a.link.connected(b.id)
            await until(lambda: before.gone.done())
            a.link.send([a.append(b.id, 1, [b"x"])])
            await until(lambda: b.messages)

    run(scenario)


def test_a_bad_renewal_keeps_what_works(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 0x21, tls_of(pki, 0x21)), LinkMember(loop, 0x22, tls_of(pki, 0x22))
        async with connected(a, b):
            files = pki.member_files(0x21)
            Path(files.key).write_bytes(Path(pki.member_files(0x22).key).read_bytes())
            contexts = a.link._tls
            assert contexts is not None
            server = contexts.server.current
            assert "KEY_VALUES_MISMATCH" in a.link.reload_tls()
            assert contexts.server.current is server
            for connection in list(a.link._open):
                connection._transport.abort()  # type: ignore[union-attr]
            await until(lambda: a.unreachable)
            await until(lambda: a.link._out.keys() >= {(b.id, CONTROL), (b.id, BULK)})

    run(scenario)


def test_a_certificate_that_runs_out_ends_its_open_connection(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ahead = [0]
        a = LinkMember(loop, 0x31, tls_of(pki, 0x31), now=lambda: int(time.time()) + ahead[0])
        b = LinkMember(loop, 0x32, tls_of(pki, 0x32))
        async with connected(a, b):
            ahead[0] = 40 * 86_400
            await until(lambda: a.log.having("certificate: expired"))
            await until(lambda: not a.link.connected(b.id))

    run(scenario)


def test_a_revoked_certificate_ends_its_open_connection_and_gets_no_new_one(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        denied: set[str] = set()
        a = LinkMember(loop, 0x41, tls_of(pki, 0x41), denied=lambda leaf: leaf.serial_hex in denied)
        b = LinkMember(loop, 0x42, tls_of(pki, 0x42))
        async with connected(a, b):
            leaf = a.link._out[b.id, CONTROL].leaf
            assert leaf is not None
            denied.add(leaf.serial_hex)
            await until(lambda: a.log.having("certificate: revoked"))
            await until(lambda: not a.link._in and not a.link._out)
            refused = a.link.counters.refused
            await until(lambda: a.link.counters.refused > refused + 1, "b knocks again")
            assert not a.link.connected(b.id)
            denied.clear()
            await until(lambda: a.link.connected(b.id))

    run(scenario)


def test_close_writes_out_what_was_queued() -> None:
    async def scenario() -> None:
        a, b = plain(1), plain(2)
        async with connected(a, b):
            address = a.link.addresses[0]
            a.link.send([a.beat(b.id)._replace(type=MessageType.TIMEOUT_NOW)])
            await a.link.close()
            await until(lambda: b.messages)
            assert b.messages[0][1].type is MessageType.TIMEOUT_NOW
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)

    run(scenario)


def test_three_members_find_each_other_whatever_the_order() -> None:
    async def scenario() -> None:
        members = [plain(1), plain(2), plain(3)]
        for member in members:
            await member.listen()
        introduce(members[0], members[1], members[2])
        await until(lambda: all(len(m.link._out) == 4 for m in members))
        await asyncio.gather(*(m.link.close() for m in members))

    run(scenario)
