"""The nemesis: what goes wrong when, as the swarm's rates say, and the end of it.

Each class of faults is a process of its own on the heap: it waits an exponential time, does its
harm and waits again, until ``stop``. Faults that last put themselves right after a while. At most a
minority is down at once, unless the class is about all of them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from configsvc.raft.messages import Role
from configsvc.types import NodeId
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_losses import Losses

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Node
    from tests.simulation.node.sim_world import World

PARTITION_KINDS = ("isolate", "leader", "halves", "bridge", "ring", "random")


class Nemesis:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.rng = world.kernel.rng
        self.running = False
        self.losses = Losses(world)
        swarm = world.swarm
        self._processes: list[tuple[float, Callable[[], None]]] = [
            (swarm.partitions, self._partition),
            (swarm.slow_links, self._slow_link),
            (swarm.resets, self._reset),
            (swarm.half_open, self._half_open),
            (swarm.bandwidth, self._narrow),
            (swarm.clogs, self._clog),
            (swarm.kills, self._kill),
            (swarm.power, self._cut_power),
            (swarm.restart_all, self._restart_all),
            (swarm.pauses, self._pause),
            (swarm.slow_disks, self._slow_disk),
            (swarm.hung_disks, self._hang_disk),
            (swarm.failed_syncs, self._fail_disk),
            (swarm.full_disks, self._fill_disk),
            (swarm.read_only, self._write_protect),
            (swarm.old_copies, self.losses.plan_copy),
            (swarm.damage, self.losses.damage),
            (swarm.slow_sql, self._slow_sql),
            (swarm.clock_jumps, self._jump_clock),
        ]

    def start(self) -> None:
        self.running = True
        swarm, net = self.world.swarm, self.world.net
        if swarm.lossy:
            for one in self.world.nodes:
                for other in self.world.nodes:
                    net.loss[one, other] = self.rng.random() * swarm.lossy
        net.duplicates = swarm.duplicates
        net.reorder = swarm.reorder
        for rate, harm in self._processes:
            if rate:
                self.kernel.at(self._wait(rate), self._go_on, rate, harm)

    def stop(self) -> None:
        """Heal everything that can be healed."""
        self.running = False
        self.world.net.calm()
        for node in self.world.nodes.values():
            node.slow_disk_until = node.hang_until = node.slow_sql_until = 0
            node.disk.fail_at = None
            node.disk.full = node.disk.read_only = False
            node.wall_offset = 0
            if node.life is not None and node.life.paused:
                node.life.resume()

    def break_rest(self) -> set[NodeId] | None:
        """After ``stop``: a minority stays broken for good; who must have every write.

        A member that still sees one of the others may lead with that one for good; who sees
        neither leader nor quorum then waits, and the cluster serves all the same. None: nothing
        was broken, for no minority could be.
        """
        world, rng = self.world, self.rng
        leader = world.leader()
        members, up = world.members(), world.all_up()
        ids = [n.id for n in members]
        voters = leader.life.member.machine.conf_state.voters if leader and leader.life else ()
        most = (len(ids) - 1) // 2
        if most < 1 or not up or sorted(voters) != sorted(ids):
            return None
        rest = set(rng.sample(ids, rng.randint(1, most)))
        if leader is not None and rng.random() < 0.5:
            rest = {leader.id}
        whole = sorted(set(ids) - rest)
        core = set(whole)
        for broken in sorted(rest):
            how = rng.choice(("deaf", "mute", "isolated", "bridge", "hung disk"))
            self._fault(f"for good: {how}", node=world.nodes[broken].name)
            if how == "hung disk":
                world.nodes[broken].hang_until = 2**62
                continue
            apart = whole[:]
            if how == "bridge":
                core = {apart.pop(0)}
            for peer in apart:
                if how != "mute":
                    world.net.cut.add((peer, broken))
                if how != "deaf":
                    world.net.cut.add((broken, peer))
        return core

    def mend_rest(self) -> None:
        self.world.net.calm()
        for node in self.world.nodes.values():
            node.hang_until = 0

    def _wait(self, rate: float) -> int:
        return int(self.rng.expovariate(rate) * S)

    def _go_on(self, rate: float, harm: Callable[[], None]) -> None:
        if self.running:
            harm()
            self.kernel.at(self._wait(rate), self._go_on, rate, harm)

    def _fault(self, what: str, **fields: object) -> None:
        self.world.fault(what, **fields)

    def _later(self, delay: int, mend: Callable[[], None]) -> None:
        self.kernel.at(delay, mend)

    # --- whom it hits -----------------------------------------------------------------------------

    def _victim(self) -> Node | None:
        """A running member; half of the time the leader."""
        up = [n for n in self.world.nodes.values() if n.life is not None]
        if not up:
            return None
        leaders = [
            n for n in up if n.life is not None and n.life.member.machine.role is Role.LEADER
        ]
        if leaders and self.rng.random() < 0.5:
            return self.rng.choice(leaders)
        return self.rng.choice(up)

    def may_fall(self) -> bool:
        """Whether one more may be down: a majority stays, except in small clusters."""
        total = len(self.world.nodes) - len(self.world.gone)
        down = sum(n.life is None for n in self.world.nodes.values()) - len(self.world.gone)
        return down < max(1, (total - 1) // 2)

    # --- network ----------------------------------------------------------------------------------

    def _partition(self) -> None:
        cut = self._draw_partition(self.rng.choice(PARTITION_KINDS))
        if self.world.swarm.one_way and self.rng.random() < 0.5:
            cut = {link for link in sorted(cut) if self.rng.random() < 0.5}
        self._fault("partition", links=len(cut))
        self.world.net.cut = cut
        duration = int(self.rng.choice((0.2, 1.0, 3.0, 8.0)) * S)

        def heal() -> None:
            if self.world.net.cut is cut:
                self.world.net.cut = set()

        self._later(duration, heal)

    def _draw_partition(self, kind: str) -> set[tuple[NodeId, NodeId]]:
        rng, ids = self.rng, sorted(self.world.nodes)
        links = [(a, b) for a in ids for b in ids if a != b]
        if kind == "random":
            return {link for link in links if rng.random() < 0.3}
        if kind == "ring" and len(ids) > 3:  # everybody sees the neighbours only
            order = rng.sample(ids, len(ids))
            near = {(order[i], order[(i + d) % len(ids)]) for i in range(len(ids)) for d in (1, -1)}
            return {link for link in links if link not in near}
        if kind == "bridge" and len(ids) > 2:  # two halves that one member sees both of
            order = rng.sample(ids, len(ids))
            half = len(ids) // 2
            one, other = set(order[:half]), set(order[half + 1 :])
            return {
                (a, b) for a, b in links if (a in one) != (b in one) and (a in other or b in other)
            }
        if kind == "leader":
            leader = self.world.leader()
            side = {leader.id} if leader is not None else {rng.choice(ids)}
        elif kind == "isolate":
            side = {rng.choice(ids)}
        else:
            side = set(rng.sample(ids, len(ids) // 2))
        return {(a, b) for a, b in links if (a in side) != (b in side)}

    def _slow_link(self) -> None:
        ids = sorted(self.world.nodes)
        link = (self.rng.choice(ids), self.rng.choice(ids))
        self._fault("slow link")
        self.world.net.delay[link] = self.rng.choice((50, 200, 1000)) * MS

        def heal() -> None:
            self.world.net.delay.pop(link, None)

        self._later(self.rng.randrange(1, 5) * S, heal)

    def _reset(self) -> None:
        ids = sorted(self.world.nodes)
        if len(ids) > 1:
            one, other = self.rng.sample(ids, 2)
            self._fault("reset")
            self.world.net.reset(one, other)

    def _half_open(self) -> None:
        """A member's end of a connection is gone, or of all: nobody tells its peers."""
        world, ids = self.world, sorted(self.world.nodes)
        loser = self.rng.choice(ids)
        peers = [who for who in ids if who != loser]
        if self.rng.random() < 0.6 and peers:
            peers = [self.rng.choice(peers)]
        lost = sum(world.net.half_open(peer, loser) for peer in peers)
        if lost:
            self._fault("half-open link", loser=world.nodes[loser].name, links=lost)

    def _narrow(self) -> None:
        """A link takes so many bytes per second, and appends and installs wait before it."""
        link = self._link()
        if link is not None:
            rate = self.rng.choice((1, 4, 20, 200, 1000)) * 1024
            self._fault("narrow link", kib_per_s=rate // 1024)
            self.world.net.bandwidth[link] = rate
            self._later(self.rng.randrange(1, 8) * S, lambda: self.world.net.widen(link))

    def _clog(self) -> None:
        """Everything on a link is held for a while, and arrives at once."""
        link = self._link()
        if link is not None:
            duration = int(self.rng.choice((0.1, 0.5, 2.0, 5.0)) * S)
            self._fault("clog", ms=duration // MS)
            self.world.net.clog(link)
            self._later(duration, lambda: self.world.net.unclog(link))

    def _link(self) -> tuple[NodeId, NodeId] | None:
        ids = sorted(self.world.nodes)
        if len(ids) < 2:
            return None
        one, other = self.rng.sample(ids, 2)
        return one, other

    # --- processes --------------------------------------------------------------------------------

    def _kill(self) -> None:
        victim = self._victim()
        if victim is not None and self.may_fall():
            self._fault("kill", node=victim.name)
            victim.kill()

    def _cut_power(self) -> None:
        victim = self._victim()
        if victim is not None and self.may_fall():
            self._fault("power", node=victim.name)
            victim.cut_power()

    def _restart_all(self) -> None:
        """One power cut for everybody, or all killed."""
        power = self.rng.random() < 0.7
        self._fault("power for all" if power else "kill all")
        for node in self.world.nodes.values():
            if power:
                node.cut_power()
            else:
                node.kill()

    def _pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            duration = int(self.rng.choice((0.001, 0.05, 0.3, 1.5, 5.0)) * S)
            self._fault("pause", node=victim.name, ms=duration // MS)
            victim.pause(duration)

    # --- disks, databases, clocks -----------------------------------------------------------------

    def _slow_disk(self) -> None:
        node = self.rng.choice(list(self.world.nodes.values()))
        self._fault("slow disk", node=node.name)
        node.slow_disk_until = self.kernel.now + self.rng.randrange(1, 6) * S

    def _hang_disk(self) -> None:
        victim = self._victim()
        if victim is not None:
            duration = int(self.rng.choice((0.3, 0.8, 2.0, 5.0)) * S)
            self._fault("hung disk", node=victim.name, ms=duration // MS)
            victim.hang_until = self.kernel.now + duration

    def _fail_disk(self) -> None:
        """The next operations but a few fail: a write, a sync, a rename."""
        victim = self._victim()
        if victim is not None and self.may_fall():
            self._fault("failing disk", node=victim.name)
            disk = victim.disk
            disk.fail_errno = errno.EIO
            disk.fail_at = disk.done + self.rng.randrange(8)

    def _fill_disk(self) -> None:
        """No space for new segments for a while."""
        node = self.rng.choice(list(self.world.nodes.values()))
        self._fault("full disk", node=node.name)
        node.disk.full = True

        def free() -> None:
            node.disk.full = False

        self._later(self.rng.randrange(1, 6) * S, free)

    def _write_protect(self) -> None:
        """The log's file system turns read-only for a while, as after an error of the device."""
        victim = self._victim()
        if victim is not None and self.may_fall():
            self._fault("read-only disk", node=victim.name)
            victim.disk.read_only = True

            def mend() -> None:
                victim.disk.read_only = False

            self._later(self.rng.randrange(1, 6) * S, mend)

    def _slow_sql(self) -> None:
        node = self.rng.choice(list(self.world.nodes.values()))
        self._fault("slow history", node=node.name)
        node.slow_sql_until = self.kernel.now + self.rng.randrange(1, 6) * S

    def _jump_clock(self) -> None:
        node = self.rng.choice(list(self.world.nodes.values()))
        jump = self.rng.choice((-3600, -10, -1, 1, 10, 3600)) * S
        self._fault("clock jump", node=node.name, s=jump // S)
        node.wall_offset += jump
