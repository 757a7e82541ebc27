"""Members find each other and exchange messages and frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from link_members import LinkMember, connected, tls_of, until

from configsvc.transport.link import PeerTls
from tests.support.pki import Pki

Tls = Callable[[int], PeerTls | None]


@pytest.fixture(params=["tls", "plaintext"])
def tls(request: pytest.FixtureRequest, pki: Pki) -> Tls:
    return (lambda m: tls_of(pki, m)) if request.param == "tls" else (lambda m: None)


async def _three(tls: Tls) -> list[LinkMember]:
    loop = asyncio.get_running_loop()
    return [LinkMember(loop, m, tls(m)) for m in (0xA, 0xB, 0xC)]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_messages_and_frames_arrive_in_order(
    tls: Tls, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def run() -> None:
        a, b, c = await _three(tls)
        async with connected(a, b, c):
            batch = [b"x" * 300] * 100
            sent = [a.append(b.id, 1, batch), a.append(c.id, 1, batch), a.beat(b.id)]
            a.link.send(sent)
            a.link.send([a.append(b.id, 101, batch)])
            await until(lambda: len(b.messages) == 3 and len(c.messages) == 1)
            appends = [m for _, m in b.messages if m.entries]
            assert appends == [sent[0], a.append(b.id, 101, batch)]
            assert (a.id, sent[2]) in b.messages
            assert c.messages == [(a.id, sent[1])]
            assert a.link.send_frame(b.id, 2, b"body")
            assert a.link.send_frame(b.id, 3, b"bulk", bulk=True)
            await until(lambda: len(b.frames) == 2)
            assert sorted(b.frames) == [(a.id, 2, b"body"), (a.id, 3, b"bulk")]
            assert a.link.connected(b.id)
            assert a.link.active_since(b.id) is not None
            assert {h.member_id for h in a.hellos} == {b.id, c.id}
            assert a.hellos[0].last_index == 7
        assert not a.link.connected(b.id)
        assert not a.unreachable

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def test_the_bytes_of_each_peer_are_counted(tls: Tls) -> None:
    """What one sent the other received; connections that ended stay in the sum."""

    async def run() -> None:
        a, b, c = await _three(tls)
        async with connected(a, b, c):
            sent, quiet = a.link.counters.peers[b.id], a.link.counters.peers[c.id].sent
            got = b.link.counters.peers[a.id]
            await until(lambda: sent.sent == got.received)
            before = sent.sent
            assert before > 0
            assert a.link.send_frame(b.id, 2, b"x" * 10_000)
            await until(lambda: b.frames and sent.sent == got.received)
            assert 10_000 < sent.sent - before < 11_000
            assert a.link.counters.peers[c.id].sent - quiet < 1_000
        assert a.link.counters.peers[b.id].sent >= before + 10_000

    asyncio.run(run())
