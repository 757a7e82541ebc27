"""What the peer link is given: contexts, callbacks, the changing part of its hello; counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from configsvc.identity.revocation_lists import Revocations
from configsvc.limits import PEER_CONNECTIONS_MAX
from configsvc.net.contexts import ReloadableContext, TlsSetupError
from configsvc.raft.messages import Message
from configsvc.transport.hello import Hello, Refusal
from configsvc.transport.joining import JoinQuestion
from configsvc.types import NodeId


class Report(Protocol):
    """Where log lines go."""

    def info(self, caller: str, msg: str, **fields: Any) -> None: ...

    def warn(self, caller: str, msg: str, **fields: Any) -> None: ...


class HelloState(NamedTuple):
    """The part of our hello that changes."""

    term: int
    last_index: int  # last durable entry


class Handler(Protocol):
    """Who gets what arrives; all calls on the loop, none from within a call of ours."""

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None:
        """Raft messages whose sender and receiver were checked."""

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        """Any other frame. Raises ``DecodeError``: malformed, the connection is closed."""

    def on_hello(self, peer: NodeId, hello: Hello) -> str | Refusal:
        """Why to refuse a peer whose certificate, cluster and mark fit; "" to accept it."""

    def on_join(self, question: JoinQuestion) -> NodeId | Refusal:
        """The id of a member that was added and has no store yet, or why it may not join."""

    def on_unreachable(self, peer: NodeId) -> None:
        """Messages to the peer were dropped, or the way to it broke."""


class PeerTls(NamedTuple):
    """Contexts of both sides; there is none for plaintext under --insecure-dev."""

    server: ReloadableContext
    client: ReloadableContext
    trust_domain: str
    revocations: Revocations  # both contexts are made of the same files

    def reload(self) -> str:
        """Both contexts out of the files anew, or neither; why not, or ""."""
        try:
            server, client = self.server.load(), self.client.load()
        except TlsSetupError as error:
            return str(error)
        self.server.current, self.client.current = server, client
        self.revocations.take()
        return ""


@dataclass(slots=True)
class PeerBytes:
    """Bytes of one peer's connections as they were on the wire, TLS included."""

    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class LinkCounters:
    """Since the start; for metrics."""

    sent_messages: int = 0
    sent_frames: int = 0  # without raft messages
    received_messages: int = 0
    received_frames: int = 0
    dropped: int = 0  # not sent: queue full or nobody there
    unknown: int = 0  # raft messages of a kind we do not know
    absurd: int = 0  # with a term or index that cannot be
    refused: int = 0  # connections that ended before they were accepted
    misbehaved: int = 0  # malformed frames
    peers: dict[NodeId, PeerBytes] = field(default_factory=dict)

    def bytes_of(self, peer: NodeId) -> PeerBytes:
        """Where the bytes of an accepted peer are counted; removed peers keep their place."""
        if peer not in self.peers and len(self.peers) >= PEER_CONNECTIONS_MAX:
            return PeerBytes()
        return self.peers.setdefault(peer, PeerBytes())
