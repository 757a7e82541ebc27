"""The asyncio shell of one member: passes, ticks, and who is told what when.

A pass drains what gathered (messages, proposals, reads), lets the machine handle what the core has
ready, and feeds callers and watchers. Whatever arrives wakes at most one pass. One pass makes one
log frame and at most one write per connection.

Always true:
  * Everything here runs on one event loop; threads come back through ``call_soon_threadsafe``.
  * A tick never runs ahead of messages that arrived during a stall (H2).
  * Nothing is served before the state that judges it is there (``ready``).

Not here: the order of consensus work (``runtime.machine``), composition (``server``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from configsvc.apply.applier import Applier
from configsvc.apply.commands import Command, Effects, Envelope, Granted
from configsvc.apply.rights import Rights
from configsvc.apply.state import CORRUPT, ApplyState
from configsvc.audit.checkpoint import Checkpoint, encode_checkpoint
from configsvc.audit.levels import Levels
from configsvc.auth.decide import Decider
from configsvc.auth.facts import facts_wanted
from configsvc.codec import command as codec
from configsvc.codec.answers import Headers
from configsvc.codec.confstate import encode_conf_state
from configsvc.codec.publishing import alarm_op
from configsvc.codec.records import RecordCache
from configsvc.config import ServerConfig
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    FatalError,
    ensure,
)
from configsvc.identity.tokens import TokenKey, TokenKeys, public_key
from configsvc.limits import CHECKPOINT_STOP_S
from configsvc.mvcc.store import Store
from configsvc.raft.errors import ProposalDropped
from configsvc.raft.messages import ConfState, HardState, Message, MessageType, Role, Snapshot
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.checkpoints import Checkpoints
from configsvc.runtime.cluster_health import ClusterHealth
from configsvc.runtime.disk_health import DiskHealth
from configsvc.runtime.elections import Elections
from configsvc.runtime.handover import Handover
from configsvc.runtime.history_gate import HistoryGate
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.runtime.install import CurrentReader, Installs, InstallStores
from configsvc.runtime.install_frames import INSTALL_FRAMES
from configsvc.runtime.leases import Leases
from configsvc.runtime.local_audit import LocalAudit
from configsvc.runtime.logins import Logins
from configsvc.runtime.machine import LogWriter, Machine, Net
from configsvc.runtime.membership import Membership
from configsvc.runtime.memory_health import MemoryHealth
from configsvc.runtime.proposals import Clock, Proposals
from configsvc.runtime.publishing import Publishing
from configsvc.runtime.reads import Reads
from configsvc.runtime.rpc import PeerCalls
from configsvc.runtime.waiting import Waiting
from configsvc.runtime.watch_hub import WatchHub
from configsvc.storage.local.writer import LocalWriter
from configsvc.storage.seal.errors import SealBroken
from configsvc.types import NodeId, Principal, Source

FRAME_FORWARD: Final = 3
FRAME_FORWARD_REPLY: Final = 4
FRAME_CALL: Final = 5
FRAME_CALL_REPLY: Final = 6
STALL_TICKS: Final = 3  # a timer this late means that the process stood still (H2)
READER_THREADS: Final = 2


class Report(Protocol):
    """The member's log."""

    def info(self, caller: str, msg: str, **fields: Any) -> None: ...

    def warn(self, caller: str, msg: str, **fields: Any) -> None: ...

    def error(self, caller: str, msg: str, **fields: Any) -> None: ...

    def debug(self, caller: str, msg: str, **fields: Any) -> None: ...


class PeerLink(Net, Protocol):
    """``transport``, as the member uses it."""

    def send_frame(self, peer: NodeId, kind: int, body: bytes, *, bulk: bool = False) -> bool: ...

    def set_peers(self, peers: dict[NodeId, Sequence[str]]) -> None: ...

    def set_removed(self, ids: Sequence[NodeId]) -> None: ...

    def active_since(self, peer: NodeId) -> float | None: ...

    def connected(self, peer: NodeId) -> bool: ...


