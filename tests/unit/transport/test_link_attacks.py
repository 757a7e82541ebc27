"""What members, strangers and other people's certificates try on the peer port (RAFT-1, 3, N49)."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from link_members import CLUSTER, LinkMember, connected, tls_of, until

from configsvc import limits
from configsvc.codec.raft_wire import encode_messages
from configsvc.codec.records import RecordCache
from configsvc.errors import ExitCode
from configsvc.identity.member_ids import member_name
from configsvc.net.contexts import ALPN_PEER, TlsFiles, client_context
from configsvc.raft.messages import Message, MessageType
from configsvc.transport import connection as connection_module
from configsvc.transport import link as link_module
from configsvc.transport.frames import FRAME_HELLO, FRAME_RAFT, frame_head
from configsvc.transport.hello import CONTROL, Hello, Refusal, encode_hello
from configsvc.types import LogIndex, NodeId, Term
from tests.support.pki import CLIENT, SERVER, Pki, odd_leaf, uri


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))  # type: ignore[arg-type]


def frame(kind: int, body: bytes) -> bytes:
    return frame_head(kind, len(body)) + body


def hello(me: int, **changes: object) -> bytes:
    made = Hello(CONTROL, True, CLUSTER, me, 0, bytes(16), 1, 0, 1, 1, "test")
    return frame(FRAME_HELLO, encode_hello(made._replace(**changes)))  # type: ignore[arg-type]


class Stranger:
    """Speaks bytes to a member's peer port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, member: LinkMember, context: ssl.SSLContext | None = None) -> Stranger:
        host, port = member.link.addresses[0]
        return cls(
            *await asyncio.open_connection(
                host, port, ssl=context, server_hostname="localhost" if context else None
            )
        )

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        try:
            return await self.reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            self.writer.transport.abort()


def dialler_context(files: TlsFiles) -> ssl.SSLContext:
    return client_context(files, alpn=ALPN_PEER)


# --- plaintext: bytes that are no peer ------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(os.urandom(4_000), id="random"),
        pytest.param(struct.pack("<IBB", 2**32 - 1, 1, 1), id="absurd-length"),
        pytest.param(frame(FRAME_RAFT, b"x" * 90), id="no-hello"),
        pytest.param(frame(FRAME_HELLO, b"GET / HTTP/1.1"), id="no-magic"),
        pytest.param(hello(2) + struct.pack("<IBB", 2**31, 1, 1), id="absurd-after-hello"),
        pytest.param(hello(2) + frame(FRAME_RAFT, b"x" * 90), id="junk-messages"),
        pytest.param(hello(2) + frame(2, b"malformed"), id="malformed-for-the-runtime"),
        pytest.param(hello(2) + frame(230, b""), id="unknown-kind-of-ours"),
        pytest.param(hello(2) + hello(2), id="two-hellos"),
    ],
)
def test_junk_closes_its_connection_and_nothing_else(junk: bytes) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, c = LinkMember(loop, 1, None), LinkMember(loop, 3, None)
        async with connected(a, c):
            lines = len(a.log.lines)
            stranger = await Stranger.connect(a)
            stranger.say(junk)
            await stranger.rest()
            await until(lambda: a.link.counters.misbehaved == 1)
            assert len(a.log.lines) - lines <= 2  # connected, if it got so far; and why it ended
            assert a.messages == []
            assert a.frames == []
            assert len(a.link._out) == len(a.link._in) == 2
            c.link.send([c.beat(a.id)])
            await until(lambda: a.messages)

    run(scenario)


@pytest.mark.parametrize(
    ("sender", "to"),
    [pytest.param(9, 1, id="foreign-sender"), pytest.param(2, 9, id="foreign-receiver")],
)
def test_messages_in_another_name_are_not_handed_up(sender: int, to: int) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        stranger = await Stranger.connect(a)
        good = Message(MessageType.HEARTBEAT, NodeId(1), NodeId(2), Term(5))
        bad = Message(MessageType.HEARTBEAT, NodeId(to), NodeId(sender), Term(5))
        body = encode_messages([good, bad], RecordCache())
        stranger.say(hello(2) + frame(FRAME_RAFT, body))
        await stranger.rest()
        assert a.messages == []
        assert a.log.having("somebody else's name")
        await a.link.close()

    run(scenario)


