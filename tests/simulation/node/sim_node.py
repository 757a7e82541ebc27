"""A whole member in the simulator: the product's own ``Member`` on simulated ports.

A ``Node`` is the machine: disk, history files, clocks, keys; it survives everything. A ``Life`` is
one start of the program on it, as ``server.stores`` and ``server.composing`` do it: the real log is
recovered from the simulated disk, the state is read from the history that the log names, and the
real runtime (machine, proposals, reads, leases, watches, membership, installs, housekeeping) runs
on top. A life ends by a crash, by the member's own decision, or with the power.

Not here: what goes wrong and when (``sim_faults``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configsvc.apply.applier import Applier
from configsvc.apply.state import ApplyState
from configsvc.codec.confstate import decode_conf_state
from configsvc.codec.publishing import bootstrap_op
from configsvc.codec.records import RecordCache
from configsvc.config import ServerConfig
from configsvc.errors import ExitCode, FatalError
from configsvc.identity.tokens import TokenKey
from configsvc.raft.config import product_config
from configsvc.raft.messages import ConfState, HardState, Message
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.install import InstallStores
from configsvc.runtime.member import Member
from configsvc.runtime.parts import Parts
from configsvc.runtime.restore import adopt, read_stored
from configsvc.server.local import audit_levels
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.local.heads import NO_HEAD
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.wal import Recovered, SqlApplied, Wal, WalOptions
from configsvc.transport.hello import CONTROL, Hello
from configsvc.types import LogIndex, NodeId
from tests.simulation.node.sim_kernel import MS, Died, Fn, NodeLoop, S, SimExecutor
from tests.simulation.node.sim_local import SimLocal, SimLocalWriter
from tests.simulation.node.sim_log import Durable, NodeDisk, SimLogWriter, after_power_loss
from tests.simulation.node.sim_net import SimLink
from tests.simulation.node.sim_sql import SimDir, SimHistoryWriter, SimReader, SqlFile
from tests.simulation.node.sim_upkeep import use_new_key

if TYPE_CHECKING:
    from tests.simulation.node.sim_world import World

COUNTED = (
    "a member declines leadership",
    "install discarded",
    "install failed",
    "installed",
    "leadership is handed over",
    "the disk hangs",
    "the leader is silent",
    "the process stood still",
    "this member's clock is far from the others'",
)
LEVELS = audit_levels()
WALL_AT_START = 1_700_000_000 * S
FIRST_GENERATION = 1


class Clock:
    """A member's two clocks; both run at the member's own rate, the wall's may jump."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def monotonic(self) -> float:
        node = self._node
        return node.kernel.now * node.rate / S + node.uptime_offset

    def time_ns(self) -> int:
        node = self._node
        return WALL_AT_START + int(node.kernel.now * node.rate) + node.wall_offset


