"""Member to member: frames over mutual TLS, a control and a bulk connection per peer and direction.

Control carries what must never queue behind bulk: votes, heartbeats, acks, reads, calls. Each
member dials each known peer; a connection opened by an unknown but certified peer is used to
answer it (L4). Peers are accepted by certificate and hello, not by local configuration; only ids
known as removed are refused.

Not here: what the frames mean (``runtime``), encoding of raft messages (``codec.raft_wire``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from configsvc.codec.raft_wire import decode_messages, encode_messages
from configsvc.codec.records import RecordCache
from configsvc.config import split_url
from configsvc.errors import DecodeError
from configsvc.identity.certificate import CertificateRejected, check_time, parse_leaf
from configsvc.net.contexts import ReloadableContext
from configsvc.net.shell import TlsConnection
from configsvc.raft.messages import Message, MessageType
from configsvc.transport.connection import PeerConnection
from configsvc.transport.hello import BULK, CONTROL, Hello
from configsvc.types import KIND_MEMBER, NodeId

FRAME_RAFT: Final = 1
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
CONNECT_S: Final = 2.0
ACCEPTED_MAX: Final = 256  # connections that others opened; beyond it new ones are refused
_BULK_TYPES: Final = frozenset({MessageType.APP, MessageType.SNAP})
_MEMBERS: Final = frozenset({KIND_MEMBER})


class Report(Protocol):
    def info(self, caller: str, msg: str, **fields: Any) -> None: ...

    def warn(self, caller: str, msg: str, **fields: Any) -> None: ...


class HelloState(NamedTuple):
    """The part of our hello that changes."""

    term: int
    last_index: int


class Handler(Protocol):
    """Who gets what arrives; all calls on the loop."""

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None: ...

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None: ...

    def on_hello(self, peer: NodeId, hello: Hello) -> str:
        """Why to refuse a peer whose certificate, cluster and mark fit; empty to accept it."""

    def on_unreachable(self, peer: NodeId) -> None: ...

    def on_refused(self, peer: NodeId) -> None:
        """Nobody listens at the peer's address."""


class PeerTls(NamedTuple):
    """Contexts of both sides; None for plaintext under --insecure-dev."""

    server: ReloadableContext
    client: ReloadableContext
    trust_domain: str