def test_absurd_terms_and_indices_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        stranger = await Stranger.connect(a)
        good = Message(MessageType.HEARTBEAT, NodeId(1), NodeId(2), Term(6))
        bad = [
            good._replace(term=Term(5 + 2**32 + 1)),
            good._replace(index=LogIndex(2**62 + 1)),
            good._replace(commit=LogIndex(2**63)),
        ]
        later = b"\xc8" + encode_messages([good], RecordCache())[1:]
        body = encode_messages([*bad, good], RecordCache()) + later
        stranger.say(hello(2) + frame(FRAME_RAFT, body))
        await until(lambda: a.messages)
        assert a.messages == [(2, good)]
        assert a.link.counters.absurd == 3
        assert a.link.counters.unknown == 1
        stranger.writer.transport.abort()
        await a.link.close()

    run(scenario)


def test_a_peer_that_keeps_misbehaving_is_reported_once() -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        for _ in range(limits.PEER_MISBEHAVED_MAX + 1):
            stranger = await Stranger.connect(a)
            stranger.say(hello(2) + frame(FRAME_RAFT, b"junk"))
            await stranger.rest()
        await until(lambda: a.link.counters.misbehaved == limits.PEER_MISBEHAVED_MAX + 1)
        assert a.misbehaved == [2]
        await a.link.close()

    run(scenario)


@pytest.mark.parametrize("start", [b"", hello(2)[:9]], ids=["silent", "dripping"])
def test_an_unfinished_handshake_has_a_deadline(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_SECONDS_MAX", 0.2)

    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        stranger = await Stranger.connect(a)
        stranger.say(start)
        await stranger.rest()
        await until(lambda: a.log.having("no handshake in time"))
        await a.link.close()

    run(scenario)


def test_too_many_connections_close_the_oldest_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PEER_CONNECTIONS_MAX", 6)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, None), LinkMember(loop, 2, None)
        async with connected(a, b):
            strangers = [await Stranger.connect(a) for _ in range(20)]
            await strangers[0].rest()
            await until(lambda: len([c for c in a.link._open if not c.dialled]) <= 6)
            assert len(a.link._in) == 2  # the peer's own were not touched
            b.link.send([b.beat(a.id)])
            await until(lambda: a.messages)
            for stranger in strangers:
                stranger.writer.transport.abort()

    run(scenario)


# --- hellos that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"cluster_id": 7}, "another cluster", id="cluster"),
        pytest.param({"insecure": False}, "--insecure-dev", id="mark"),
        pytest.param({"epoch": 1}, "epoch", id="epoch"),
        pytest.param({"member_id": 1}, "claims to be this member", id="impostor"),
        pytest.param({"member_id": 0}, "another member", id="nobody"),
        pytest.param({"to": 9}, "another member answers", id="wrong-target"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes: dict[str, object], reason: str) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, None)
        await a.listen()
        stranger = await Stranger.connect(a)
        stranger.say(hello(2, **changes))
        answer = await stranger.rest()
        assert reason.encode() in answer
        assert a.log.having(reason)
        assert not a.hellos
        await a.link.close()

    run(scenario)


def test_both_sides_of_a_mismatch_say_why_and_stay_up() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, None), LinkMember(loop, 2, None, cluster_id=0xC2)
        await a.listen()
        await b.listen()
        a.link.set_peers({b.id: (b.url,)})
        await until(lambda: a.refusals)
        assert a.refusals[0] == (b.id, Refusal(0, "member of another cluster"))
        assert b.log.having("another cluster")
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_the_runtime_can_refuse_with_an_exit_code() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, None), LinkMember(loop, 2, None)
        b.verdict = Refusal(ExitCode.WRONG_IDENTITY, "another store id")
        await a.listen()
        await b.listen()
        a.link.set_peers({b.id: (b.url,)})
        await until(lambda: a.refusals)
        assert a.refusals[0] == (b.id, Refusal(85, "another store id"))
        assert not a.link.connected(b.id)
        b.verdict = ""
        await until(lambda: a.link.connected(b.id))
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_a_removed_member_is_deaf_at_once_and_told_so() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, None), LinkMember(loop, 2, None)
        async with connected(a, b):
            b.link.send([b.beat(a.id)])
            a.link.set_removed([b.id])
            await until(lambda: b.refusals)
            assert b.refusals[0] == (a.id, Refusal(88, "the member was removed from the cluster"))
            await until(lambda: not a.link._open)
            assert a.messages == []
            refusals = len(b.refusals)
            await until(lambda: len(b.refusals) > refusals)  # dials again, is refused again
            assert not a.link.connected(b.id)

    run(scenario)


# --- certificates ---------------------------------------------------------------------------------


