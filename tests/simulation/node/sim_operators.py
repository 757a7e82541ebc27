"""Operators: compactions, transfers of leadership, members that come, go and lose their disks.

An operator does not trust answers: who is a member is looked up in the leader's list, and whoever
is in it and does not run yet is started. A member whose disk was lost is removed.

Not here: faults (``sim_faults``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configsvc.apply.commands import MemberChangeOp
from configsvc.codec import command as codec
from configsvc.errors import ConfigServiceError, ConflictError
from configsvc.proto import rpc_pb2
from configsvc.types import NodeId
from tests.simulation.node.sim_clients import ACTOR
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_upkeep import Upkeep

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life
    from tests.simulation.node.sim_world import World

LOOK_NS = 100 * MS
MEMBERS_MAX = 6
WIPES_MAX = 1  # in one run
DISARM = 0.2  # of the looks at a cluster with an alarm


class Operators:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.removed: set[NodeId] = set()
        self.wiped: set[NodeId] = set()
        self._replaced: set[NodeId] = set()  # another one was asked for in its place
        self.running = False
        self._number = world.swarm.members
        self.upkeep = Upkeep(world, self)
        self._busy = False
        self._last_change = -10 * S

    def start(self) -> None:
        self.running = True
        self.kernel.at(LOOK_NS, self._act)  # goes on for good: the lost are always looked after

    def stop(self) -> None:
        self.running = False
        self.upkeep.lift_quota()

    def _act(self) -> None:
        self.kernel.at(LOOK_NS, self._act)
        rng, swarm = self.kernel.rng, self.world.swarm
        per_look = LOOK_NS / S
        leader = self.world.leader()
        life = leader.life if leader is not None else None
        if life is None or life.paused:
            self._start_added(self.world.lives())
            return
        self._look_after(life)
        if life.member.state.alarms and rng.random() < DISARM:
            life.post(0, self.upkeep.disarm, life)
        if not self.running:
            return
        if not self._busy and rng.random() < swarm.churn * per_look:
            life.post(0, self._churn, life)
        if rng.random() < swarm.compactions * per_look:
            life.post(0, self._compact, life)
        if swarm.key_changes and rng.random() < swarm.key_changes * per_look:
            self.upkeep.change_key(rng.choice(list(self.world.nodes.values())))
        if rng.random() < swarm.transfers * per_look and len(self.world.nodes) > 1:
            self.world.fault("transfer")
            target = rng.choice([n for n in self.world.nodes if n != life.node.id])
            life.post(0, self._transfer, life, target)

    def _transfer(self, life: Life, target: NodeId) -> None:
        try:
            life.member.transfer_to(target)
        except ConflictError:
            self.world.count("transfer declined")  # its disk is slow, hung or full (E3)

    def _compact(self, life: Life) -> None:
        store = life.member.store
        revision = store.revision - self.kernel.rng.choice((0, 3, 20))
        if revision <= max(store.compact_revision, 1):
            return
        request = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
        self.submit(life, codec.OP_COMPACTION, request)
        self.world.count("compactions")

    # --- members ----------------------------------------------------------------------------------

    def _look_after(self, life: Life) -> None:
        """Start who was added, remove whose disk was lost."""
        self._start_added([life])
        known = life.member.state.members
        for who in sorted(self.wiped & self.world.gone):
            waits = self._busy or self.kernel.now - self._last_change < S
            hit = who in self.world.nemesis.losses.hit
            if waits:
                continue
            if who in known.by_id:
                life.post(0, self._change, life, life.member.membership.plan_remove(who))
            elif self.running and hit and who not in self._replaced:
                self._replaced.add(who)
                life.post(0, self._add, life)
                self.world.count("member replaced")
                return

    def _start_added(self, lives: list[Life]) -> None:
        """Also where nobody leads: with two voters of which one never started, nobody will."""
        for life in lives:
            known = life.member.state.members.by_id
            for who in sorted(known):
                if who not in self.world.nodes:
                    self.world.count("member added")
                    self.world.join(NodeId(who), known[who].peer_urls)

    def _churn(self, life: Life) -> None:
        rng, membership = self.kernel.rng, life.member.membership
        known = sorted(life.member.state.members.by_id)
        learners = [m.id for m in membership.all() if m.is_learner]
        losses = self.world.nemesis.losses
        if self.wiped & set(known) or losses.undecided():
            return  # who lost a disk is seen to first
        what = rng.choice(("add", "learner", "remove", "remove", "promote", "wipe"))
        if what == "promote" and learners:
            self._change(life, membership.plan_promote(rng.choice(learners)))
        elif what == "remove" and len(known) > 2:
            self._change(life, membership.plan_remove(rng.choice(known)))
        elif what == "wipe":
            self._wipe(life)
        elif what in ("add", "learner") and len(known) < MEMBERS_MAX:
            self._add(life, is_learner=what == "learner")

    def _add(self, life: Life, *, is_learner: bool = False) -> None:
        self._number += 1
        url = f"http://127.0.0.1:{2380 + self._number}"
        self._change(life, life.member.membership.plan_add((url,), is_learner=is_learner))

    def _change(self, life: Life, op: MemberChangeOp) -> None:
        self.world.fault(f"member {op.action}")
        if op.action == "remove":
            self.removed.add(NodeId(op.member))
        self._last_change = self.kernel.now
        self._busy = not self.world.swarm.hasty

        def done(result: bytes | ConfigServiceError) -> None:
            self._busy = False
            if not isinstance(result, ConfigServiceError):
                self.world.count(f"member {op.action}d".replace("addd", "change applied"))

        def forget() -> None:
            self._busy = False

        self.kernel.at(10 * S, forget)  # the member that was asked may be gone
        try:
            life.member.membership.change(ACTOR, "", "", op, lambda: b"done").bind(done)
        except ConfigServiceError:
            self._busy = False

    def _wipe(self, life: Life) -> None:
        """A member loses its disk and comes back as if nothing had been."""
        known = life.member.state.members.by_id
        up = [n for n in self.world.nodes.values() if n.life is not None]
        able = [n for n in up if n.id != life.node.id and n.id in known and known[n.id].store_id]
        voters = life.member.machine.conf_state.voters
        enough = len(up) == len(self.world.nodes) - len(self.world.gone) and len(voters) > 2
        quiet = self.kernel.now - self._last_change > 10 * S  # nothing is asked for any more
        if self.world.nemesis.losses.hit:
            return  # one loss in a run is what a quorum surely survives
        if not (able and enough and quiet) or len(self.wiped) >= WIPES_MAX:
            return
        victim = self.kernel.rng.choice(able)
        self.wiped.add(victim.id)
        self.removed.add(victim.id)
        self.world.fault("wipe", node=victim.name)
        victim.kill()
        victim.wipe()

    def submit(self, life: Life, field: int, request: bytes) -> None:
        try:
            life.member.proposals.submit(ACTOR, field, request, lambda _: b"done").bind(
                lambda _: None
            )
        except ConfigServiceError:
            self.world.count("refused orders")
