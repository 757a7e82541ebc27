"""Members that lose what they promised: old copies of their directories, and damaged logs.

What is lost stays recoverable: the *atlas* (``may_lose``) lets it happen to a minority of the
voters of a run, and only while so many others hold durably whatever the victim acknowledged that
every quorum without its copy has one. A vote is forgotten only where nobody can use a second one:
every other voter is durably in the newest of the terms, and none of them is a candidate in it. In
general it could be cast twice, until members greet each other before they vote (G3, later).

The member must end itself: with 87 where its leader can prove what is missing (G2), with 82 to 84
where its log is damaged. Where nobody can prove anything, or the damage hit what is not used, it
goes on, and is judged like any other. Whoever ended is removed by the operators like a member
whose disk was lost.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, NamedTuple

from configsvc.errors import ExitCode
from configsvc.raft.messages import HardState, Role
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import NodeId
from tests.simulation.node import sim_damage
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_local import SimLocal
from tests.simulation.node.sim_log import Durable, NodeDisk
from tests.simulation.node.sim_sql import SqlFile
from tests.support.simdisk import Image

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node
    from tests.simulation.node.sim_world import World

COPY_AGE: Final = (1 * S, 8 * S)  # when it is tried to put a copy back,
COPY_AGE_MAX: Final = 15 * S  # and when that is given up
TRY_NS: Final = 250 * MS
DAMAGE_CODES: Final = (ExitCode.LOG_DAMAGED, ExitCode.HARD_STATE_LOST, ExitCode.STORES_DISAGREE)


class Copy(NamedTuple):
    """A data directory as it was."""

    taken: int
    image: Image
    files: dict[int, SqlFile]
    local: SimLocal
    signed: object
    durable: Durable
    fresh: bool
    store_id: bytes
    key: KeyFile  # that opens it


class Losses:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.hit: dict[NodeId, int] = {}  # who -> the index that its log once was durable to
        self.unseen: set[NodeId] = set()  # did not start since
        self.put_back: set[NodeId] = set()
        self.damaged: set[NodeId] = set()
        self.expected: dict[NodeId, sim_damage.Found] = {}  # of the next start

    # --- whom -------------------------------------------------------------------------------------

    def undecided(self) -> bool:
        """Whether somebody neither ended nor started and holds again what it held."""
        nodes, gone = self.world.nodes, self.world.gone
        return any(
            who not in gone and (who in self.unseen or nodes[who].durable.last < last)
            for who, last in self.hit.items()
        )

    def may_lose(self, node: Node, kept: int = 0) -> bool:
        """Whether the cluster can do without what ``node`` holds above index ``kept``."""
        world, operators = self.world, self.world.operators
        leader = world.leader()
        if leader is None or leader.life is None:
            return False
        conf = leader.life.member.machine.conf_state
        voters = conf.voters
        if len(voters) < 3 or conf.voters_outgoing or node.id not in voters:
            return False
        if any(voter not in world.nodes for voter in voters):
            return False
        quiet = self.kernel.now - operators._last_change > 10 * S and not operators._busy
        if not quiet or operators.wiped or self.undecided() or node.id in self.hit:
            return False
        if len(self.hit) >= (len(voters) - 1) // 2:
            return False
        others = [world.nodes[voter].durable for voter in voters if voter != node.id]
        enough = len(voters) - (len(voters) // 2 + 1) + 1
        held = node.durable
        return all(
            index <= kept or sum(o.holds(index, term) for o in others) >= enough
            for index, term in held.terms.items()
        )

    def _votes_are_over(self, node: Node) -> bool:
        """Whether no term that ``node`` has voted in can still be won with its vote."""
        leader = self.world.leader()
        if leader is None or leader.life is None or leader is node:
            return False
        term = node.durable.hard.term
        voters = leader.life.member.machine.conf_state.voters
        others = [n for n in self.world.nodes.values() if n is not node]
        running = [n.life.member.machine for n in others if n.life is not None]
        return (
            leader.life.member.term >= term
            and all(n.durable.hard.term >= term for n in others if n.id in voters)
            and not any(machine.role is Role.CANDIDATE for machine in running)
        )

    def explains(self, node: Node, code: ExitCode) -> bool:
        """Whether a member may end itself so; the operators replace it."""
        back = code is ExitCode.WENT_BACK and node.id in self.put_back
        damaged = code in DAMAGE_CODES and node.id in self.damaged
        if not (back or damaged):
            return False
        world = self.world
        world.gone.add(node.id)
        world.operators.wiped.add(node.id)
        world.operators.removed.add(node.id)
        world.count("an old copy was told" if back else "a damaged log was refused")
        return True

    # --- old copies -------------------------------------------------------------------------------

    def plan_copy(self) -> None:
        """Somebody keeps a copy of a data directory; it is put back when the atlas allows it."""
        nodes = [n for n in self.world.nodes.values() if n.id not in self.world.gone]
        victim = self.kernel.rng.choice(nodes)
        if victim.life is None or not victim.durable.last:
            return
        kept = take(victim, synced=self.kernel.rng.random() < 0.5)
        if kept is not None:
            self.kernel.at(self.kernel.rng.randrange(*COPY_AGE), self._put_back, victim, kept)

    def _put_back(self, node: Node, kept: Copy) -> None:
        if not self.world.nemesis.running or self.kernel.now - kept.taken > COPY_AGE_MAX:
            return
        now, then = node.durable, kept.durable
        same = (now.hard.term, now.hard.vote) == (then.hard.term, then.hard.vote)
        able = node.store_id == kept.store_id and now.last > then.last
        able = able and node.key_file is kept.key and node.new_key is None
        able = able and node.life is not None and self.world.nemesis.may_fall()
        able = able and (same or self._votes_are_over(node))
        if not (able and self.may_lose(node, then.last)):
            self.kernel.at(TRY_NS, self._put_back, node, kept)
            return
        self.world.fault("old copy", node=node.name, lost=now.last - then.last)
        self.hit[node.id] = now.last
        self.unseen.add(node.id)
        self.put_back.add(node.id)
        if not same:
            self.world.count("a vote was forgotten")
            self.world.checks.forgotten(node.id, then.hard.term)
        node.kill()
        node.lost.append(now)
        node.durable = then
        node.disk = fresh_disk(node.disk, kept.image)
        node.files, node.local, node.fresh = kept.files, kept.local, kept.fresh
        node.signed = kept.signed  # type: ignore[assignment]

    # --- damage -----------------------------------------------------------------------------------

    def damage(self) -> None:
        """A bad disk, while the member is down or is killed for it."""
        world, rng = self.world, self.kernel.rng
        node = rng.choice([n for n in world.nodes.values() if n.id not in world.gone])
        if node.life is not None and not world.nemesis.may_fall():
            return
        if not node.durable.last or node.new_key is not None or not self.may_lose(node):
            return
        kind = rng.choice(sim_damage.KINDS)
        result = sim_damage.damage(node.disk.image(), node.key_file, kind, rng)
        if result is None:
            return
        world.fault("damage", node=node.name, kind=kind)
        world.count(f"damage: {kind}")
        self.hit[node.id] = node.durable.last
        self.unseen.add(node.id)
        self.damaged.add(node.id)
        node.kill()
        if result.expected is not None:
            self.expected[node.id] = result.expected
        else:  # what is gone without a trace makes it an old copy
            self.put_back.add(node.id)
            node.lost.append(node.durable)
            node.durable = cut(node.durable, result.last)
        node.disk = fresh_disk(node.disk, result.image)

    def started(self, life: Life) -> None:
        """I8: a start after damage found what was there before."""
        who, log = life.node.id, life.log
        self.unseen.discard(who)
        expected = self.expected.pop(who, None)
        if who in self.damaged:
            self.world.count("a damaged log was used")
        if expected is None:
            return
        hard = life.member.machine.hard_state
        same = (hard.term, hard.vote) == (expected.hard.term, expected.hard.vote)
        assert same, "I8 a damaged log was served: term or vote"
        first = max(expected.first, log.first_index())
        found = log.entries(first, log.last_index() + 1, 2**63)
        assert tuple(found) == expected.entries[first - expected.first :], (
            "I8 a damaged log was served: entries"
        )


def take(node: Node, *, synced: bool) -> Copy | None:
    """A copy of a directory: of what is durable, or of what a reader sees."""
    image = node.disk.durable_image() if synced else node.disk.image()
    files: dict[int, SqlFile] = {}
    if node.new_key is not None:
        return None  # two keys
    for number, file in sorted(node.files.items()):
        if not file.complete:
            return None  # an install is under way
        kept = file.batches[: file.durable_batches] if synced else file.batches
        made = files[number] = SqlFile(number, StoreIdentity(*file.identity))
        for batch in kept:
            made.commit(batch)
        made.durable_batches = len(kept) if synced else file.durable_batches
    durable = copy.copy(node.durable)
    durable.terms = dict(durable.terms)
    return Copy(
        node.kernel.now,
        image,
        files,
        copy.deepcopy(node.local),
        node.signed,
        durable,
        node.fresh,
        node.store_id,
        node.key_file,
    )


def cut(durable: Durable, last: int) -> Durable:
    """As if nothing above ``last`` had been written."""
    out = copy.copy(durable)
    out.hard = durable.hard._replace(commit=HardState().commit)
    out.terms = {index: term for index, term in durable.terms.items() if index <= last}
    out.last = min(durable.last, last)
    out.base = min(durable.base, last)
    return out


def fresh_disk(before: NodeDisk, image: Image) -> NodeDisk:
    """A disk that holds ``image`` and is as full as the one before."""
    disk = NodeDisk(image)
    disk.full, disk.read_only = before.full, before.read_only
    return disk