@dataclass(kw_only=True)
class Parts:
    """What the composition root hands over, opened and recovered."""

    config: ServerConfig
    report: Report
    clock: Clock
    loop: asyncio.AbstractEventLoop
    self_id: NodeId
    cluster_id: int
    store_id: bytes
    incarnation: int
    raft: RawNode
    log: MemoryLog
    applier: Applier
    writer: LogWriter
    history: Any  # storage.history.HistoryWriter
    reader: Any  # storage.history.HistoryReader
    executor: Executor
    net: PeerLink
    conf_state: ConfState
    hard_state: HardState
    applied: int
    durable: int  # last index that the log holds
    written_revision: int
    history_durable: int  # applied index that SQL holds on disk
    token_key: TokenKey
    log_key: TokenKey
    wal: Any  # storage.wal.WalWriter: compact(up_to)
    install: InstallStores
    free_bytes: Callable[[], int]  # of the file system with log and history
    memory_used: Callable[[], int] = lambda: 0  # resident bytes of this process
    memory_bound: int = 0  # what it may have; 0: not known
    local: LocalWriter  # of stream L
    audit_levels: Levels
    records: RecordCache  # shared with the peer link
    bootstrap_op: bytes  # proposed by the first leader of a new cluster
    genesis: dict[int, tuple[str, ...]]  # id -> peer URLs of --initial-cluster
    die: Callable[[FatalError], None]  # ends the process with the error's code