async def refused_by(member: LinkMember, files: TlsFiles, me: int) -> str:
    """Dial with these files, say a perfect hello and a heartbeat; the reason in the log."""
    before = len(member.log.lines)
    stranger = None
    try:
        stranger = await Stranger.connect(member, dialler_context(files))
        stranger.say(hello(me, insecure=False))
        heartbeat = Message(MessageType.HEARTBEAT, member.id, NodeId(me), Term(5))
        stranger.say(frame(FRAME_RAFT, encode_messages([heartbeat], RecordCache())))
        assert await stranger.rest() == b"" or member.log.lines[before:]
    except (ssl.SSLError, ConnectionError):
        pass
    await until(lambda: member.log.lines[before:], "the refusal is logged")
    assert member.messages == []
    assert member.hellos == []
    return member.log.lines[before]


@pytest.mark.parametrize("kind", ["user", "agent", "service", "server"])
def test_other_kinds_of_certificates_are_refused_by_the_handshake(pki: Pki, kind: str) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1))
        await a.listen()
        issuer = "server" if kind == "server" else "client"
        files = pki.files(kind, "node7", "peer")
        assert "certificate refused" in await refused_by(a, files, 7)
        # With the issuing CA sent along, it still is not the one that we trust.
        chain = pki.directory / f"{kind}-chain.pem"
        ca_pem = (pki.directory / f"ca-{issuer}.pem").read_text()
        chain.write_text(Path(files.cert).read_text() + ca_pem)
        a.link._complaints.clear()  # the same reason is logged once a minute
        reason = await refused_by(a, TlsFiles(str(chain), files.key, files.ca), 7)
        assert "certificate refused" in reason
        await a.link.close()

    run(scenario)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(
            lambda ca: odd_leaf(ca, uris=[uri("user", "root")], usages=[CLIENT, SERVER]),
            "this kind of identity",
            id="user-from-the-peer-ca",
        ),
        pytest.param(
            lambda ca: odd_leaf(ca, uris=[uri("member", member_name(8))], usages=[CLIENT, SERVER]),
            "names another member",
            id="another-member",
        ),
        pytest.param(
            lambda ca: odd_leaf(
                ca, uris=[uri("member", member_name(7)), uri("member", member_name(8))],
                usages=[CLIENT, SERVER],
            ),
            "exactly one URI",
            id="two-uris",
        ),
        pytest.param(
            lambda ca: odd_leaf(ca, uris=[uri("member", member_name(7))], usages=None),
            "extended key usage",
            id="no-eku",
        ),
        pytest.param(
            lambda ca: odd_leaf(
                ca, uris=[uri("member", member_name(7), "other.example")], usages=[CLIENT, SERVER]
            ),
            "trust domain",
            id="trust-domain",
        ),
    ],
)  # fmt: skip
def test_leaves_of_the_peer_ca_that_are_not_that_member(
    pki: Pki, make: Callable[..., object], reason: str
) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1))
        await a.listen()
        odd = make(pki.authority("peer"))
        files = pki.write("odd-peer", odd.certificate, odd.key, "peer")  # type: ignore[attr-defined]
        assert reason in await refused_by(a, files, 7)
        await a.link.close()

    run(scenario)


def test_the_dialler_checks_host_name_and_member(pki: Pki) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, b = LinkMember(loop, 1, tls_of(pki, 1)), LinkMember(loop, 2, tls_of(pki, 2))
        await a.listen()
        await b.listen()
        a.link.set_peers({NodeId(3): (b.url,)})  # 2 answers where 3 is expected
        await until(lambda: a.log.having("another member") or a.refusals)
        assert not a.link.connected(NodeId(3))
        odd = odd_leaf(
            pki.authority("peer"), uris=[uri("member", member_name(2))], usages=[CLIENT, SERVER]
        )
        files = pki.write("no-host", odd.certificate, odd.key, "peer")
        contexts = b.link._tls
        assert contexts is not None
        contexts.server.files = files
        contexts.server.current = contexts.server.load()
        a.link.set_peers({b.id: (b.url,)})
        await until(lambda: a.log.having("IP address mismatch"))
        assert not a.link.connected(b.id)
        await asyncio.gather(a.link.close(), b.link.close())

    run(scenario)


def test_plaintext_on_a_tls_port_is_closed(pki: Pki) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1))
        await a.listen()
        stranger = await Stranger.connect(a)
        stranger.say(hello(7))
        await stranger.rest()
        assert not a.hellos
        await until(lambda: a.log.lines)
        await a.link.close()

    run(scenario)
