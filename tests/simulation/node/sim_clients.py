"""Clients of a simulated cluster: what they asked, when, and what they were told.

Writes carry unique values. An answer that does not come, or says that the outcome is unknown,
leaves the operation open for ever. Each client stays with a member until something fails. Watchers
follow a prefix and go on elsewhere from where they were when their member is gone.

Not here: what the answers must have been (``tests.simulation.checkers``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from configsvc.apply.commands import Effects, Granted, Refused
from configsvc.apply.state import NO_SPACE
from configsvc.codec import command as codec
from configsvc.errors import CompactedError, ConfigServiceError, OverloadedError
from configsvc.mvcc.messages import RangeOp
from configsvc.proto import rpc_pb2
from configsvc.runtime.watch_hub import Watcher, WatchStream
from configsvc.types import KIND_NONE, KeySpan, Principal, Source, span_of
from tests.simulation.checkers.history import Operation, WatchHistory
from tests.simulation.node.sim_kernel import S

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node
    from tests.simulation.node.sim_world import World

KEYS = [b"k/%d" % i for i in range(6)]
EVERYTHING = KeySpan(b"k/", b"k0")
ANYBODY = Principal(KIND_NONE, "", "", "", "", "", "", "insecure-dev", "", "", 0)
ACTOR = codec.encode_actor(ANYBODY, Source("127.0.0.1", "", "other", ""))
TTLS = (2, 3, 5)


class Client:
    """One client: issues operations, one at a time or a few at once."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.kernel = world.kernel
        self.number = number
        self.node: Node | None = None
        self.lease = 0
        self.lease_ttl = 0
        self.known: dict[bytes, int] = {}  # key -> mod revision it saw last, for compares

    def _where(self) -> Life | None:
        """The member this client is connected to; another one after a failure."""
        if self.node is None or self.node.life is None or self.kernel.rng.random() < 0.02:
            self.node = self.kernel.rng.choice(list(self.world.nodes.values()))
        life = self.node.life
        return None if life is None or life.paused else life

    def act(self) -> None:
        life = self._where()
        if life is not None:
            life.post(0, self._act, life)

    def _act(self, life: Life) -> None:
        """As a request that arrives at the member."""
        if not life.member.state.bootstrapped:
            return
        what = self.kernel.rng.random()
        if what < 0.35:
            self._put(life)
        elif what < 0.45:
            self._delete(life)
        elif what < 0.6:
            self._swap(life)
        elif what < 0.9 or not self.world.swarm.leases:
            self._read(life)
        elif self.lease:
            self._renew(life)
        else:
            self._grant(life)

    # --- writes -----------------------------------------------------------------------------------

    def _key(self) -> bytes:
        return self.kernel.rng.choice(KEYS)

    def _value(self) -> bytes:
        self.world.values += 1
        return b"%d.%d" % (self.number, self.world.values)

    def _put(self, life: Life) -> None:
        key, value = self._key(), self._value()
        lease = self.lease if self.kernel.rng.random() < 0.2 else 0
        op = Operation("put", key, value=value, lease=lease)
        request = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
        self._submit(life, op, codec.OP_PUT, request.SerializeToString())

    def _delete(self, life: Life) -> None:
        op = Operation("delete", self._key())
        request = rpc_pb2.DeleteRangeRequest(key=op.key)
        self._submit(life, op, codec.OP_DELETE_RANGE, request.SerializeToString())

    def _swap(self, life: Life) -> None:
        """Put if the key is still as it was seen, else read it."""
        key, value = self._key(), self._value()
        expected = self.known.get(key, 0)
        op = Operation("swap", key, value=value, expected=expected)
        compare = rpc_pb2.Compare(
            key=key, target=rpc_pb2.Compare.MOD, result=rpc_pb2.Compare.EQUAL, mod_revision=expected
        )
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value))
        get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
        request = rpc_pb2.TxnRequest(compare=[compare], success=[put], failure=[get])
        self._submit(life, op, codec.OP_TXN, request.SerializeToString())

    def _submit(self, life: Life, op: Operation, field: int, request: bytes) -> None:
        op.called = self.kernel.now
        told: list[Effects] = []

        def encode(effects: Effects) -> bytes:
            told.append(effects)
            return b"done"

        def finish(result: bytes | ConfigServiceError) -> None:
            op.returned = self.kernel.now
            if isinstance(result, ConfigServiceError):
                self.node = None
                refused = isinstance(result, OverloadedError)
                self.world.count("refused for load" if refused else "unknown outcomes")
                return
            self._answered(op, told[0])

        self.world.operations.append(op)
        if op.kind != "delete" and life.member.state.over_quota(len(request)):
            op.impossible = True
            self.world.count("over the quota")
            with suppress(ConfigServiceError):
                life.member.raise_alarm(NO_SPACE)
            return
        try:
            waiting = life.member.proposals.submit(ACTOR, field, request, encode)
        except ConfigServiceError:
            op.impossible = True
            self.world.count("refused at once")
            return
        waiting.bind(finish)

    def _answered(self, op: Operation, effects: Effects) -> None:
        op.acknowledged = True
        op.revision = effects.revision
        result = effects.result
        if isinstance(result, Refused):
            op.refused = True
            return
        if op.kind == "swap":
            op.succeeded = bool(getattr(result, "succeeded", False))
            if not op.succeeded:
                kvs = result.responses[0].kvs  # type: ignore[union-attr]
                op.seen = kvs[0].value if kvs else None
                self.known[op.key] = kvs[0].mod_revision if kvs else 0
        elif op.kind == "delete":
            op.succeeded = bool(effects.rows)
        if effects.rows:
            self.known[op.key] = 0 if op.kind == "delete" else effects.revision
        self.world.count("acknowledged writes")

    # --- reads ------------------------------------------------------------------------------------

    def _read(self, life: Life) -> None:
        op = Operation("read", self._key(), called=self.kernel.now)
        store = life.member.store

        def answer() -> bytes:
            found = store.range_now(RangeOp(span_of(op.key, b""))).kvs
            op.seen = found[0].value if found else None
            op.revision = store.revision
            self.known[op.key] = found[0].mod_revision if found else 0
            return b"done"

        def finish(result: bytes | ConfigServiceError) -> None:
            op.returned = self.kernel.now
            if isinstance(result, ConfigServiceError):
                self.node = None
                return
            op.acknowledged = True
            self.world.count("reads")

        self.world.operations.append(op)
        try:
            waiting = life.member.reads.submit(answer)
        except ConfigServiceError:
            return
        waiting.bind(finish)

    # --- leases -----------------------------------------------------------------------------------

    def _grant(self, life: Life) -> None:
        called = self.kernel.now / S
        ttl = self.kernel.rng.choice(TTLS)
        told: list[Effects] = []

        def encode(effects: Effects) -> bytes:
            told.append(effects)
            return b"done"

        def finish(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                return
            granted = told[0].result
            if isinstance(granted, Granted):
                self.lease, self.lease_ttl = granted.id, granted.ttl
                self.world.leases.renewed(granted.id, called, granted.ttl)
                self.world.count("leases")

        request = rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=0).SerializeToString()
        try:
            life.member.proposals.submit(
                ACTOR, codec.OP_LEASE_GRANT, request, encode, needs_id=True
            ).bind(finish)
        except ConfigServiceError:
            return

    def _renew(self, life: Life) -> None:
        called, lease = self.kernel.now / S, self.lease
        if self.kernel.rng.random() < 0.3:
            self.lease = 0  # this one is left to run out
            return

        def told(ttl: int | ConfigServiceError) -> None:
            if isinstance(ttl, ConfigServiceError):
                return
            if ttl:
                self.world.leases.renewed(lease, called, ttl)
                self.world.count("renewals")
            elif self.lease == lease:
                self.lease = 0

        life.member.leases.renew(lease, told)


