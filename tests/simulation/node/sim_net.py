"""The network between members: raft messages as datagrams, everything else as ordered streams.

Raft messages may be lost, repeated, delayed and overtaken one by one, which is harsher than the
product's connections. Frames (forwarded writes, calls, installs) keep the order of a connection
and are lost only with it, because the rooms above rely on that. A connection stands while both
ends live and may reach each other; it begins with the hello that the product would judge.

A link may be slow (``bandwidth``: what is sent waits in the product's own queue), clogged (all that
arrives is held, and then comes at once) or half-open: one end has lost its connection and dials
again, while the other one's words go to a connection that nobody has, until that was silent for so
long that it is closed (L5).

Not here: what is cut when (``sim_faults``), queues (``sim_lanes``), TLS (tests of ``transport``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from configsvc.limits import PEER_SILENCE_S
from configsvc.raft.messages import Message, MessageType
from configsvc.transport.admission import REMOVED
from configsvc.transport.hello import Refusal
from configsvc.types import NodeId
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_lanes import Lane, is_bulk, lane_of

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life
    from tests.simulation.node.sim_world import World

LOOK_NS: Final = 100 * MS
SILENCE_NS: Final = 1 * S  # a connection without progress for so long is closed (L5);
# what fits into the socket's buffer makes progress, and then it takes PEER_SILENCE_S
BACKOFF_NS: Final = 500 * MS
ORDINARY_DELAY: Final = (100_000, 2 * MS)
LATE_NS: Final = 10 * S  # how late a repeated message may come

Pair = tuple[NodeId, NodeId]


class Connection:
    """What stands between two starts of two members."""

    def __init__(self, now: int) -> None:
        self.since = now
        self.blocked_since: int | None = None
        self.broken = False
        self.last: dict[tuple[NodeId, bool], int] = {}  # (to, bulk) -> when its last frame arrives
        self.lanes: dict[tuple[NodeId, bool], Lane] = {}  # (from, bulk), once the link was slow


class Net:
    """All links of a cluster."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.cut: set[Pair] = set()  # directed; only asked, never iterated
        self.loss: dict[Pair, float] = {}
        self.delay: dict[Pair, int] = {}  # longest, beyond the ordinary
        self.duplicates = 0.0
        self.reorder = False
        self.silence = int(PEER_SILENCE_S * S) if world.swarm.long_silence else SILENCE_NS
        self.bandwidth: dict[Pair, int] = {}  # bytes per second
        self._clogged: dict[Pair, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        self._void: dict[Pair, Connection] = {}  # who believes in it, and the end that lost it
        self._connections: dict[Pair, Connection] = {}
        self._retry_at: dict[Pair, int] = {}
        self.kernel.at(LOOK_NS, self._look)

    # --- faults -----------------------------------------------------------------------------------

    def calm(self) -> None:
        """No more faults on any link."""
        self.cut.clear()
        self.loss.clear()
        self.delay.clear()
        self.duplicates = 0.0
        self.reorder = False
        for link in list(self.bandwidth):
            self.widen(link)
        for link in list(self._clogged):
            self.unclog(link)
        for way in list(self._void):
            self._silent(way, self._void[way])

    def widen(self, link: Pair) -> None:
        """The link takes everything again."""
        self.bandwidth.pop(link, None)
        connection = self.standing(*link)
        for bulk in (False, True):
            lane = connection.lanes.get((link[0], bulk)) if connection is not None else None
            if lane is not None:
                lane.hurry()

    def clog(self, link: Pair) -> None:
        """What arrives from now on is held."""
        self._clogged.setdefault(link, [])

    def unclog(self, link: Pair) -> None:
        """What was held arrives at once, in order."""
        held = self._clogged.pop(link, [])
        for arrive, args in held:
            self.kernel.at(0, arrive, *args)
        if held:
            self.world.count("held and then at once")

    def half_open(self, believer: NodeId, loser: NodeId) -> bool:
        """One end loses its connections without a word to the other; False: there is none."""
        way, connection = (believer, loser), self.standing(believer, loser)
        if connection is None or way in self._void or way[::-1] in self._void:
            return False
        self._void[way] = connection
        connection.broken = True
        self._retry_at[_pair(*way)] = self.kernel.now + self.kernel.rng.randrange(BACKOFF_NS)
        self._told_unreachable(loser, believer)
        self.kernel.at(int(PEER_SILENCE_S * S), self._silent, way, connection)
        return True

    def _silent(self, way: Pair, connection: Connection) -> None:
        """The believer gives up what nobody answers on; it may have another way by now."""
        if self._void.get(way) is connection:
            del self._void[way]
            self._told_unreachable(*way)

    def _told_unreachable(self, who: NodeId, peer: NodeId) -> None:
        life = self.world.nodes[who].life
        if life is not None:
            life.post(0, life.member.on_unreachable, peer)

    def reset(self, one: NodeId, other: NodeId) -> None:
        """The connection breaks; both sides notice at once."""
        self._break(_pair(one, other))
        for way in ((one, other), (other, one)):
            if way in self._void:
                self._silent(way, self._void[way])

    def gone(self, who: NodeId, *, silently: bool) -> None:
        """A process ended: its peers see it at once, or after a silence if its machine went."""
        for way in [way for way in self._void if way[0] == who]:
            del self._void[way]  # the belief went with the believer
        for pair, connection in self._connections.items():
            if who in pair:
                if silently:
                    connection.blocked_since = self.kernel.now
                else:
                    self._break(pair)
        if not silently:
            for node in self.world.nodes.values():
                if node.life is not None and node.id != who and node.life.knows(who):
                    for attempt in (1, 2):
                        if not self.blocked(node.id, who):
                            node.life.post(attempt * 60 * MS, _refused_dial, node.life, who)

    def started(self, who: NodeId) -> None:
        """Whoever held on to a connection of the start before learns that it is gone."""
        for way in [way for way in self._void if who in way]:
            self._silent(way, self._void[way])  # a newer start replaces what was (L3)
        for pair in self._connections:
            if who in pair:
                self._break(pair)

    def blocked(self, one: NodeId, other: NodeId) -> bool:
        return (one, other) in self.cut or (other, one) in self.cut

    # --- connections ------------------------------------------------------------------------------

    def standing(self, one: NodeId, other: NodeId) -> Connection | None:
        connection = self._connections.get(_pair(one, other))
        return None if connection is None or connection.broken else connection

    def believed(self, one: NodeId, other: NodeId) -> Connection | None:
        """What ``one`` holds for its connection: the other end may have lost it."""
        return self._void.get((one, other)) or self.standing(one, other)

    def _look(self) -> None:
        """Break what is silent, connect what may be."""
        self.kernel.at(LOOK_NS, self._look)
        nodes = sorted(self.world.nodes)
        now = self.kernel.now
        for at, one in enumerate(nodes):
            for other in nodes[at + 1 :]:
                pair = (one, other)
                connection = self._connections.get(pair)
                reachable = self._reachable(one, other)
                if connection is None or connection.broken:
                    if reachable and now >= self._retry_at.get(pair, 0):
                        self._connect(pair)
                elif reachable:
                    connection.blocked_since = None
                elif connection.blocked_since is None:
                    connection.blocked_since = now
                elif now - connection.blocked_since > self.silence:
                    self._break(pair)

    def _reachable(self, one: NodeId, other: NodeId) -> bool:
        a, b = self.world.nodes[one].life, self.world.nodes[other].life
        if a is None or b is None or a.paused or b.paused or self.blocked(one, other):
            return False
        return a.knows(other) or b.knows(one)

    def _connect(self, pair: Pair) -> None:
        a, b = (self.world.nodes[who].life for who in pair)
        assert a is not None
        assert b is not None
        refused = self._judge(a, b)
        refused = self._judge(b, a) or refused
        if refused or not (a.alive and b.alive):
            self._retry_at[pair] = self.kernel.now + BACKOFF_NS
            return
        self._connections[pair] = Connection(self.kernel.now)

    def _judge(self, judge: Life, speaker: Life) -> bool:
        """Whether ``judge`` refuses ``speaker``, which is told why."""
        who, by = speaker.node.id, judge.node.id
        verdict: Refusal | str = REMOVED
        if who not in judge.removed:
            verdict = judge.member.membership.judge_hello(who, speaker.hello(by))
        if verdict == "":
            return False
        if isinstance(verdict, Refusal):
            self.world.count("refused hellos")
            speaker.post(0, speaker.member.membership.refused, by, verdict)
        return True

    def dismiss(self, judge: Life, who: NodeId) -> None:
        """``judge`` learned that a member was removed: the connection ends with a word (PKI-9)."""
        life = self.world.nodes[who].life if who in self.world.nodes else None
        if life is None or self.standing(judge.node.id, who) is None:
            return
        life.post(MS, life.member.membership.refused, judge.node.id, REMOVED)
        self._break(_pair(judge.node.id, who))

    def _break(self, pair: Pair) -> None:
        connection = self._connections.get(pair)
        if connection is None or connection.broken:
            return
        connection.broken = True
        self._retry_at[pair] = self.kernel.now + self.kernel.rng.randrange(BACKOFF_NS)
        for who, peer in (pair, pair[::-1]):
            self._told_unreachable(who, peer)

    # --- traffic ----------------------------------------------------------------------------------

    def datagrams(self, sender: Life, messages: Sequence[Message]) -> None:
        """Raft messages; those for one peer travel together unless links reorder."""
        one = sender.node.id
        groups: dict[NodeId, list[Message]] = {}
        for message in messages:
            groups.setdefault(message.to, []).append(message)
        for peer, group in groups.items():
            if (one, peer) in self._void:
                self.world.count("vanished")
                continue
            connection = self.standing(one, peer)
            if connection is None:
                if sender.knows(peer):
                    sender.post(0, sender.member.on_unreachable, peer)
                continue
            if connection.lanes or (one, peer) in self.bandwidth:
                group = self._queued(connection, sender, peer, group)
                if not group:
                    continue
            if self.reorder:
                for message in group:
                    self.datagram(one, peer, (message,))
            else:
                self.datagram(one, peer, tuple(group))

    def _queued(
        self, connection: Connection, sender: Life, peer: NodeId, group: list[Message]
    ) -> list[Message]:
        """Messages of a slow link wait; what is left need not."""
        rest = []
        for message in group:
            lane = lane_of(self, connection, sender, peer, bulk=is_bulk(message))
            if lane is None:
                rest.append(message)
            elif not lane.send_message(message) and is_bulk(message):
                sender.post(0, sender.member.on_unreachable, peer)
        return rest

    def datagram(self, one: NodeId, peer: NodeId, group: tuple[Message, ...]) -> None:
        rng, link = self.kernel.rng, (one, peer)
        if rng.random() < self.loss.get(link, 0.0):
            self.world.count("lost")
        else:
            self.kernel.at(self._latency(link), self._arrive, one, peer, group)
        if rng.random() < self.duplicates:
            self.world.count("repeated")
            late = rng.randrange(rng.choice((10 * MS, S, LATE_NS)))
            self.kernel.at(late, self._arrive, one, peer, group)

    def _latency(self, link: Pair) -> int:
        rng = self.kernel.rng
        most = self.delay.get(link, 0)
        extra = int(most * rng.random() ** 3) if most else 0  # a heavy tail
        return rng.randrange(*ORDINARY_DELAY) + extra

    def _arrive(self, one: NodeId, peer: NodeId, group: tuple[Message, ...]) -> None:
        if self._hold((one, peer), self._arrive, one, peer, group):
            return
        node = self.world.nodes.get(peer)
        if (one, peer) in self.cut or node is None or node.life is None:
            return
        if one in node.life.removed:
            return  # its connection would not have been accepted
        node.life.post(0, node.life.hear, one, group)

    def _hold(self, link: Pair, arrive: Callable[..., None], *args: Any) -> bool:
        held = self._clogged.get(link)
        if held is None:
            return False
        held.append((arrive, args))
        return True

    def frame(self, sender: Life, peer: NodeId, kind: int, body: bytes, bulk: bool) -> bool:
        one = sender.node.id
        if (one, peer) in self._void:
            self.world.count("vanished")
            return True
        connection = self.standing(one, peer)
        if connection is None:
            return False
        lane = lane_of(self, connection, sender, peer, bulk=bulk)
        if lane is not None:
            return lane.send_frame(kind, body)
        self.carry(connection, one, peer, kind, body, bulk=bulk)
        return True

    def carry(
        self,
        connection: Connection,
        one: NodeId,
        peer: NodeId,
        kind: int,
        body: bytes,
        *,
        bulk: bool,
    ) -> None:
        """A frame is on its way: behind the one before it."""
        lane = (peer, bulk)
        arrives = max(
            connection.last.get(lane, 0) + 1, self.kernel.now + self._latency((one, peer))
        )
        connection.last[lane] = arrives
        self._deliver_at(arrives, connection, one, peer, kind, body)

    def _deliver_at(
        self, at: int, connection: Connection, one: NodeId, peer: NodeId, kind: int, body: bytes
    ) -> None:
        self.kernel.at(at - self.kernel.now, self._frame, connection, one, peer, kind, body)

    def _frame(
        self, connection: Connection, one: NodeId, peer: NodeId, kind: int, body: bytes
    ) -> None:
        if self._hold((one, peer), self._frame, connection, one, peer, kind, body):
            return
        life = self.world.nodes[peer].life
        if connection.broken or life is None:
            return
        if (one, peer) in self.cut:
            # Sent again and again; all frames wait alike, so their order stays.
            self._deliver_at(self.kernel.now + 50 * MS, connection, one, peer, kind, body)
            return
        life.post(0, life.member.on_frame, one, kind, body)


class SimLink:
    """The face of ``PeerTransport`` for one start of one member."""

    def __init__(self, net: Net, life: Life) -> None:
        self._net = net
        self._life = life
        self._since: dict[NodeId, tuple[Connection, float]] = {}

    def send(self, messages: Sequence[Message]) -> None:
        self._life.crash_point()
        for message in messages:
            assert message.type is not MessageType.SNAP, "installs take another way"
            self._life.checks.sent(self._life.node, message)
        self._net.datagrams(self._life, messages)

    def cork(self) -> None:
        """Everything leaves at once here."""

    def uncork(self) -> None:
        """As ``cork``."""

    def flush(self) -> None:
        """As ``cork``."""

    def send_frame(self, peer: NodeId, kind: int, body: bytes, *, bulk: bool = False) -> bool:
        self._life.crash_point()
        return self._net.frame(self._life, peer, kind, body, bulk)

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        self._life.peers = set(peers)

    def set_removed(self, ids: Sequence[NodeId]) -> None:
        fresh = [who for who in ids if who not in self._life.removed]
        self._life.removed = set(ids)
        for who in fresh:
            if who != self._life.node.id:
                self._net.dismiss(self._life, who)

    def active_since(self, peer: NodeId) -> float | None:
        connection = self._net.believed(self._life.node.id, peer)
        if connection is None:
            return None
        known = self._since.get(peer)
        if known is not None and known[0] is connection:
            return known[1]
        age = (self._net.kernel.now - connection.since) / S
        since = float(self._life.clock.monotonic()) - age
        self._since[peer] = (connection, since)
        return since

    def connected(self, peer: NodeId) -> bool:
        return self._net.believed(self._life.node.id, peer) is not None


def _refused_dial(life: Life, who: NodeId) -> None:
    """A dial found nobody listening."""
    life.member.elections.refused(who)


def _pair(one: NodeId, other: NodeId) -> Pair:
    return (one, other) if one < other else (other, one)
