"""Operators: compactions, transfers of leadership, members that come and go.

Not here: faults (``sim_faults``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configsvc.codec import command as codec
from configsvc.errors import ConfigServiceError
from configsvc.proto import rpc_pb2
from configsvc.types import NodeId
from tests.simulation.node.sim_clients import ACTOR
from tests.simulation.node.sim_kernel import MS, S

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life
    from tests.simulation.node.sim_world import World

LOOK_NS = 100 * MS


class Operators:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.removed: set[NodeId] = set()
        self.running = False

    def start(self) -> None:
        self.running = True
        self.kernel.at(LOOK_NS, self._act)

    def stop(self) -> None:
        self.running = False

    def _act(self) -> None:
        if not self.running:
            return
        self.kernel.at(LOOK_NS, self._act)
        rng, swarm = self.kernel.rng, self.world.swarm
        per_look = LOOK_NS / S
        leader = self.world.leader()
        life = leader.life if leader is not None else None
        if life is None or life.paused:
            return
        if rng.random() < swarm.compactions * per_look:
            life.post(0, self._compact, life)
        if rng.random() < swarm.transfers * per_look and len(self.world.nodes) > 1:
            self.world.fault("transfer")
            target = rng.choice([n for n in self.world.nodes if n != life.node.id])
            life.post(0, life.member.transfer_to, target)

    def _compact(self, life: Life) -> None:
        store = life.member.store
        revision = store.revision - self.kernel.rng.choice((0, 3, 20))
        if revision <= max(store.compact_revision, 1):
            return
        request = rpc_pb2.CompactionRequest(revision=revision).SerializeToString()
        self._submit(life, codec.OP_COMPACTION, request)
        self.world.count("compactions")

    def _submit(self, life: Life, field: int, request: bytes) -> None:
        try:
            life.member.proposals.submit(ACTOR, field, request, lambda _: b"done").bind(
                lambda _: None
            )
        except ConfigServiceError:
            self.world.count("refused orders")