class Member:
    """One running member. The facade that handlers use."""

    def __init__(self, parts: Parts) -> None:
        self.config = parts.config
        self.report = parts.report
        self.clock = parts.clock
        self.loop = parts.loop
        self.self_id = parts.self_id
        self.cluster_id = parts.cluster_id
        self.store_id = parts.store_id
        self.incarnation = parts.incarnation
        self.history = parts.history
        self.reader: Any = CurrentReader(parts.reader)
        self.net = parts.net
        self.wal = parts.wal
        self.die = parts.die
        self.token_key = parts.token_key
        self.log_key = parts.log_key
        self.state: ApplyState = parts.applier.state
        self.decider = Decider(self.state.auth)
        self._rights = Rights(self.state.auth, self.decider, self.state.lessor)
        self.headers = Headers(parts.cluster_id, parts.self_id)
        self.streams: set[Any] = set()  # running watch streams
        self.written_revision = parts.written_revision
        self.history_durable = parts.history_durable
        self.change_pending = False
        self.stopping = False
        self.leading_since_term = 0  # own term's first entry is applied: proposals may be stamped
        self._scheduled = False
        self._ready = False
        self._conf_submitted: ConfState | None = None
        self._ready_watchers: dict[Any, Callable[[], None]] = {}
        self._last_tick = parts.clock.monotonic()
        self._leader_lost_at: float | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._token_keys: tuple[Any, TokenKeys] = (None, {})
        self._facts_wanted = (-1, False)
        timeout = parts.config.request_timeout
        self.proposals = Proposals(
            self_id=parts.self_id,
            clock=parts.clock,
            entropy=os.urandom,
            forwarder=self,
            wake=self.wake,
            timeout=timeout,
        )
        self.reads = Reads(
            self_id=parts.self_id,
            incarnation=parts.incarnation,
            clock=parts.clock,
            wake=self.wake,
            timeout=timeout,
            heartbeat=parts.config.heartbeat_interval_ms / 1000,
        )
        self.calls = PeerCalls(clock=parts.clock, frames=self, timeout=timeout)
        self.gate = HistoryGate(
            parts.loop, parts.executor, self.report_failure, self._history_damaged
        )
        self.gate.written = parts.applied
        self.hub = WatchHub(
            store=self.state.store,
            header=lambda revision: self.headers.field(revision, self.term),
            rights_version=lambda: self.state.auth.version,
            gate=self.gate,
            history=self.reader,
            applied=lambda: self.applied,
            wake=self.wake,
        )
        self.leases = Leases(
            member=self,
            lessor=self.state.lessor,
            clock=parts.clock,
            proposals=self.proposals,
            reads=self.reads,
            calls=self.calls,
            election_timeout=parts.config.election_timeout_ms / 1000,
        )
        self.installs = Installs(self, parts.install)
        self.machine = Machine(
            raft=parts.raft,
            log=parts.log,
            applier=parts.applier,
            writer=parts.writer,
            net=self.installs,
            listener=self,
            conf_state=parts.conf_state,
            hard_state=parts.hard_state,
            applied=parts.applied,
            durable=parts.durable,
            records=parts.records,
        )
        parts.log.name_snapshots(self.installs.name_snapshot)
        self.local_store = local = parts.local.store
        self.audit = LocalAudit(
            self,
            writer=parts.local,
            head=local.head,
            mark=local.mark,
            known_actors=local.known_actors(),
            levels=parts.audit_levels,
            entropy=os.urandom,
        )
        self.membership = Membership(self)
        self.elections = Elections(self)
        self.logins = Logins(
            loop=parts.loop,
            clock=parts.clock,
            auth=lambda: self.state.auth,
            key=parts.token_key,
            issuer=self.issuer,
            audience=self.audience,
            record=self._record_login,
        )
        self.publishing = Publishing(self, parts.bootstrap_op, parts.genesis)
        self.checkpoints = Checkpoints(self, parts.install.data_dir / "local" / "log.signed")
        self.housekeeping = Housekeeping(self)
        self.handover = Handover(self)
        self.disk = DiskHealth(self, parts.free_bytes)
        self.cluster_health = ClusterHealth(self)
        self.memory = MemoryHealth(self, parts.memory_used, parts.memory_bound)

    # --- facts -----------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return self.state.store

    @property
    def auth(self) -> Any:
        return self.state.auth

    @property
    def term(self) -> int:
        return self.machine.raft.term

    @property
    def lead(self) -> NodeId:
        return self.machine.lead

    @property
    def is_leader(self) -> bool:
        return self.machine.role is Role.LEADER

    @property
    def applied(self) -> int:
        return self.machine.applied

    @property
    def committed(self) -> int:
        return self.machine.raft.commit_index

    @property
    def is_learner(self) -> bool:
        return self.self_id in self.machine.conf_state.learners

    @property
    def joining(self) -> bool:
        """Whether this member has no configuration yet: only an install gives it one."""
        conf = self.machine.conf_state
        return not conf.voters and not conf.learners

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def trust_domain(self) -> str:
        return self.config.trust_domain

    @property
    def issuer(self) -> str:
        return f"spiffe://{self.config.trust_domain}/cluster/{self.cluster_id:016x}"

    @property
    def audience(self) -> str:
        return f"{self.cluster_id:016x}"

    @property
    def token_keys(self) -> TokenKeys:
        """Public token keys in force, rebuilt when the replicated set changed."""
        held = self.state.signing_keys
        mark = (len(held), max((k.since_index for k in held.values()), default=0))
        if self._token_keys[0] != mark:
            keys = {
                k.kid: public_key(k.public, accepted=k.state in ("active", "retired"))
                for k in held.values()
                if k.use == "token"
            }
            self._token_keys = (mark, keys)
        return self._token_keys[1]

    @property
    def policy_facts(self) -> bool:
        """Whether the policy in force asks for the format of values."""
        auth = self.state.auth
        if self._facts_wanted[0] != auth.version:
            self._facts_wanted = (auth.version, facts_wanted(auth.policy))
        return self._facts_wanted[1]

    @property
    def log_origin(self) -> str:
        """Name of the audit log in checkpoints (TE-2)."""
        mark = "insecure/" if self.config.insecure_dev else ""
        return f"{mark}{self.config.trust_domain}/{self.cluster_id:016x}/audit/0"

    def sign_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        """This member's signature over a size whose leaves it holds (TE-3)."""
        return self.log_key.sign(encode_checkpoint(checkpoint).encode())

    def log_public_key(self, member: int) -> bytes | None:
        """A member's public log key, if it published one."""
        for key in self.state.signing_keys.values():
            if key.member == member and key.use == "log" and key.state == "active":
                return key.public
        return None

    def time_ns(self) -> int:
        return self.clock.time_ns()

    def has_alarm(self, alarm: int) -> bool:
        return any(kind == alarm for _, kind in self.state.alarms)

    def alarms(self) -> list[tuple[int, int]]:
        """(member, alarm), sorted."""
        return sorted(self.state.alarms)

    def peer_active_for(self, peer: NodeId) -> float:
        """Seconds that the connection to ``peer`` has been up; 0 when it is down."""
        since = self.net.active_since(peer)
        return self.clock.monotonic() - since if since is not None else 0.0

    def may_write_lease(self, principal: Principal, source: Source, lease_id: int) -> None:
        """Raise unless the caller may renew or revoke the lease (3.5)."""
        lease = self.state.lessor.leases.get(lease_id)
        if lease is None:
            return  # told as such by whoever renews or revokes it
        env = Envelope(0, principal, source, "", "", b"", (), "", self.time_ns(), False, 0, 0)
        self._rights.lease_write(self._rights.view(env), env, lease)

    def report_failure(self, error: BaseException) -> str:
        """Log an unexpected failure by class; the client only gets the id."""
        request_id = os.urandom(6).hex()
        self.report.error(
            "runtime", "a request failed", request_id=request_id, error_class=type(error).__name__
        )
        return request_id

    def _record_login(self, principal: Principal, source: Source, name: str, outcome: str) -> None:
        self.report.info(
            "auth",
            "login",
            identity=principal.cert_uri,
            address=source.ip,
            name=name if name in self.state.auth.users else "",  # people type passwords there
            state=outcome,
        )

    # --- lifecycle -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tick; peers come from the configuration at start."""
        self.housekeeping.begin_above_one()
        self.membership.configuration()
        self._tell_peers()
        self._last_tick = self.clock.monotonic()
        self._tick_handle = self.loop.call_later(self.config.tick, self._on_timer)
        if self.machine.conf_state.voters == (self.self_id,):
            self.machine.raft.campaign()  # nobody else could object
        self.wake()

    async def stop(self) -> None:
        """Hand leadership over, refuse new work, drain (P6). Bounded by about a second."""
        self.stopping = True
        self._set_ready(False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.checkpoints.final(), CHECKPOINT_STOP_S)
        leaving = self.handover.under_way if self.is_leader and self.handover.begin() else None
        if leaving is not None:
            done = self.loop.create_future()
            leaving.bind(lambda _: done.set_result(None) if not done.done() else None)
            try:
                await asyncio.wait_for(done, 0.5)
            except TimeoutError:
                self.report.warn("runtime", "leadership was not handed over in time")
        self.proposals.stop()
        self.reads.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self.logins.close()

    def transfer_to(self, target: int) -> Waiting:
        """Hand leadership to a voter; answered once it leads (N9)."""
        return self.handover.transfer_to(target)

    # --- passes ----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Schedule one pass, if none is."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._scheduled = False
        lead = self.machine.lead
        if lead:
            if lead == self.self_id:
                self._propose()
            elif self.proposals.queued:
                self.proposals.forward_to(lead)
            if self.reads.queued:
                self.reads.flush(self.machine.raft)
        elif self.proposals.queued:
            self.proposals.refuse_foreign()
        # Apply waits while SQL lags at its bound (Q2); the writer wakes us when there is room.
        again = self.machine.run() if self.history.has_room() else False
        if self.hub.behind:
            again = self.hub.catch_up() or again
        if again:
            self.wake()

    def _propose(self) -> None:
        raft = self.machine.raft
        if (
            not self.proposals.queued
            or self.leading_since_term != raft.term
            or raft.conf_change_unapplied  # the barrier (5.5 a)
            or self.handover.under_way is not None
            or self.housekeeping.hold_writes()
        ):
            return
        commands, batch = self.proposals.take_for_leader(self.state.last_time_ns)
        if not commands:
            return
        try:
            raft.propose(commands)
        except ProposalDropped:
            self.proposals.give_back(batch)

    def on_durable(self, token: int) -> None:
        """The log's writer finished a frame (called on the loop)."""
        self.machine.durable_up_to(token)
        self.installs.receiver.idle()
        self._pass()

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None:
        """Raft messages of a peer whose certificate was checked by the transport."""
        if self.joining:
            # Born with no configuration, this member must not begin with the log's first entry.
            messages = [m for m in messages if m.type is not MessageType.APP or m.index]
        self.machine.step(messages)
        self.wake()

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        """Anything else a peer sends.

        Raises:
            DecodeError: malformed; the transport closes the connection.
        """
        if kind == FRAME_FORWARD:
            self.proposals.accept_forwarded(peer, body)
        elif kind == FRAME_FORWARD_REPLY:
            self.proposals.handed_back(body)
        elif kind == FRAME_CALL:
            self.calls.on_call(peer, body)
        elif kind == FRAME_CALL_REPLY:
            self.calls.on_reply(peer, body)
        elif kind in INSTALL_FRAMES:
            self.installs.on_frame(peer, kind, body)
        elif not self.housekeeping.on_frame(peer, kind, body):
            raise DecodeError("frame of an unknown kind")

    def on_unreachable(self, peer: NodeId) -> None:
        """Messages to ``peer`` were lost or its connection broke."""
        self.machine.raft.report_unreachable(peer)
        self.calls.lost(peer)
        if peer == self.lead:
            self.wake()

    # --- ports of the rooms below ----------------------------------------------------------------

    def forward(self, leader: NodeId, body: bytes) -> bool:
        return self.net.send_frame(leader, FRAME_FORWARD, body, bulk=True)

    def refuse(self, peer: NodeId, body: bytes) -> None:
        self.net.send_frame(peer, FRAME_FORWARD_REPLY, body)

    def send_call(self, peer: NodeId, body: bytes) -> bool:
        return self.net.send_frame(peer, FRAME_CALL, body)

    def send_reply(self, peer: NodeId, body: bytes) -> bool:
        return self.net.send_frame(peer, FRAME_CALL_REPLY, body)

    # --- what the machine tells ------------------------------------------------------------------

    def on_role(self, lead: NodeId, role: Role) -> None:
        """Leadership moved: nothing confirmed for an earlier leader is used any more (R4)."""
        self.report.info(
            "raft", "leadership", lead=f"{lead:016x}", role=role.name.lower(), term=self.term
        )
        self.reads.leadership_changed()
        self.proposals.leadership_changed()
        if role is Role.LEADER:
            self.leases.promoted()
        else:
            self.leading_since_term = 0
            self.change_pending = False
            self.leases.demoted()
            self.installs.sender.demoted()
        self._leader_lost_at = None if lead else self.clock.monotonic()
        self.handover.leadership(lead)
        self.publishing.leadership(lead)
        if role is Role.LEADER:
            self.checkpoints.leadership()
        self.elections.leadership(lead)
        self.wake()

    def on_read(self, index: int, context: bytes) -> None:
        self.reads.confirmed(index, context, self.machine.applied)

    def on_applied(self, effects: Sequence[Effects], commands: Sequence[Command | None]) -> None:
        """Rows to SQL, answers to callers, events to watchers: in the pass that applied them."""
        machine = self.machine
        conf = machine.conf_state
        changed = conf is not self._conf_submitted
        self._conf_submitted = conf
        self.history.submit(effects, encode_conf_state(conf) if changed else None)
        accepted = [c.envelope.accepted_by if c is not None else 0 for c in commands]
        if self.is_leader:
            self._as_leader(effects)
        self.proposals.answer(effects, accepted)
        self.hub.feed(effects)
        self.housekeeping.note_digest(effects[-1].index, effects[-1].digest)
        self.reads.applied(effects[-1].index)
        self.publishing.applied(effects, commands)
        if self.checkpoints.waited_for:
            self.checkpoints.look_for_good(self.clock.monotonic())

    def _as_leader(self, effects: Sequence[Effects]) -> None:
        term = self.machine.raft.term
        if self.leading_since_term != term and effects[-1].term == term:
            self.leading_since_term = term  # everything of earlier terms is applied
        for outcome in effects:
            result = outcome.result
            if type(result) is Granted:
                self.leases.granted(result.id)

    def on_configuration(self, conf_state: ConfState, index: int) -> None:
        self.change_pending = False
        self.report.info(
            "raft",
            "configuration",
            voters=[f"{v:016x}" for v in conf_state.voters],
            learners=[f"{v:016x}" for v in conf_state.learners],
            index=index,
        )
        self._tell_peers()
        self.membership.configuration()
        self.wake()

    def on_snapshot(self, snapshot: Snapshot) -> int:
        return self.installs.receiver.generation()

    def on_installed(self) -> None:
        self.installs.switch()

    def switched(self, index: int, digest: bytes, revision: int) -> None:
        """Another generation is this member's since now; ``revision`` is what it had before."""
        self._conf_submitted = self.machine.conf_state
        self.written_revision = self.store.revision
        self.history_durable = index
        self.housekeeping.installed(index, digest)
        self.proposals.leadership_changed()  # theirs may be among the entries never seen here
        self.gate.on_written(index)
        self.reads.applied(index)
        self.hub.resume(revision)
        self.wake()

    def _tell_peers(self) -> None:
        peers: dict[NodeId, Sequence[str]] = {}
        known = self.state.members.by_id
        for who in self.known_members():
            if who != self.self_id:
                urls = known[who].peer_urls if who in known else ()
                peers[NodeId(who)] = urls or self.genesis_urls(who)
        self.net.set_removed([NodeId(i) for i in sorted(self.state.members.removed)])
        self.net.set_peers(peers)

    def known_members(self) -> list[int]:
        """Ids of the configuration in force and of the member list."""
        conf = self.machine.conf_state
        ids = {*conf.voters, *conf.voters_outgoing, *conf.learners, *conf.learners_next}
        return sorted(ids | set(self.state.members.by_id))

    def genesis_urls(self, who: int) -> Sequence[str]:
        """Peer URLs from --initial-cluster, until the first entry is applied."""
        return self.publishing.genesis.get(who, ())

    # --- history ---------------------------------------------------------------------------------

    def on_written(self, applied: int, revision: int) -> None:
        """SQL holds everything up to ``applied`` (called on the loop)."""
        self.written_revision = revision
        self.gate.on_written(applied)
        self.wake()

    def on_history_durable(self, applied: int) -> None:
        """SQL holds everything up to ``applied`` on disk (called on the loop)."""
        self.history_durable = applied
        self.housekeeping.begin_above_one()

    def history_task(self, work: Callable[[], Any], answer: Callable[[Any], bytes]) -> Waiting:
        """Run a task of the history writer's thread; answered on the loop."""
        waiting = Waiting()

        def done(result: Any) -> None:
            if isinstance(result, ConfigServiceError):
                waiting.complete(result)
            else:
                waiting.complete(answer(result))

        self.history.task(work, lambda r: self.loop.call_soon_threadsafe(done, r))
        return waiting

    def _history_damaged(self, error: SealBroken) -> None:
        """A row of this member's history is not what was written: everybody must know."""
        self.report.error("history", "stored data is damaged", reason=str(error))
        with contextlib.suppress(ConfigServiceError):  # asked again, it is told again
            self.raise_alarm(CORRUPT)

    def raise_alarm(self, alarm: int) -> None:
        """Propose an alarm for this member, unless it stands already."""
        if (self.self_id, alarm) in self.state.alarms:
            return
        op = alarm_op(self.self_id, alarm)
        self.proposals.submit(codec.SYSTEM_ACTOR, codec.OP_ALARM, op, lambda _: b"", urgent=True)

    # --- time ------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        now = self.clock.monotonic()
        tick = self.config.tick
        late = now - self._last_tick - tick
        self._last_tick = now
        self._tick_handle = self.loop.call_later(tick, self._on_timer)
        if late > STALL_TICKS * tick:
            # First what arrived meanwhile, then at most one tick: our own pause must not look
            # like the others' silence.
            self.leases.stalled(late)
            self.housekeeping.stalled(late)
            self.loop.call_later(tick / 10, self._tick)
            return
        self._tick()

    def _tick(self) -> None:
        self.machine.raft.tick()
        self.proposals.sweep()
        self.reads.sweep()
        self.calls.sweep()
        self.leases.tick()
        self.installs.tick(self.clock.monotonic())
        self.housekeeping.tick()
        self.disk.tick(self.clock.monotonic())
        self.cluster_health.tick(self.clock.monotonic())
        self.memory.tick(self.clock.monotonic())
        self.membership.tick(self.clock.monotonic())
        self.audit.tick()
        self.publishing.tick()
        self.checkpoints.tick(self.clock.monotonic())
        self.elections.tick()
        self.handover.tick()
        self._check_leader()
        self.wake()

    def _check_leader(self) -> None:
        lost = self._leader_lost_at
        if lost is None or not self.streams:
            return
        if self.clock.monotonic() - lost > 3 * self.config.election_timeout_ms / 1000:
            for stream in [s for s in self.streams if s.needs_leader]:
                stream.leader_lost()

    # --- readiness -------------------------------------------------------------------------------

    def set_ready(self) -> None:
        """A linearizable read succeeded and this member is published."""
        ensure(not self.stopping, "a stopping member does not become ready")
        self._set_ready(True)

    def _set_ready(self, value: bool) -> None:
        if self._ready != value:
            self._ready = value
            for tell in list(self._ready_watchers.values()):
                tell()

    def on_ready_change(self, owner: Any, tell: Callable[[], None]) -> None:
        self._ready_watchers[owner] = tell

    def forget_ready_change(self, owner: Any) -> None:
        self._ready_watchers.pop(owner, None)