class WatchClient:
    """Follows everything from a revision on, over members, crashes and compactions.

    With ``shared_streams`` twice on one stream, each watch at its own place: what one of them is
    sent may fill the stream while the other one's events are on their way.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.kernel = world.kernel
        count = 2 if world.swarm.shared_streams else 1
        self.histories = [WatchHistory(EVERYTHING, start=2) for _ in range(count)]
        self._session: Session | None = None

    def act(self) -> None:
        """Connect if there is no connection; now and then leave, or read on."""
        session = self._session
        if session is None or not session.life.alive:
            self._connect()
        elif session.slow:
            session.slow = False
            session.life.post(0, session.life.member.hub.writable, session.stream)
        elif self.kernel.rng.random() < 0.05:
            session.life.post(0, session.life.member.hub.close, session.stream)
            self._session = None

    def _connect(self) -> None:
        self._session = None
        life = self.kernel.rng.choice(list(self.world.nodes.values())).life
        if life is None or life.paused or life.member.joining:
            return
        self._session = session = Session(self, life)
        for history in self.histories:
            history.connected()
        life.post(0, session.open, [history.next_revision for history in self.histories])

    def ended(self, session: Session) -> None:
        if session is self._session:
            self._session = None

    def holds(self, session: Session) -> bool:
        return session is self._session


class Session:
    """One watch stream of a watch client: the sink that the member writes to."""

    def __init__(self, client: WatchClient, life: Life) -> None:
        self.client = client
        self.life = life
        self.stream = WatchStream(self, lambda span: None, self._refused)
        self.slow = False

    def open(self, revisions: list[int]) -> None:
        for number, revision in enumerate(revisions):
            self.life.member.hub.add(
                self.stream,
                1 + number,
                EVERYTHING,
                revision,
                filters=0,
                prev_kv=True,
                progress=True,
                fragment=False,
            )

    def _refused(self, watcher: Watcher, error: ConfigServiceError) -> None:
        assert isinstance(error, CompactedError), f"I17 watch ended with {error!r}"
        if not self.client.holds(self):
            return
        floor = self.life.member.store.compact_revision
        assert watcher.next_revision < floor, "I17 watch cancelled without a compaction"
        self.client.histories[watcher.watch_id - 1].compacted(floor)
        self.client.world.count("watches overtaken")
        self.client.ended(self)
        if len(self.client.histories) > 1:
            self.life.post(0, self.life.member.hub.close, self.stream)

    def send(self, payload: bytes) -> bool:
        if not self.client.holds(self):
            return True
        response = rpc_pb2.WatchResponse.FromString(payload)
        history = self.client.histories[response.watch_id - 1]
        if response.events:
            history.batch(
                response.header.revision,
                [
                    (
                        e.kv.mod_revision,
                        e.kv.key,
                        None if e.type == e.DELETE else e.kv.value,
                        e.prev_kv.value if e.HasField("prev_kv") else None,
                    )
                    for e in response.events
                ],
            )
        else:
            history.progress(response.header.revision)
        self.slow = self.client.kernel.rng.random() < 0.1
        return not self.slow