class Report:
    """The member's log: part of the trace."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def info(self, caller: str, msg: str, **fields: Any) -> None:
        self._node.world.checks.note(self._node.name, caller, msg, sorted(fields.items()))
        self._node.world.say(self._node.name, msg, fields)
        if msg in COUNTED:
            self._node.world.count(msg)

    warn = error = info

    def debug(self, caller: str, msg: str, **fields: Any) -> None:
        return


class Node:
    """A machine with its disk. ``life`` is None while no member runs on it."""

    def __init__(self, world: World, name: str, node_id: NodeId, *, born_empty: bool) -> None:
        self.world = world
        self.kernel = world.kernel
        self.swarm = world.swarm
        self.name = name
        self.id = node_id
        self.born_empty = born_empty  # added to a running cluster
        rng = self.kernel.rng
        self.rate = world.swarm.clock_rate(rng)
        self.uptime_offset = rng.randrange(1_000_000) / 7
        self.wall_offset = 0
        self.key_file = KeyFile(rng.randbytes(32))
        self.new_key: KeyFile | None = None  # while a change of keys is under way
        self.token_key = TokenKey(Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)))
        self.log_key = TokenKey(Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)))
        self.life: Life | None = None
        self.exits: list[int] = []
        self.lost: list[Durable] = []  # what was on disks that this member lost
        self.slow_disk_until = 0
        self.hang_until = 0
        self.slow_sql_until = 0
        self.durable = Durable()
        self.wipe()

    def held(self, index: int, term: int) -> bool:
        """Whether an entry was ever durable here."""
        return any(disk.holds(index, term) for disk in (self.durable, *self.lost))

    def wipe(self) -> None:
        """An empty disk."""
        self.lost.append(self.durable)
        self.store_id = self.kernel.rng.randbytes(16)
        self.fresh = True  # nothing was ever applied on this disk
        self.disk = NodeDisk()
        self.local = SimLocal()
        self.signed = NO_HEAD  # the newest head of the audit tree that this member signed
        self.files: dict[int, SqlFile] = {}
        self.durable = Durable()

    @property
    def config(self) -> ServerConfig:
        swarm = self.swarm
        return ServerConfig(
            name=self.name,
            data_dir="simulated",
            initial_cluster=self.world.initial_cluster,
            initial_cluster_token=self.world.token,
            insecure_dev=True,
            snapshot_count=swarm.snapshot_count,
            snapshot_catchup_entries=swarm.catchup_entries,
            watch_progress_notify_interval=2.0,
            strict_reconfig_check=swarm.strict_reconfig,
        )

    # --- the disk's and the database's time -------------------------------------------------------

    def disk_latency(self) -> int:
        rng, now = self.kernel.rng, self.kernel.now
        usual = rng.randrange(300_000, 3 * MS)
        if now < self.hang_until:
            return self.hang_until - now + usual
        if now < self.slow_disk_until:
            return rng.randrange(MS, 300 * MS)
        return usual

    def sql_latency(self) -> int:
        rng = self.kernel.rng
        if self.kernel.now < self.slow_sql_until:
            return rng.randrange(10 * MS, 2 * S)
        return rng.randrange(200_000, 5 * MS)

    def sql_linger(self) -> int:
        return self.swarm.sql_linger

    # --- starts and ends --------------------------------------------------------------------------

    def start(self) -> None:
        """The program starts; what it finds on the disk decides whether it gets anywhere."""
        assert self.life is None
        self.world.net.started(self.id)
        self.life = life = Life(self)
        try:
            life.begin()
        except Died:
            self.over(life)
        except OSError as error:
            self.exits.append(int(ExitCode.STORAGE))
            self.world.count(f"start failed: errno {error.errno}")
            self.over(life)
        except FatalError as error:
            self.exits.append(int(error.code))
            allowed = self.world.exit_allowed(self, error.code)
            assert allowed, f"I8 start refused with {int(error.code)}: {error}"  # noqa: PT017
            self.over(life)

    def over(self, life: Life, *, silently: bool = False) -> None:
        """This start has ended."""
        life.alive = False
        if self.life is not life:
            return
        self.life = None
        self.disk.locked = False
        self.disk.fail_at = None
        for generation in [g for g, file in self.files.items() if not file.complete]:
            del self.files[generation]
        self.world.checks.note(self.name, "over", tuple(self.exits))
        self.world.net.gone(self.id, silently=silently)
        self.world.ended(self)

    def kill(self) -> None:
        """kill -9: memory is gone, the page cache is not."""
        if self.life is not None:
            self.over(self.life)

    def cut_power(self) -> None:
        """Whatever was not synced may be gone, in part or as a whole."""
        if self.life is not None:
            self.over(self.life, silently=True)
        rng = self.kernel.rng
        self.disk = after_power_loss(self.disk, rng)
        for number in sorted(self.files):
            file = self.files[number]
            file.lose(rng.randint(file.durable_batches, len(file.batches)))

    def pause(self, duration: int) -> None:
        """SIGSTOP, a frozen virtual machine, a stalled loop: nothing runs, time goes by."""
        life = self.life
        if life is not None and not life.paused:
            life.paused = True
            self.kernel.at(duration, life.resume)


class Life:
    """One start of the program."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.kernel = node.kernel
        self.checks = node.world.checks
        self.alive = True
        self.paused = False
        self.late: deque[tuple[bool, Fn, tuple[Any, ...]]] = deque()
        self.peers: set[NodeId] = set()
        self.removed: set[NodeId] = set()
        self.clock = Clock(node)
        self.loop = NodeLoop(self.kernel, self, node.rate)
        self.started_applied = 0
        self.conf_earlier: ConfState | None = None
        self.conf_before = ConfState()  # in force after the entries that the history was given
        self.log = MemoryLog()
        self.member: Member
        self.writer: SimLogWriter

    # --- the kernel's side ------------------------------------------------------------------------

    def enter(self, fn: Fn, args: tuple[Any, ...]) -> None:
        SimExecutor.current = self.loop
        try:
            fn(*args)
            self.loop.drain()
            self.checks.look(self)
        except FatalError as error:
            with suppress(Died):
                self.end(error)
        except Died:
            self.node.over(self)

    def post(self, delay: int, fn: Fn, *args: Any) -> None:
        """Something arrives at the loop."""
        self.kernel.for_life(self, delay, True, fn, *args)

    def thread(self, delay: int, fn: Fn, *args: Any) -> None:
        """A thread of the program goes on; stops when the program is stopped."""
        self.kernel.for_life(self, delay, True, fn, *args)

    def disk(self, delay: int, fn: Fn) -> None:
        """The disk goes on, whether the program is stopped or not."""
        self.kernel.at(delay, self._disk_done, fn)

    def _disk_done(self, fn: Fn) -> None:
        if not self.alive:
            return
        if self.kernel.now < self.node.hang_until:
            self.disk(self.node.hang_until - self.kernel.now + MS, fn)
            return
        try:
            fn()
        except Died:
            self.node.over(self)

    def resume(self) -> None:
        """Go on: first what arrived, then the timers that ran out."""
        if not self.alive:
            return
        self.paused = False
        late, self.late = self.late, deque()
        for wanted in (True, False):
            for io, fn, args in late:
                if io is wanted:
                    self.kernel.for_life(self, 0, io, fn, *args)

    def end(self, error: FatalError) -> None:
        """The member ends itself."""
        self.node.exits.append(int(error.code))
        self.world.say(self.node.name, f"exit {int(error.code)}", {"why": str(error)})
        allowed = self.world.exit_allowed(self.node, error.code)
        assert allowed, f"a member ended itself with {int(error.code)}: {error}"
        self.node.over(self)
        raise Died

    def crash_point(self) -> None:
        """A place between two steps where a crash is legal (5.2)."""
        chance = self.node.swarm.crash_point if self.world.nemesis.running else 0.0
        if self.alive and chance and self.kernel.rng.random() < chance:
            self.world.fault("crash between two steps")
            self.node.over(self)
            raise Died
        if not self.alive:
            raise Died

    # --- what others ask --------------------------------------------------------------------------

    def knows(self, who: NodeId) -> bool:
        """Whether this member dials that one."""
        return who in self.peers

    def hello(self, to: NodeId) -> Hello:
        member = self.member
        return Hello(
            CONTROL,
            True,
            self.world.cluster_id,
            self.node.id,
            to,
            self.node.store_id,
            member.incarnation,
            0,
            member.term,
            member.machine.durable,
            "simulated",
        )

    def on_durable(self, token: int) -> None:
        self.member.on_durable(token)

    def hear(self, peer: NodeId, messages: Sequence[Message]) -> None:
        for message in messages:
            self.checks.reads.heard(self, message)
        self.member.on_messages(peer, messages)

    # --- a start ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """As ``server.stores.open_stores`` and ``server.composing.Composed`` do it."""
        SimExecutor.current = self.loop
        node, config = self.node, self.node.config
        wal, recovered, history = self._open_stores()
        meta = history.meta()
        genesis = {} if node.born_empty else self.world.genesis
        conf = ConfState(voters=tuple(sorted(NodeId(i) for i in genesis)))
        if meta.conf_state:
            conf = decode_conf_state(meta.conf_state)
        hard = HardState()
        last = 0
        if recovered is not None:
            hard, last = recovered.hard_state, recovered.last_index
            self.log = MemoryLog(recovered.first_index - 1, recovered.first_prev_term)
            self.log.append(recovered.entries)
            if hard.commit < meta.applied:
                hard = hard._replace(commit=LogIndex(meta.applied))
        self.started_applied = meta.applied
        self.conf_before = conf
        state = ApplyState(quota_bytes=self.world.operators.upkeep.quota)
        if meta.applied:
            adopt(state, read_stored(history), history.load_live())  # type: ignore[arg-type]
        self.loop.worker_delay = lambda: self.kernel.rng.randrange(100_000, 5 * MS)
        writer = self.writer = SimLogWriter(node, self, wal)
        sql = SimHistoryWriter(node, self, history)
        self.member = Member(
            Parts(
                config=config,
                report=Report(node),
                clock=self.clock,
                loop=self.loop,  # type: ignore[arg-type]
                self_id=node.id,
                cluster_id=self.world.cluster_id,
                store_id=node.store_id,
                incarnation=wal.incarnation,
                raft=self._raft(hard, conf, meta.applied),
                log=self.log,
                applier=Applier(state),
                writer=writer,
                history=sql,
                reader=SimReader(history),
                executor=SimExecutor(),  # type: ignore[arg-type]
                net=SimLink(self.world.net, self),
                conf_state=conf,
                hard_state=hard,
                applied=meta.applied,
                durable=last,
                written_revision=state.store.revision,
                history_durable=history.durable,
                token_key=node.token_key,
                log_key=node.log_key,
                wal=writer,
                install=InstallStores(
                    data_dir=SimDir(node),  # type: ignore[arg-type]
                    identity=history.identity,
                    key_file=node.key_file,
                    generation=history.generation,
                    new_writer=lambda made: SimHistoryWriter(node, self, made),  # type: ignore[arg-type]
                    executor=SimExecutor(),  # type: ignore[arg-type]
                ),
                local=SimLocalWriter(node, self),  # type: ignore[arg-type]
                audit_levels=LEVELS,
                free_bytes=lambda: node.disk.free_bytes(),
                records=RecordCache(),
                bootstrap_op=self._bootstrap(),
                genesis=dict(genesis),
                die=self.end,
            )
        )
        node.fresh = not meta.applied
        self.checks.began(node, self)
        sql.start()
        self.member.start()
        self.loop.drain()
        self.checks.look(self)

    def _open_stores(self) -> tuple[Wal, Recovered | None, SqlFile]:
        node = self.node
        options = WalOptions(node.swarm.segment_bytes, self.kernel.rng.randbytes)
        identity = StoreIdentity(self.world.cluster_id, node.id, node.store_id, True, 0)
        if not Wal.exists(node.disk):
            wal_identity = WalIdentity(self.world.cluster_id, node.id, node.store_id, True)
            wal = Wal.create(node.disk, wal_identity, node.key_file, options=options)
            node.files = {FIRST_GENERATION: SqlFile(FIRST_GENERATION, identity)}
            return wal, None, node.files[FIRST_GENERATION]
        opened: list[SqlFile] = []

        def sql_applied(installed: object) -> int:
            generation = getattr(installed, "generation", FIRST_GENERATION)
            if generation not in node.files:
                raise FatalError(ExitCode.STORES_DISAGREE, f"generation {generation} is gone", "")
            for other in [g for g in node.files if g != generation]:
                del node.files[other]
            opened.append(node.files[generation])
            return opened[0].meta().applied

        if node.new_key is not None:
            self._end_key_change(sql_applied, options)
        wal, recovered = Wal.open(
            node.disk, node.key_file, sql_applied=sql_applied, options=options
        )
        return wal, recovered, opened[0]

    def _end_key_change(self, sql_applied: SqlApplied, options: WalOptions) -> None:
        """As ``server.rekeying`` does before a start."""
        node, old = self.node, self.node.key_file
        assert node.new_key is not None
        wal, _ = Wal.open(
            node.disk, node.new_key, sql_applied=sql_applied, older_keys=(old,), options=options
        )
        wal.rewrap(node.new_key, (old,))
        wal.close()
        use_new_key(node)
        self.world.count("key change ended by a start")

    def _raft(self, hard: HardState, conf: ConfState, applied: int) -> RawNode:
        config = self.node.config
        made = replace(
            product_config(self.node.id, config.election_ticks, 2), **self.node.swarm.raft
        )
        return RawNode(
            made,
            self.log,
            self.kernel.rng,
            hard_state=hard,
            conf_state=conf,
            applied=applied,
        )

    def _bootstrap(self) -> bytes:
        return bootstrap_op(
            trust_domain="simulated",
            policy_source="",
            policy_compiled=b"",
            policy_name="",
            policy_version=0,
            members=sorted(self.world.genesis.items()),
            insecure=True,
        )
