"""Member to member: frames over mutual TLS, a control and a bulk connection per peer and direction.

Control carries what must never queue behind bulk: votes, heartbeats, acks, reads, calls. Each
member dials each known peer; where our own connection is down, one that the peer opened is used,
so an unknown but certified peer gets its answers (L4).

Always true:
  * A message is handed up only under the id that its connection's certificate names.
  * Nothing here waits or blocks; what does not fit into its bound is dropped and reported.
  * One refused or malformed connection changes nothing but a counter and one log line.

Not here: what frames mean (``runtime``), encoding raft messages (``codec.raft_wire``), who may
connect (``transport.admission``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from configsvc import __version__
from configsvc.codec.raft_wire import decode_messages
from configsvc.codec.records import RecordCache
from configsvc.config import split_url
from configsvc.errors import DecodeError
from configsvc.identity.certificate import CertificateRejected, LeafIdentity, check_time
from configsvc.identity.member_ids import member_name
from configsvc.limits import (
    PEER_CONNECTIONS_MAX,
    PEER_MISBEHAVED_MAX,
    PEER_PROGRESS_S,
    PEER_SILENCE_S,
)
from configsvc.net.gathering import Gathering
from configsvc.net.shell import TlsConnection
from configsvc.net.sockets import bind
from configsvc.raft.messages import Message, MessageType
from configsvc.transport.admission import REMOVED, judge_hello, judge_leaf, plausible
from configsvc.transport.connection import PeerConnection
from configsvc.transport.dialling import NOBODY_LISTENS, Dialler
from configsvc.transport.frames import FRAME_OWN_MIN, FRAME_RAFT
from configsvc.transport.hello import BULK, CONTROL, LANES, Hello, Refusal
from configsvc.transport.joining import JoinAnswer, decode_question, encode_join_answer
from configsvc.transport.listening import PeerListener
from configsvc.transport.ports import Handler, HelloState, LinkCounters, PeerTls, Report
from configsvc.types import NodeId

__all__ = [
    "Handler",
    "Hello",
    "HelloState",
    "LinkCounters",
    "PeerTls",
    "PeerTransport",
    "Refusal",
    "Report",
]

_BULK_TYPES: Final = frozenset({MessageType.APP, MessageType.SNAP})
_LOOK_S: Final = 0.25  # between two looks at all connections
_COMPLAIN_AGAIN_S: Final = 60.0
_Way = tuple[NodeId, int]  # peer and lane


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
        epoch: int = 0,
        progress_s: float = PEER_PROGRESS_S,
        silence_s: float = PEER_SILENCE_S,
        on_refused: Callable[[NodeId, Refusal], None] | None = None,
        on_misbehaved: Callable[[NodeId], None] | None = None,
        on_gone: Callable[[NodeId], None] | None = None,
        denied: Callable[[LeafIdentity], bool] = lambda leaf: False,
    ) -> None:
        """Make a transport that neither listens nor dials yet.

        Args:
            loop: on which everything happens.
            self_id: this member.
            cluster_id: other clusters' members are refused.
            store_id: 16 bytes of this data directory.
            incarnation: of this start.
            insecure: the store's mark.
            tls: None is plaintext, for an insecure store only.
            state: asked for each hello and each frame of messages; must be cheap.
            handler: gets what arrives.
            records: shared with the log, so that entries are encoded once.
            report: log lines.
            now: seconds of the Unix epoch, for certificates.
            epoch: of the cluster id, grown by restores.
            progress_s: bytes that wait that long without one leaving end a connection.
            silence_s: likewise for a peer from which nothing comes.
            on_refused: a peer refused us; the code is the exit code it asks of us, or 0.
            on_misbehaved: a peer sent malformed frames more than once or twice.
            denied: whether a serial or identity is revoked; asked again while connected (PKI-13).
            on_gone: nobody listens at a peer's address: its process is gone.
        """
        self._loop = loop
        self._self_id = self_id
        self._cluster_id = cluster_id
        self._store_id = store_id
        self._incarnation = incarnation
        self._insecure = insecure
        self._tls = tls
        self._state = state
        self._term_of = lambda: state().term
        self._handler = handler
        self._records = records
        self._report = report
        self._now = now
        self._epoch = epoch
        self._progress_s = progress_s
        self._silence_s = silence_s
        self._on_refused = on_refused
        self._on_gone = on_gone
        self._denied = denied
        self._on_misbehaved = on_misbehaved
        self._removed: frozenset[NodeId] = frozenset()
        self._diallers: dict[_Way, Dialler] = {}
        self._out: dict[_Way, PeerConnection] = {}  # opened by us
        self._in: dict[_Way, PeerConnection] = {}  # opened by them
        self._open: dict[PeerConnection, None] = {}  # all, in the order they began
        self._listeners: list[PeerListener] = []
        self._lost: set[NodeId] = set()  # to be reported as unreachable after this pass
        self._complaints: dict[str, tuple[str, float]] = {}  # last one, by peer or address
        self._misbehaved: dict[NodeId, int] = {}
        gathering = Gathering(loop)
        self.has_output = gathering.add
        self.cork, self.uncork, self.flush = gathering.cork, gathering.uncork, gathering.flush
        self._stopping = False
        self._looker: asyncio.TimerHandle | None = None
        self._looked = loop.time()
        self.counters = LinkCounters()

    # --- lifecycle -------------------------------------------------------------------------------

    async def listen(self, urls: Sequence[str]) -> None:
        """Open the peer port.

        Raises:
            OSError: an address cannot be bound.
            ValueError: not a URL of a host and a port.
        """
        for url in urls:
            _, host, port = split_url(url)
            socks = bind(host, port)
            self._listeners.append(PeerListener(self._loop, socks, self._accept, self._report))
        self._look()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, with the ports that the system chose for port 0."""
        return [address for listener in self._listeners for address in listener.addresses]

    async def close(self) -> None:
        """Write out what is queued and end; returns when the sockets are closed, or soon after."""
        self._stopping = True
        arriving = {task for listener in self._listeners for task in listener.close()}
        if self._looker is not None:
            self._looker.cancel()
        ending: set[asyncio.Future[None]] = {d.close() for d in self._diallers.values()}
        self._diallers.clear()
        for connection in list(self._open):
            connection.finish("this member stops")
        if arriving:  # each is closed as soon as it has its transport
            await asyncio.wait(arriving, timeout=1.0)
        ending.update(connection.gone for connection in self._open)
        if ending:
            await asyncio.wait(ending, timeout=1.0)

    def reload_tls(self) -> str:
        """Read the files of both contexts anew; "" when they are in force, else why not.

        Peers are dialled again under the new context while the old connections still work.
        """
        if self._tls is None:
            return ""
        problem = self._tls.reload()
        if not problem:
            for dialler in self._diallers.values():
                dialler.renew()
        return problem

    # --- whom to talk to -------------------------------------------------------------------------

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        """Whom to dial, at which advertised URLs; a changed URL is dialled anew (P15)."""
        wanted = {
            NodeId(who): tuple(urls)
            for who, urls in peers.items()
            if urls and who != self._self_id and who not in self._removed
        }
        for way in [w for w, dialler in self._diallers.items() if wanted.get(w[0]) != dialler.urls]:
            self._stop_dialling(way)
        if self._stopping:
            return
        for who in sorted(wanted):
            for lane in LANES:
                if (who, lane) not in self._diallers:
                    self._diallers[who, lane] = self._dialler(who, lane, wanted[who])

    def set_removed(self, ids: Sequence[NodeId]) -> None:
        """Ids that are never accepted again; they are told so and cut off (PKI-9)."""
        self._removed = frozenset(ids)
        for way in [way for way in self._diallers if way[0] in self._removed]:
            self._stop_dialling(way)
        for connection in list(self._open):
            if connection.peer in self._removed:
                connection.refuse(REMOVED)

    def _dialler(self, who: NodeId, lane: int, urls: Sequence[str]) -> Dialler:
        def make(tls: TlsConnection | None) -> PeerConnection:
            return PeerConnection(self, self._loop, tls, dialled=True, lane=lane, expected=who)

        def failed(reason: str) -> None:
            self._complain(f"{who:016x}", reason, peer=f"{who:016x}")
            if reason is NOBODY_LISTENS and self._on_gone is not None:
                self._on_gone(who)

        return Dialler(self._loop, urls, self._tls and self._tls.client, make, failed)

    def _stop_dialling(self, way: _Way) -> None:
        self._diallers.pop(way).close()
        connection = self._out.get(way)
        if connection is not None and connection.peer not in self._removed:
            connection.finish("the peer's URLs changed")
        for young in list(self._open):  # its dialler let go of it before its hello
            if young.dialled and young.hello is None and (young.expected, young.lane) == way:
                young.close("the peer's URLs changed")

    # --- sending ---------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Queue raft messages; what cannot be queued is dropped and reported as unreachable."""
        out = self._out
        dropped = 0
        for message in messages:
            lane = BULK if message.type in _BULK_TYPES else CONTROL
            connection = out.get((message.to, lane)) or self._in.get((message.to, lane))
            records = self._records.encode(message.entries) if message.entries else b""
            if connection is None or not connection.send_message(message, records):
                dropped += 1
                if lane == BULK:
                    self._unreachable(message.to)
        self.counters.sent_messages += len(messages) - dropped
        self.counters.dropped += dropped

    def send_frame(self, peer: NodeId, kind: int, body: bytes, *, bulk: bool = False) -> bool:
        """Queue any other frame; False when it was not queued."""
        way = (peer, BULK if bulk else CONTROL)
        connection = self._out.get(way) or self._in.get(way)
        if connection is None or not connection.send_frame(kind, body):
            self.counters.dropped += 1
            return False
        self.counters.sent_frames += 1
        return True

    def _unreachable(self, peer: NodeId) -> None:
        """Report later: the core may be in the middle of the step that sends."""
        if not self._lost:
            self._loop.call_soon(self._tell_lost)
        self._lost.add(peer)

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, set()
        if not self._stopping:
            for peer in sorted(lost):
                self._handler.on_unreachable(peer)

    def connected(self, peer: NodeId) -> bool:
        """Whether control messages to ``peer`` have a way."""
        return self.active_since(peer) is not None

    def active_since(self, peer: NodeId) -> float | None:
        """Loop time since which a control connection is up; None when none is."""
        way = (peer, CONTROL)
        found = [c.since for c in (self._out.get(way), self._in.get(way)) if c]
        return min(found, default=None)

    # --- accepting and watching ------------------------------------------------------------------

    def _accept(self) -> PeerConnection:
        tls = None
        if self._tls is not None:
            tls = TlsConnection(self._tls.server.current, server_side=True)
        return PeerConnection(self, self._loop, tls, dialled=False)

    def _look(self) -> None:
        """Look at all connections, and at the certificates behind them (PKI-13)."""
        if self._looker is not None:
            self._looker.cancel()
        self._looker = self._loop.call_later(_LOOK_S, self._look)  # whatever is found
        now = self._loop.time()
        stood_still = now - self._looked > 4 * _LOOK_S
        self._looked = now
        second = self._now()
        for connection in list(self._open):
            if stood_still:
                connection.excuse(now)
            if connection.leaf is not None:
                problem = self._problem_of(connection.leaf, second)
                if problem:
                    connection.close(problem)
            connection.look(now, progress_s=self._progress_s, silence_s=self._silence_s)

    # --- what connections ask --------------------------------------------------------------------

    def began(self, connection: PeerConnection) -> None:
        """A connection has its socket; at the bound the oldest unfinished one must go (LIM-3)."""
        self._open[connection] = None
        if self._stopping:
            connection.close("this member stops")
        if connection.dialled:
            return
        accepted = [c for c in self._open if not c.dialled]
        if len(accepted) > PEER_CONNECTIONS_MAX:
            young = next((c for c in accepted if c.hello is None), connection)
            young.close("too many peer connections")

    def own_hello(self, lane: int, to: int) -> Hello:
        """What we say on a new connection."""
        state = self._state()
        return Hello(
            lane,
            self._insecure,
            self._cluster_id,
            self._self_id,
            to,
            self._store_id,
            self._incarnation,
            self._epoch,
            state.term,
            state.last_index,
            __version__,
        )

    def judge_leaf(self, connection: PeerConnection, der: bytes | None) -> str:
        """A member's certificate of our trust domain, in time and not denied."""
        if self._tls is None:
            return ""
        try:
            leaf = judge_leaf(der, trust_domain=self._tls.trust_domain)
        except CertificateRejected as error:
            return f"certificate: {error.reason}"
        connection.leaf = leaf
        return self._problem_of(leaf, self._now())

    def _problem_of(self, leaf: LeafIdentity, second: int) -> str:
        """What speaks against a leaf now: connections outlive certificates and revocations."""
        try:
            check_time(leaf, second)
        except CertificateRejected as error:
            return f"certificate: {error.reason}"
        return "certificate: revoked" if self._denied(leaf) else ""

    def judge_hello(self, connection: PeerConnection, hello: Hello) -> Refusal | None:
        """Certificate, cluster and mark; an older start; then whatever the member knows."""
        refusal = judge_hello(
            hello,
            self.own_hello(connection.lane, 0),
            leaf_name=connection.leaf_name,
            expected=connection.expected,
            removed=self._removed,
        )
        if refusal is not None:
            return refusal
        who = NodeId(hello.member_id)
        if any(c.hello and c.hello.incarnation > hello.incarnation for c in self._all_of(who)):
            return Refusal(0, "an earlier start of a member that is connected")
        told = self._handler.on_hello(who, hello)
        if isinstance(told, Refusal):
            return told
        return Refusal(0, told) if told else None

    def asked_to_join(self, connection: PeerConnection, body: bytes) -> bytes | Refusal:
        """Which cluster a new member belongs to; only its own certificate may ask for it."""
        question = decode_question(body)
        if question.insecure != self._insecure:
            return Refusal(0, "one side was born under --insecure-dev, the other was not")
        if self._tls is not None and connection.leaf_name != member_name(question.member_id):
            return Refusal(0, "the certificate names another member")
        who = self._handler.on_join(question)
        if isinstance(who, Refusal):
            return who
        answer = JoinAnswer(self._cluster_id, self._epoch, who, self._insecure)
        return encode_join_answer(answer)

    def opened(self, connection: PeerConnection) -> None:
        """Both hellos are said: the connection replaces what was there before (L3)."""
        hello = connection.hello
        if hello is None:
            return
        who = NodeId(hello.member_id)
        for other in self._all_of(who):
            if other.hello and other.hello.incarnation < hello.incarnation:
                other.close("replaced by a newer start of the peer")
        ways = self._out if connection.dialled else self._in
        before = ways.get((who, connection.lane))
        ways[who, connection.lane] = connection
        if before is not None and before is not connection:
            before.finish("replaced by a newer connection")
        for lane in LANES:
            dialler = self._diallers.get((who, lane))
            if dialler is not None and not connection.dialled:
                dialler.hurry()
        self._complaints.pop(f"{who:016x}", None)
        self._report.info(
            "transport",
            "peer connected",
            peer=f"{who:016x}",
            lane="bulk" if connection.lane == BULK else "control",
            direction="out" if connection.dialled else "in",
        )

    def _all_of(self, who: NodeId) -> list[PeerConnection]:
        return [c for c in self._open if c.peer == who]

    def frame(self, connection: PeerConnection, kind: int, body: bytes) -> None:
        """Hand up a frame of an accepted peer."""
        who = connection.peer
        if who in self._removed:  # at once, whatever was still on its way (PKI-9)
            return
        if kind >= FRAME_OWN_MIN or kind < FRAME_RAFT:
            raise DecodeError("frame of an unknown kind")
        self.counters.received_frames += 1
        if kind != FRAME_RAFT:
            self._handler.on_frame(who, kind, body)
            return
        messages, unknown = decode_messages(body)
        self.counters.unknown += unknown
        good = plausible(messages, sender=who, to=self._self_id, term=self._term_of)
        self.counters.absurd += len(messages) - len(good)
        self.counters.received_messages += len(good)
        if good:
            self._handler.on_messages(who, good)

    def refused(self, connection: PeerConnection, refusal: Refusal) -> None:
        """The other side does not want us; what follows from it is the member's to decide."""
        who = connection.peer or connection.expected
        proven = self._tls is None or connection.leaf_name == member_name(who)
        if self._on_refused is not None and who and proven:
            self._on_refused(who, refusal)

    def misbehaved(self, connection: PeerConnection) -> None:
        """Count malformed frames of one peer; strangers only cost a log line."""
        self.counters.misbehaved += 1
        who = connection.peer
        if not who:
            return
        self._misbehaved[who] = self._misbehaved.get(who, 0) + 1
        if self._misbehaved[who] == PEER_MISBEHAVED_MAX and self._on_misbehaved is not None:
            self._on_misbehaved(who)

    def closed(self, connection: PeerConnection, reason: str) -> None:
        """Forget a connection; one log line, and the core hears if its way is gone."""
        self._open.pop(connection, None)
        who = connection.peer
        ways = self._out if connection.dialled else self._in
        in_use = ways.get((who, connection.lane)) is connection
        if in_use:
            del ways[who, connection.lane]
        if self._stopping:
            return
        if connection.hello is None:
            self.counters.refused += 1
            key = f"{connection.expected:016x}" if connection.dialled else connection.address
            self._complain(key, reason, peer=key)
            return
        self._report.info("transport", "peer connection closed", peer=f"{who:016x}", reason=reason)
        if in_use and (connection.dialled or (who, connection.lane) not in self._out):
            self._unreachable(who)

    def _complain(self, key: str, reason: str, **fields: str) -> None:
        """Log a refusal once in a while, not at every attempt."""
        now = self._loop.time()
        before, when = self._complaints.get(key, ("", 0.0))
        if self._stopping or (before == reason and now - when < _COMPLAIN_AGAIN_S):
            return
        if len(self._complaints) >= PEER_CONNECTIONS_MAX:
            self._complaints.clear()
        self._complaints[key] = reason, now
        self._report.warn("transport", "no peer connection", reason=reason, **fields)
