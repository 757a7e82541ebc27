"""A whole cluster under faults, from one seed: warm-up, safety, heal, liveness.

``simulate(seed)`` is one run. It patches the product's few doors to the outside (threads, files of
the history, entropy, clocks) for as long as it runs and puts them back afterwards; the clock and
dice modules are poisoned meanwhile, so that whoever asks them by a way of his own is found (I23).
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from configsvc import limits
from configsvc.apply.commands import Refused
from configsvc.codec import command as codec
from configsvc.errors import ConfigServiceError, ExitCode
from configsvc.identity.member_ids import cluster_id, member_id
from configsvc.proto import rpc_pb2
from configsvc.raft.messages import Role
from configsvc.runtime import checkpoints, install, install_sender, machine
from configsvc.types import NodeId
from tests.simulation.checkers.history import Change, Operation
from tests.simulation.checkers.revision_checker import check, check_watch
from tests.simulation.checkers.wgl import Undecided, linearizable
from tests.simulation.node import sim_sql, sim_sqlite
from tests.simulation.node.sim_bounds import CheckedApplying
from tests.simulation.node.sim_checks import Checks, LeaseChecks
from tests.simulation.node.sim_clients import ACTOR, Client, WatchClient
from tests.simulation.node.sim_faults import Nemesis
from tests.simulation.node.sim_kernel import MS, Kernel, S, SimExecutor
from tests.simulation.node.sim_lanes import small_queues
from tests.simulation.node.sim_minority import Minority
from tests.simulation.node.sim_net import Net
from tests.simulation.node.sim_node import Life, Node
from tests.simulation.node.sim_operators import Operators
from tests.simulation.node.sim_sql import SimGenerations, SimReader, SimSink, SimSource
from tests.simulation.node.sim_swarm import Swarm, draw

WARM_UP = 3 * S
SAFETY = 20 * S
ELECTION = S
HEAL_LEADER = 10 * ELECTION  # I24
HEAL_WRITE = 20 * ELECTION
HEAL_ELECTIONS = 3
MINORITY_GAP = 3 * ELECTION + 300 * MS  # I25; and until somebody asks, or a fast clock is back
QUIET = 40 * ELECTION  # everything has caught up and every queue is empty
ORDERS_LAST = 8 * S  # what operators asked for before is done by then, or over
RESTART_AFTER = (50 * MS, 5 * S)


class World:
    def __init__(self, seed: int, swarm: Swarm) -> None:
        self.seed = seed
        self.swarm = swarm
        self.kernel = Kernel(seed)
        self.counts: Counter[str] = Counter()
        self.faults = 0
        self.log: list[str] | None = None
        self.token = "simulated"
        names = [f"m{n}" for n in range(1, swarm.members + 1)]
        self.urls = {name: f"http://127.0.0.1:{2380 + n}" for n, name in enumerate(names)}
        self.initial_cluster = tuple(self.urls.items())
        self.genesis = {member_id([u], self.token): (u,) for u in self.urls.values()}
        self.cluster_id = cluster_id(self.genesis)
        self.checks = Checks(self)
        self.leases = LeaseChecks(self)
        self.operations: list[Operation] = []
        self.values = 0
        self.nodes: dict[NodeId, Node] = {}
        self.gone: set[NodeId] = set()  # removed from the cluster, for good
        for name, url in self.urls.items():
            who = member_id([url], self.token)
            self.nodes[who] = Node(self, name, who, born_empty=False)
        self.nodes = dict(sorted(self.nodes.items()))
        self.net = Net(self)
        self.clients = [Client(self, n) for n in range(swarm.clients)]
        self.watchers = [WatchClient(self, n) for n in range(swarm.watchers)]
        self.nemesis = Nemesis(self)
        self.operators = Operators(self)

    # --- what happens -----------------------------------------------------------------------------

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def fault(self, what: str, **fields: Any) -> None:
        self.faults += 1
        self.counts[f"fault: {what}"] += 1
        self.checks.note("fault", what, sorted(fields.items()))
        self.say("nemesis", what, fields)

    def say(self, who: str, what: str, fields: Any) -> None:
        if self.log is not None:
            self.log.append(f"{self.kernel.now / S:10.4f} {who:8} {what} {fields}")

    def exit_allowed(self, node: Node, code: ExitCode) -> bool:
        """Whether a member may end itself in this way in this world."""
        self.count(f"exit {int(code)}")
        if code in (ExitCode.STORAGE, ExitCode.NO_SPACE):
            return True
        if code is ExitCode.REMOVED:
            self.gone.add(node.id)
            return node.id in self.operators.removed
        if self.nemesis.losses.explains(node, code):
            return True
        lost = (ExitCode.WRONG_IDENTITY, ExitCode.WENT_BACK)
        if code in lost and node.id in self.operators.wiped:
            self.gone.add(node.id)
            return True
        return False

    def join(self, who: NodeId, urls: tuple[str, ...]) -> None:
        """A member that was added starts for the first time, on an empty disk."""
        node = Node(self, f"m{len(self.nodes) + 1}", who, born_empty=True)
        self.nodes[who] = node
        self.nodes = dict(sorted(self.nodes.items()))
        node.start()

    def ended(self, node: Node) -> None:
        """A start of a member is over: begin another one after a while."""
        if node.id not in self.gone:
            self.kernel.at(self.kernel.rng.randrange(*RESTART_AFTER), self._restart, node)

    def _restart(self, node: Node) -> None:
        if node.life is None and node.id not in self.gone and node.id in self.nodes:
            node.start()
            self.count("restarts")

    def leader(self) -> Node | None:
        """The leader of the highest term."""
        leading = [
            (n.life.member.term, n.id, n)
            for n in self.nodes.values()
            if n.life is not None and n.life.member.machine.role is Role.LEADER
        ]
        return max(leading)[2] if leading else None

    def lives(self) -> list[Life]:
        return [n.life for n in self.nodes.values() if n.life is not None]

    def _traffic(self) -> None:
        rng = self.kernel.rng
        rng.choice(self.clients).act()
        self.kernel.at(int(rng.expovariate(self.swarm.ops_per_s) * S), self._traffic)

    def _watching(self) -> None:
        rng = self.kernel.rng
        for watcher in self.watchers:
            watcher.act()
        self.kernel.at(rng.randrange(50, 300) * MS, self._watching)

    # --- a run ------------------------------------------------------------------------------------

    def serve(self, duration: int = WARM_UP) -> None:
        """For tests that plant their own faults: members and clients, and nothing else."""
        for node in self.nodes.values():
            node.start()
        self.kernel.at(0, self._traffic)
        self.kernel.run(duration)

    def run(self, safety: int = SAFETY) -> None:
        for node in self.nodes.values():
            node.start()
        self.kernel.at(0, self._traffic)
        self.kernel.at(0, self._watching)
        self.kernel.run(WARM_UP, lambda: self.leader() is not None)
        self.operators.start()
        self.nemesis.start()
        self.kernel.run(safety)
        self.heal()
        self.judge()

    def heal(self) -> None:
        """No more faults: a leader, a write on all, everybody caught up, queues empty (I24).

        Some runs heal a majority only, and prove that it serves while the rest stays broken.
        """
        self.nemesis.stop()
        self.operators.stop()
        self.count("heals")
        kernel = self.kernel
        assert kernel.run(HEAL_LEADER + RESTART_AFTER[1], self._led), "I24 no leader after the heal"
        if self.swarm.broken_rest:
            kernel.run(ORDERS_LAST)
        core = self.nemesis.break_rest() if self.swarm.broken_rest else None
        if core is not None:
            self._prove_progress(core)
            self.nemesis.mend_rest()
            assert kernel.run(HEAL_LEADER + RESTART_AFTER[1], self._led), "I24 no leader again"
        self._prove_progress(None)
        if self.swarm.minority:
            Minority(self, MINORITY_GAP).prove()
        self.swarm.ops_per_s = 0.001
        assert kernel.run(QUIET, self._caught_up), f"I24 not caught up: {self._behind()}"
        busy: list[str] = []
        for _ in range(40):
            kernel.run(S // 4)
            busy = self._counters() + self._behind()
            if not busy:
                break
        assert not busy, f"I22 {busy}"

    def _prove_progress(self, core: set[NodeId] | None) -> None:
        """A write gets through to all members, or to all of the core, without much ado."""
        started = self.checks.elections
        mark = Mark(self, core)
        self.kernel.at(0, mark.write)
        done = self.kernel.run(HEAL_WRITE, mark.everywhere)
        where = "on the core" if core is not None else "everywhere"
        assert done, f"I24 no write {where}: {mark.where()}"
        if core is not None:
            self.kernel.run(HEAL_LEADER)
        assert self.checks.elections - started <= HEAL_ELECTIONS, f"I24 elections {where}"

    def _led(self) -> bool:
        leader = self.leader()
        if leader is None or leader.life is None:
            return False
        member = leader.life.member
        return member.leading_since_term == member.term

    def members(self) -> list[Node]:
        """Who belongs to the cluster, as its leader has it."""
        leader = self.leader()
        if leader is None or leader.life is None:
            return []
        known = leader.life.member.state.members.by_id
        return [self.nodes[NodeId(who)] for who in sorted(known) if NodeId(who) in self.nodes]

    def all_up(self) -> list[Life]:
        """The members' lives, if all of them run; else none."""
        members = self.members()
        lives = [n.life for n in members if n.life is not None]
        lost = self.operators.wiped & {n.id for n in members}
        return lives if len(lives) == len(members) and not lost else []

    def _caught_up(self) -> bool:
        return not self._behind()

    def _behind(self) -> list[str]:
        last = self._last_revision()
        late = [
            f"watcher at {history.next_revision} of {last}"
            for watcher in self.watchers
            for history in watcher.histories
            if history.next_revision <= last
        ]
        members = self.all_up()
        applied = {life.member.applied for life in members}
        if len(applied) != 1:
            late.append(f"applied {sorted(applied)}")
        # One that was removed before it heard of anybody waits to be called, harmless, for good.
        heard = [x for x in self.lives() if x.member.machine.conf_state.voters]
        strangers = [x.node.name for x in heard if x not in members]
        if strangers:
            late.append(f"removed, and they still run: {strangers}")
        return late

    def _last_revision(self) -> int:
        return self.checks.events[-1][0] if self.checks.events else 1

    def _counters(self) -> list[str]:
        """I22: what is not zero, although nothing is going on."""
        found = []
        for life in self.lives():
            member = life.member
            status = member.machine.raft.status()
            counters = {
                "uncommitted bytes": status.uncommitted_bytes,
                "reads of the core": status.reads_waiting,
                "windows": sum(peer.inflight for peer in status.progress.values()),
                "proposals": member.proposals.waiting,
                "reads": member.reads.waiting,
                "history": member.history.lag().entries,
            }
            found += [f"{what} of {life.node.name}: {n}" for what, n in counters.items() if n]
        return found

    # --- afterwards -------------------------------------------------------------------------------

    def changes(self) -> list[Change]:
        return [
            Change(revision, row.key, None if row.tombstone else row.value)
            for revision, rows in self.checks.events
            for row in rows
            if row.key.startswith(b"k/")
        ]

    def judge(self) -> None:
        """Histories of clients and watchers, and the final state of all members (I10, I17, I19)."""
        changes = self.changes()
        self.counts["judged"] += check(self.operations, changes, last=self._last_revision())
        floor = max(life.member.store.compact_revision for life in self.lives())
        for watcher in self.watchers:
            for history in watcher.histories:
                self.counts["watched"] += check_watch(history, changes, compacted=floor)
        states = [self._visible(life) for life in self.all_up()]
        assert all(state == states[0] for state in states), "I10 members differ in the end"
        self._second_opinion()

    def _visible(self, life: Life) -> Any:
        state = life.member.state
        return (
            state.applied,
            state.digest,
            state.store.revision,
            sorted(state.store.live.items()),
            state.snapshot_tables(),
        )

    def _second_opinion(self) -> None:
        """The search on short pieces of keys that are neither swapped nor leased."""
        swapped = {op.key for op in self.operations if op.kind == "swap" or op.lease}
        for key in sorted({op.key for op in self.operations} - swapped):
            piece = [op for op in self.operations if op.key == key][:40]
            try:
                assert linearizable(piece), f"I19 history of {key!r} is not linearizable"
                self.count("searched")
            except Undecided:
                self.count("undecided")


