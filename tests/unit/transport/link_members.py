"""Members that consist of a peer link only, over real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from configsvc.codec.records import RecordCache
from configsvc.errors import DecodeError
from configsvc.identity.revocation_lists import Revocations
from configsvc.net.contexts import ALPN_PEER, ReloadableContext, client_context, server_context
from configsvc.raft.messages import Entry, Message, MessageType
from configsvc.transport.hello import Hello, Refusal
from configsvc.transport.joining import JoinQuestion
from configsvc.transport.link import HelloState, PeerTls, PeerTransport
from configsvc.types import LogIndex, NodeId, Term
from tests.support.pki import TRUST_DOMAIN, Pki

CLUSTER = 0xC1
NOBODY_JUDGES = lambda files: None  # noqa: E731


class LogLines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.append(f"info {msg} {fields}")

    def warn(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.append(f"warn {msg} {fields}")

    def having(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


class LinkMember:
    """Keeps what its link hands up."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        me: int,
        tls: PeerTls | None,
        *,
        cluster_id: int = CLUSTER,
        incarnation: int = 1,
        insecure: bool = False,
        store_id: bytes = b"",
        epoch: int = 0,
        now: Callable[[], int] = lambda: int(time.time()),
        **more: Any,
    ) -> None:
        self.id = NodeId(me)
        self.log = LogLines()
        self.messages: list[tuple[NodeId, Message]] = []
        self.frames: list[tuple[NodeId, int, bytes]] = []
        self.unreachable: list[NodeId] = []
        self.hellos: list[Hello] = []
        self.refusals: list[tuple[NodeId, Refusal]] = []
        self.misbehaved: list[NodeId] = []
        self.gone: list[NodeId] = []
        self.questions: list[JoinQuestion] = []
        self.joining: NodeId | Refusal = Refusal(0, "not in the member list")
        self.verdict: str | Refusal = ""
        self.term = 5
        self.link = PeerTransport(
            loop=loop,
            self_id=self.id,
            cluster_id=cluster_id,
            store_id=store_id or me.to_bytes(16, "big"),
            incarnation=incarnation,
            insecure=insecure or tls is None,
            tls=tls,
            state=lambda: HelloState(self.term, 7),
            handler=self,
            records=RecordCache(),
            report=self.log,
            now=now,
            epoch=epoch,
            on_refused=lambda peer, refusal: self.refusals.append((peer, refusal)),
            on_misbehaved=self.misbehaved.append,
            on_gone=self.gone.append,
            **more,
        )
        self.url = ""

    async def listen(self, url: str = "") -> None:
        scheme = "http" if self.link._tls is None else "https"
        await self.link.listen([url or f"{scheme}://127.0.0.1:0"])
        host, port = self.link.addresses[0]
        self.url = f"{scheme}://{host}:{port}"

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None:
        self.messages += [(peer, m) for m in messages]

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        if body == b"malformed":
            raise DecodeError("malformed body")
        self.frames.append((peer, kind, body))

    def on_hello(self, peer: NodeId, hello: Hello) -> str | Refusal:
        self.hellos.append(hello)
        return self.verdict

    def on_join(self, question: JoinQuestion) -> NodeId | Refusal:
        self.questions.append(question)
        return self.joining

    def on_unreachable(self, peer: NodeId) -> None:
        self.unreachable.append(peer)

    def beat(self, to: int, *, round_: int = 0, commit: int = 0) -> Message:
        return Message(
            MessageType.HEARTBEAT,
            NodeId(to),
            self.id,
            Term(self.term),
            commit=LogIndex(commit),
            read_round=round_,
        )

    def append(self, to: int, first: int, payloads: Sequence[bytes]) -> Message:
        entries = tuple(
            Entry(Term(self.term), LogIndex(first + at), 0, data)
            for at, data in enumerate(payloads)
        )
        return Message(
            MessageType.APP,
            NodeId(to),
            self.id,
            Term(self.term),
            log_term=Term(self.term),
            index=LogIndex(first - 1),
            entries=entries,
        )


def tls_of(pki: Pki, member: int, crl: str = "") -> PeerTls:
    """Contexts of one member, not judged; ``crl``: path of its revocation list."""
    files = dataclasses.replace(pki.member_files(member), crl=crl)
    revocations = Revocations()
    judge = revocations.judging(NOBODY_JUDGES)
    made = PeerTls(
        ReloadableContext(files, lambda f: server_context(f, alpn=ALPN_PEER), judge),
        ReloadableContext(files, lambda f: client_context(f, alpn=ALPN_PEER), judge),
        TRUST_DOMAIN,
        revocations,
    )
    revocations.take()
    return made


async def until(condition: Callable[[], object], what: str = "", seconds: float = 5.0) -> None:
    """Wait for something that another task brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"did not happen: {what or condition}")
        await asyncio.sleep(0.002)


def introduce(*members: LinkMember) -> None:
    """Everybody dials everybody."""
    for member in members:
        member.link.set_peers({m.id: (m.url,) for m in members})


@contextlib.asynccontextmanager
async def connected(*members: LinkMember) -> AsyncIterator[None]:
    """The members listen and have found each other on both lanes."""
    try:
        for member in members:
            await member.listen()
        introduce(*members)
        for a in members:
            for b in members:
                if a is not b:
                    await until(
                        lambda a=a, b=b: (b.id, 1) in a.link._out and (b.id, 0) in a.link._out,
                        f"{a.id} reaches {b.id}: {a.log.lines} {b.log.lines}",
                    )
        yield
    finally:
        await asyncio.gather(*(m.link.close() for m in members))