class PeerTransport:
    """All peer connections of one member."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        self_id: NodeId,
        cluster_id: int,
        store_id: bytes,
        incarnation: int,
        insecure: bool,
        tls: PeerTls | None,
        state: Callable[[], HelloState],
        handler: Handler,
        records: RecordCache,
        report: Report,
        now: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._self_id = self_id
        self._cluster_id = cluster_id
        self._store_id = store_id
        self._incarnation = incarnation
        self._insecure = insecure
        self._tls = tls
        self._state = state
        self._handler = handler
        self._records = records
        self._report = report
        self._now = now
        self._urls: dict[NodeId, tuple[str, ...]] = {}
        self._removed: frozenset[NodeId] = frozenset()
        self._diallers: dict[tuple[NodeId, int], asyncio.Task[None]] = {}
        self._out: dict[tuple[NodeId, int], PeerConnection] = {}
        self._accepted: set[PeerConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._stopping = False
        self.refused_total = 0
        self.sent_frames_total = 0

    # --- lifecycle -------------------------------------------------------------------------------

    async def listen(self, urls: Sequence[str]) -> None:
        """Open the peer port. Raises ``OSError`` when an address cannot be bound."""
        for url in urls:
            _, host, port = split_url(url)
            server = await self._loop.create_server(
                self._accept, host, port, backlog=64, start_serving=True
            )
            self._servers.append(server)

    async def close(self) -> None:
        self._stopping = True
        for server in self._servers:
            server.close()
        for task in self._diallers.values():
            task.cancel()
        for connection in [*self._out.values(), *self._accepted]:
            connection.close("this member stops")
        await asyncio.sleep(0)

    def reload_tls(self) -> str:
        """Read the files of both contexts anew; empty when they are in force."""
        if self._tls is None:
            return ""
        return self._tls.server.reload() or self._tls.client.reload()

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        """Whom to dial, at which advertised URLs (P15)."""
        wanted = {who: tuple(urls) for who, urls in peers.items() if urls and who != self._self_id}
        for who in [w for w in self._urls if self._urls[w] != wanted.get(w)]:
            self._forget(who)
        self._urls = wanted
        for who in sorted(wanted):
            for lane in (CONTROL, BULK):
                if (who, lane) not in self._diallers:
                    self._diallers[who, lane] = self._loop.create_task(self._dial(who, lane))

    def set_removed(self, ids: Sequence[NodeId]) -> None:
        """Ids that are never accepted again; their connections are closed (PKI-9)."""
        self._removed = frozenset(ids)
        for connection in [*self._out.values(), *self._accepted]:
            if connection.hello is not None and connection.hello.member_id in self._removed:
                connection.close("the member was removed")

    def _forget(self, who: NodeId) -> None:
        for lane in (CONTROL, BULK):
            task = self._diallers.pop((who, lane), None)
            if task is not None:
                task.cancel()
            connection = self._out.pop((who, lane), None)
            if connection is not None:
                connection.close("the peer's URLs changed")

    # --- sending ---------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Raft messages; what cannot be queued is dropped and reported as unreachable."""
        batches: dict[tuple[NodeId, int], list[Message]] = {}
        for message in messages:
            lane = BULK if message.type in _BULK_TYPES else CONTROL
            batches.setdefault((message.to, lane), []).append(message)
        for (who, lane), batch in batches.items():
            connection = self._connection(who, lane)
            sent = connection is not None and connection.send(
                FRAME_RAFT, encode_messages(batch, self._records)
            )
            if sent:
                self.sent_frames_total += 1
            elif lane == BULK:
                # Not from within the core's own step: the pass that sends may hold its Ready.
                self._loop.call_soon(self._handler.on_unreachable, who)

    def send_frame(self, peer: NodeId, kind: int, body: bytes, *, bulk: bool = False) -> bool:
        """Any other frame; False when it was not queued."""
        connection = self._connection(peer, BULK if bulk else CONTROL)
        return connection is not None and connection.send(kind, body)

    def _connection(self, who: NodeId, lane: int) -> PeerConnection | None:
        found = self._out.get((who, lane))
        if found is not None and found.hello is not None:
            return found
        for connection in self._accepted:
            hello = connection.hello
            if hello is not None and hello.member_id == who and connection.lane == lane:
                return connection
        return None

    def connected(self, peer: NodeId) -> bool:
        return self._connection(peer, CONTROL) is not None

    def active_since(self, peer: NodeId) -> float | None:
        """Loop time since which the control connection is up; None when it is down."""
        connection = self._connection(peer, CONTROL)
        return connection.since if connection is not None else None

    # --- dialling --------------------------------------------------------------------------------

    async def _dial(self, who: NodeId, lane: int) -> None:
        backoff = BACKOFF_MIN_S
        at = 0
        while not self._stopping:
            urls = self._urls.get(who, ())
            if not urls:
                return
            url = urls[at % len(urls)]
            at += 1
            connection = await self._try(url, who, lane)
            if connection is not None:
                began = self._loop.time()
                await connection.gone
                if connection.hello is not None and self._loop.time() - began > BACKOFF_MAX_S:
                    backoff = BACKOFF_MIN_S
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            backoff = min(BACKOFF_MAX_S, backoff * 2)

    async def _try(self, url: str, who: NodeId, lane: int) -> PeerConnection | None:
        try:
            scheme, host, port = split_url(url)
            tls = None
            if scheme == "https":
                if self._tls is None:
                    return None
                tls = TlsConnection(
                    self._tls.client.current, server_side=False, server_hostname=host
                )
            made = PeerConnection(self, self._loop, tls, dialled=True, lane=lane, expected=who)
            async with asyncio.timeout(CONNECT_S):
                await self._loop.create_connection(lambda: made, host, port)
        except ConnectionRefusedError:
            # Nobody listens there: the process is gone, which says more than silence does.
            self._handler.on_refused(who)
            return None
        except (OSError, TimeoutError, ValueError):
            return None
        return made

    def _accept(self) -> PeerConnection:
        tls = None
        if self._tls is not None:
            tls = TlsConnection(self._tls.server.current, server_side=True)
        made = PeerConnection(self, self._loop, tls, dialled=False)
        if len(self._accepted) >= ACCEPTED_MAX or self._stopping:
            self._loop.call_soon(made.close, "too many peer connections")
        self._accepted.add(made)
        return made

    # --- what connections ask --------------------------------------------------------------------

    def own_hello(self, lane: int) -> Hello:
        state = self._state()
        return Hello(
            lane,
            self._insecure,
            self._cluster_id,
            self._self_id,
            self._store_id,
            self._incarnation,
            state.term,
            state.last_index,
        )

    def judge(self, connection: PeerConnection, hello: Hello, der: bytes | None) -> str:
        """Certificate, ids, cluster, mark; then whatever the member knows about the peer."""
        if self._tls is not None:
            try:
                leaf = parse_leaf(der or b"", trust_domain=self._tls.trust_domain, kinds=_MEMBERS)
                check_time(leaf, self._now())
            except CertificateRejected as error:
                return str(error)
            if leaf.name != f"{hello.member_id:016x}":
                return "the certificate names another member"
        if hello.insecure != self._insecure:
            return "one side was born under --insecure-dev, the other was not"
        if hello.cluster_id != self._cluster_id:
            return "member of another cluster"
        if hello.member_id == self._self_id:
            return "the peer claims to be this member"
        if connection.expected and connection.expected != hello.member_id:
            return "another member answers at this URL"
        if hello.member_id in self._removed:
            return "the member was removed"
        return self._handler.on_hello(NodeId(hello.member_id), hello)

    def opened(self, connection: PeerConnection) -> None:
        hello = connection.hello
        if hello is None:
            return
        who = NodeId(hello.member_id)
        if connection.dialled:
            self._out[who, connection.lane] = connection
            return
        # A new start of the peer replaces the connections of the one before (L3).
        for other in list(self._accepted):
            if (
                other is not connection
                and other.hello is not None
                and other.hello.member_id == who
                and (other.lane == connection.lane or other.hello.incarnation < hello.incarnation)
            ):
                other.close("replaced by a newer connection")

    def frame(self, connection: PeerConnection, kind: int, body: bytes) -> None:
        hello = connection.hello
        if hello is None:
            raise DecodeError("a frame before the hello")
        who = NodeId(hello.member_id)
        if who in self._removed:
            raise DecodeError("the member was removed")
        if kind != FRAME_RAFT:
            self._handler.on_frame(who, kind, body)
            return
        messages = decode_messages(body)
        if any(m.from_ != who or m.to != self._self_id for m in messages):
            raise DecodeError("a message in somebody else's name")
        self._handler.on_messages(who, messages)

    def closed(self, connection: PeerConnection, reason: str) -> None:
        self._accepted.discard(connection)
        hello = connection.hello
        if hello is None:
            if reason != "closed by the peer" and not self._stopping:
                self.refused_total += 1
                self._report.warn("transport", "peer connection refused", reason=reason)
            return
        who = NodeId(hello.member_id)
        if self._out.get((who, connection.lane)) is connection:
            del self._out[who, connection.lane]
        if not self._stopping:
            self._report.info(
                "transport", "peer connection closed", peer=f"{who:016x}", reason=reason
            )
            self._handler.on_unreachable(who)