class Mark:
    """A write after the heal, tried until it is acknowledged; on all members or on a core."""

    def __init__(self, world: World, core: set[NodeId] | None) -> None:
        self.world = world
        self.core = core
        self.revision = 0
        self._busy = False

    def write(self) -> None:
        """Ask somebody of the core, again and again."""
        if self.revision:
            return
        self.world.kernel.at(S // 2, self.write)
        lives = [x for x in self.world.lives() if self.core is None or x.node.id in self.core]
        if lives and not self._busy:
            life = self.world.kernel.rng.choice(lives)
            life.post(0, self._submit, life)

    def _submit(self, life: Life) -> None:
        self._busy = True

        def encode(effects: Any) -> bytes:
            if not isinstance(effects.result, Refused):  # an alarm still stands
                self.revision = effects.revision
            return b"done"

        def done(_: Any) -> None:
            self._busy = False

        request = rpc_pb2.PutRequest(key=b"mark", value=b"healed").SerializeToString()
        self.world.kernel.at(8 * S, done, None)  # whoever was asked may be gone
        with contextlib.suppress(ConfigServiceError):
            life.member.proposals.submit(ACTOR, codec.OP_PUT, request, encode).bind(done)

    def everywhere(self) -> bool:
        world = self.world
        if not self.revision:
            return False
        if self.core is None:
            lives = world.all_up()
        else:
            lives = [x for x in world.lives() if x.node.id in self.core]
            if len(lives) < len(self.core):
                return False
        return bool(lives) and all(x.member.store.revision >= self.revision for x in lives)

    def where(self) -> str:
        states = [
            f"{life.node.name} {life.member.machine.role.name} term {life.member.term} "
            f"commit {life.member.committed} applied {life.member.applied} "
            f"revision {life.member.store.revision}"
            for life in self.world.lives()
        ]
        return f"mark at {self.revision}; {states}"


# --- the doors to the outside ---------------------------------------------------------------------


def _poison(real: Callable[..., Any]) -> Callable[..., Any]:
    """Stands for ``real`` in the thread that simulates; others of the process are not of it."""
    simulating = threading.get_ident()

    def asked(*args: Any, **named: Any) -> Any:
        if threading.get_ident() != simulating:
            return real(*args, **named)
        raise AssertionError("I23 a real clock, or dice of its own, were asked in the simulation")

    return asked


@contextlib.contextmanager
def doors(world: World) -> Iterator[None]:
    """Simulated threads, files, entropy and limits in the place of the real ones."""
    rng = world.kernel.rng
    with contextlib.ExitStack() as stack:
        put = stack.enter_context

        def replace(where: Any, name: str, what: Any) -> None:
            put(mock.patch.object(where, name, what))

        replace(machine, "Applying", CheckedApplying)
        replace(install, "InstallSink", SimSink)
        replace(install, "HistoryReader", SimReader)
        replace(install, "generations", SimGenerations)
        replace(install_sender, "InstallSource", SimSource)
        for name in ("load_last", "store_last", "keep_evidence"):
            replace(checkpoints, name, getattr(sim_sql, name))
        replace(os, "urandom", rng.randbytes)
        for name in ("time", "time_ns", "monotonic", "monotonic_ns", "sleep"):
            replace(time, name, _poison(getattr(time, name)))
        for name in ("random", "randrange", "choice", "randbytes"):
            replace(random, name, _poison(getattr(random, name)))
        for name, value in world.swarm.limits.items():
            replace(limits, name, value)
        put(small_queues(world.swarm))
        sim_sql.forget_chunks()
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            SimExecutor.current = None
            if collecting:
                gc.enable()


def simulate(
    seed: int, swarm: Swarm | None = None, *, safety: int = SAFETY, log: list[str] | None = None
) -> World:
    """One run. An ``AssertionError`` or any other exception is a finding."""
    world = World(seed, swarm if swarm is not None else draw(seed))
    world.log = log
    with doors(world):
        world.run(safety)
    if seed % sim_sqlite.EVERY == 0:
        sim_sqlite.prove(world)
    return world
