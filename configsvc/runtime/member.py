"""One running member: joins the rooms of ``runtime`` and is the facade that handlers use.

Always true:
  * Everything here runs on one event loop; threads come back through ``call_soon_threadsafe``.
  * Nothing is served before the state that judges it is there (``ready``).

Where the work is: ``passes`` (when the machine runs), ``following`` (what it tells), ``peering``
(frames of other members), ``timing`` (ticks), ``keeping`` (history), ``standing`` (facts of the
applied state). Not here: the order of consensus work (``machine``), composition (``server``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any, Final

from configsvc.apply.state import ApplyState
from configsvc.audit.checkpoint import Checkpoint, encode_checkpoint, log_origin
from configsvc.auth.decide import Decider
from configsvc.codec.answers import Headers
from configsvc.errors import ensure
from configsvc.identity.tokens import TokenKeys
from configsvc.limits import CHECKPOINT_STOP_S
from configsvc.mvcc.store import Store
from configsvc.raft.messages import Role
from configsvc.runtime.checkpoints import Checkpoints
from configsvc.runtime.cluster_health import ClusterHealth
from configsvc.runtime.commit_news import CommitNews
from configsvc.runtime.disk_health import DiskHealth
from configsvc.runtime.elections import Elections
from configsvc.runtime.following import Following
from configsvc.runtime.handover import Handover
from configsvc.runtime.history_gate import HistoryGate
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.runtime.install import CurrentReader, Installs
from configsvc.runtime.keeping import Keeping
from configsvc.runtime.leases import Leases
from configsvc.runtime.local_audit import LocalAudit
from configsvc.runtime.logins import Logins
from configsvc.runtime.lost_leader import LostLeader
from configsvc.runtime.machine import Machine
from configsvc.runtime.membership import Membership
from configsvc.runtime.memory_health import MemoryHealth
from configsvc.runtime.parts import Parts
from configsvc.runtime.passes import Passes
from configsvc.runtime.peering import Peering
from configsvc.runtime.proposals import Proposals
from configsvc.runtime.publishing import Publishing
from configsvc.runtime.readiness import Readiness
from configsvc.runtime.reads import Reads
from configsvc.runtime.rpc import PeerCalls
from configsvc.runtime.slices import Slices
from configsvc.runtime.standing import Standing
from configsvc.runtime.timing import Timing
from configsvc.runtime.waiting import Waiting
from configsvc.runtime.watch_hub import WatchHub
from configsvc.types import NodeId, Principal, Source

HANDOVER_STOP_S: Final = 0.5  # a stopping leader waits this long for its successor


class Member:
    """One running member. The facade that handlers use."""

    def __init__(self, parts: Parts) -> None:
        self.config = parts.config
        self.report = parts.report
        self.clock = parts.clock
        self.loop = parts.loop
        self.slices = Slices(parts.loop, self.writes_wait)  # of all that is long
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
        self.headers = Headers(parts.cluster_id, parts.self_id)
        self.streams: set[Any] = set()  # running watch streams
        self.written_revision = parts.written_revision
        self.history_durable = parts.history_durable
        self.change_pending = False
        self.stopping = False
        self.leading_since_term = 0  # own term's first entry is applied: proposals may be stamped
        self.decider = Decider(self.state.auth)
        self.standing = Standing(self.state, self.decider)
        self._readiness = Readiness()
        self._join_loop()
        self._join_requests(parts)
        self._join_consensus(parts)
        self._join_services(parts)

    def _join_loop(self) -> None:
        """What runs this member, and the ways in; called often, hence without a detour."""
        self.passes = Passes(self)
        self.timing = Timing(self)
        self.following = Following(self)
        self.peering = Peering(self)
        self.keeping = Keeping(self)
        self.wake = self.passes.wake
        self.on_durable = self.passes.on_durable
        self.on_messages = self.passes.on_messages
        self.on_frame = self.peering.on_frame
        self.on_unreachable = self.peering.on_unreachable
        self.peer_active_for = self.peering.active_for
        self.on_written = self.keeping.on_written
        self.on_history_durable = self.keeping.on_durable
        self.history_task = self.keeping.task
        self.raise_alarm = self.keeping.raise_alarm
        self.switched = self.following.switched
        self.has_alarm = self.standing.has_alarm
        self.alarms = self.standing.alarms
        self.log_public_key = self.standing.log_public_key
        self.log_public_keys = self.standing.log_public_keys
        self.on_ready_change = self._readiness.watch
        self.forget_ready_change = self._readiness.forget

    def _join_requests(self, parts: Parts) -> None:
        """What callers wait for."""
        timeout = parts.config.request_timeout
        self.lost_leader = LostLeader(self)
        self.proposals = Proposals(
            self_id=parts.self_id,
            clock=parts.clock,
            entropy=os.urandom,
            forwarder=self.peering,
            wake=self.wake,
            timeout=timeout,
            election_timeout=parts.config.election_timeout_ms / 1000,
            why_late=self.lost_leader.why_late,
            report=self.report_failure,
        )
        self.reads = Reads(
            self_id=parts.self_id,
            incarnation=parts.incarnation,
            clock=parts.clock,
            wake=self.wake,
            timeout=timeout,
            heartbeat=parts.config.heartbeat_interval_ms / 1000,
            why_late=self.lost_leader.why_late,
            report=self.report_failure,
        )
        self.calls = PeerCalls(
            clock=parts.clock,
            frames=self.peering,
            timeout=timeout,
            incarnation=parts.incarnation,
        )
        self.gate = HistoryGate(
            parts.loop, parts.executor, self.report_failure, self.keeping.damaged
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

    def _join_consensus(self, parts: Parts) -> None:
        """The machine, and what follows its leadership and configuration."""
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
        self.news = CommitNews(parts.raft, parts.loop, self.wake)
        self.machine = Machine(
            raft=parts.raft,
            log=parts.log,
            applier=parts.applier,
            writer=parts.writer,
            net=self.installs,
            listener=self.following,
            conf_state=parts.conf_state,
            hard_state=parts.hard_state,
            applied=parts.applied,
            durable=parts.durable,
            records=parts.records,
            monotonic=parts.clock.monotonic,
        )
        parts.log.name_snapshots(self.installs.name_snapshot)
        self.membership = Membership(self)
        self.elections = Elections(self)
        self.handover = Handover(self)
        self.publishing = Publishing(self, parts.bootstrap_op, parts.genesis)

    def _join_services(self, parts: Parts) -> None:
        """Audit, logins, checkpoints and the watch over disk, cluster and memory."""
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
        self.logins = Logins(
            loop=parts.loop,
            clock=parts.clock,
            auth=lambda: self.state.auth,
            key=parts.token_key,
            issuer=self.issuer,
            audience=self.audience,
            record=self._record_login,
            etcd=parts.etcd_tokens,
            applied=lambda: self.applied,
        )
        self.etcd_tokens = parts.etcd_tokens
        # Of stream M in its checkpoints (TE-2).
        self.log_origin = log_origin(
            self.trust_domain,
            self.cluster_id,
            parts.install.identity.epoch,
            insecure=self.config.insecure_dev,
        )
        self.checkpoints = Checkpoints(self, parts.install.data_dir / "local" / "log.signed")
        self.housekeeping = Housekeeping(self)
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

    def writes_wait(self) -> bool:
        """Whether somebody's write is on its way through this member."""
        return self.machine.writing or self.proposals.waiting > 0

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
        return self._readiness.now

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
        return self.standing.token_keys

    @property
    def policy_facts(self) -> bool:
        return self.standing.policy_facts

    def sign_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        """This member's signature over a size whose leaves it holds (TE-3)."""
        return self.log_key.sign(encode_checkpoint(checkpoint).encode())

    def time_ns(self) -> int:
        return self.clock.time_ns()

    def may_write_lease(self, principal: Principal, source: Source, lease_id: int) -> None:
        """Raise unless the caller may renew or revoke the lease (3.5)."""
        self.standing.may_write_lease(principal, source, lease_id, self.time_ns())

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
        self.peering.tell_net()
        self.timing.start()
        if self.machine.conf_state.voters == (self.self_id,):
            self.machine.raft.campaign()  # nobody else could object
        self.wake()

    def set_ready(self) -> None:
        """A linearizable read succeeded and this member is published."""
        ensure(not self.stopping, "a stopping member does not become ready")
        self._readiness.set(True)

    async def stop(self) -> None:
        """Hand leadership over, refuse new work, drain (P6). Bounded by about a second."""
        self.stopping = True
        self.handover.judge_self()
        self._readiness.set(False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.checkpoints.final(), CHECKPOINT_STOP_S)
        leaving = self.handover.under_way if self.is_leader and self.handover.begin() else None
        if leaving is not None:
            done = self.loop.create_future()
            leaving.bind(lambda _: done.set_result(None) if not done.done() else None)
            try:
                await asyncio.wait_for(done, HANDOVER_STOP_S)
            except TimeoutError:
                self.report.warn("runtime", "leadership was not handed over in time")
        self.proposals.stop()
        self.reads.stop()
        self.timing.stop()
        self.logins.close()

    def transfer_to(self, target: int) -> Waiting:
        """Hand leadership to a voter that does not decline; answered once it leads (N9, E3)."""
        return self.handover.ask(target)
