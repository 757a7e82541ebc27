"""What one fault of a minority costs in writes (I25), after everything else was healed.

One voter, half of the time the leader, is killed, loses power, stops, hangs or is cut off while the
others are asked to write several times per election timeout. Between two writes that get through,
at most three election timeouts may pass, and a moment: writes are asked for every tenth of one, a
clock may be slow. Two cases cost more and are allowed for: a leader that speaks and hears nothing
is given up only when its connections have been silent for one more, and an election in which votes
were split takes another round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from configsvc.codec import command as codec
from configsvc.errors import ConfigServiceError
from configsvc.proto import rpc_pb2
from configsvc.raft.messages import ConfState, Role
from configsvc.types import NodeId
from tests.simulation.node.sim_clients import ACTOR
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_net import LATE_NS

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life
    from tests.simulation.node.sim_world import World

ASK_NS: Final = 100 * MS
LASTS_NS: Final = 8 * S
ROUND_NS: Final = 2 * S  # the longest that a member waits before it stands for election
DEAF_NS: Final = 1 * S
KINDS: Final = ("kill", "power", "pause", "isolated", "deaf", "mute", "hung disk")


class Minority:
    def __init__(self, world: World, gap_max: int) -> None:
        self.world = world
        self.kernel = world.kernel
        self.gap_max = gap_max
        self._rest: set[NodeId] = set()
        self._asking = False
        self._term = 0  # of the leader before
        self._bound = gap_max
        self._last = 0  # when a write got through

    def prove(self) -> None:
        """Break one voter and measure; does nothing where that is no minority."""
        world, rng = self.world, self.kernel.rng
        if world.swarm.duplicates:
            self.kernel.run(LATE_NS)  # what was repeated of a leader would go on to speak for it
        leader, lives = world.leader(), world.all_up()
        if leader is None or leader.life is None or not lives:
            return
        ids = sorted(life.node.id for life in lives)
        conf = leader.life.member.machine.conf_state
        if len(ids) < 3 or sorted(conf.voters) != ids or conf.voters_outgoing:
            return
        if any(life.member.machine.conf_state != conf for life in lives):
            return  # for those who have not heard of a removal, one more is missing
        victim = leader.id if rng.random() < 0.5 else rng.choice(ids)
        kind = rng.choice(KINDS)
        self._rest = set(ids) - {victim}
        self._term = leader.life.member.term
        self._bound = self.gap_max + (DEAF_NS if kind == "deaf" else 0)
        self._last = self.kernel.now
        self._asking = True
        self._ask()
        self._break(victim, kind)
        self.kernel.run(LASTS_NS, self._too_long)
        self._asking = False
        gap = self.kernel.now - self._last
        if self._changed(conf):
            world.count("minorities that a change overtook")  # who was broken may be needed now
            self._mend(victim)
            return
        role = "the leader" if victim == leader.id else "a follower"
        assert gap <= self._allowed(), f"I25 {gap / S:.2f} s without a write: {role}: {kind}"
        world.count("minorities")
        self._mend(victim)

    def _changed(self, conf: ConfState) -> bool:
        """Whether a change of members, proposed before, took effect meanwhile."""
        return any(life.member.machine.conf_state != conf for life in self.world.lives())

    def _too_long(self) -> bool:
        return self.kernel.now - self._last > self._allowed()

    def _allowed(self) -> int:
        lives = [x for x in self.world.lives() if x.node.id in self._rest]
        newest = max((x.member.term for x in lives), default=0)
        rounds = newest - self._term - 1
        leads = any(x.member.machine.role is Role.LEADER for x in lives if x.member.term == newest)
        if newest > self._term and not leads:
            rounds += 1  # the votes of this term were split, and the next one has not begun
        return self._bound + ROUND_NS * max(0, rounds)

    def _break(self, victim: NodeId, kind: str) -> None:
        world = self.world
        node = world.nodes[victim]
        world.fault(f"minority: {kind}", node=node.name)
        if kind == "kill":
            node.kill()
        elif kind == "power":
            node.cut_power()
        elif kind == "pause":
            node.pause(LASTS_NS)
        elif kind == "hung disk":
            node.hang_until = self.kernel.now + LASTS_NS
        for peer in sorted(self._rest):
            if kind in ("isolated", "deaf"):
                world.net.cut.add((peer, victim))
            if kind in ("isolated", "mute"):
                world.net.cut.add((victim, peer))

    def _mend(self, victim: NodeId) -> None:
        self.world.nemesis.mend_rest()
        life = self.world.nodes[victim].life
        if life is not None and life.paused:
            life.resume()

    # --- the writes -------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._asking:
            return
        self.kernel.at(ASK_NS, self._ask)
        lives = [life for life in self.world.lives() if life.node.id in self._rest]
        life = self.kernel.rng.choice(lives)
        life.post(0, self._submit, life)

    def _submit(self, life: Life) -> None:
        def done(result: Any) -> None:
            if not isinstance(result, ConfigServiceError):
                self._last = self.kernel.now

        request = rpc_pb2.PutRequest(key=b"mark", value=b"minority").SerializeToString()
        try:
            life.member.proposals.submit(ACTOR, codec.OP_PUT, request, lambda _: b"done").bind(done)
        except ConfigServiceError:
            self.world.count("refused orders")
