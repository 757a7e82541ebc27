"""A group of members on a network that loses, repeats, delays and reorders, with crashes.

One seed, one run: every decision comes from one ``random.Random``. After the faults the world
heals, and the group must elect a leader, take a proposal and bring everybody up to date.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Any

from core_sim_checks import Checks
from core_sim_member import Crash, Machine, Member

from configsvc.errors import ensure
from configsvc.raft.config import NO_LIMIT, RaftConfig
from configsvc.raft.errors import RaftError
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from configsvc.types import NodeId

ELECTION_TICKS = 10
DELIVERIES_PER_TICK = 20_000
_START = 5  # index of the common start state


@dataclass(frozen=True)
class Faults:
    """What the network and the operators do in one run; 0 is never."""

    loss: float
    duplicates: float
    delay: int  # longest, in ticks
    crash: float  # at each legal point
    partition: float  # per tick
    changes: float  # per tick
    transfers: float
    compactions: float


CALM = Faults(0, 0, 1, 0, 0, 0, 0, 0)


class World:
    """``members`` 0 and no ``faults``: drawn from the seed."""

    def __init__(self, seed: int, *, members: int = 0, faults: Faults | None = None) -> None:
        self.rng = random.Random(seed)
        self.checks = Checks()
        self.now = 0
        self.serial = 0  # breaks ties, and numbers payloads and reads
        self.flight: list[tuple[int, int, Message]] = []
        self.cut: set[tuple[int, int]] = set()  # directed links; only asked, never iterated
        self.down: dict[NodeId, int] = {}  # until when
        self.faults = faults if faults is not None else self._draw_faults()
        count = members or self.rng.choice((1, 2, 3, 3, 5, 5))
        voters = tuple(NodeId(i) for i in range(1, count + 1))
        self.spare = 2 if self.faults.changes else 0
        start = Machine(_START, 1, 0, ConfState(voters=voters))
        self.members = {
            member: self._member(
                member, start if member in voters else Machine(0, 0, 0, ConfState())
            )
            for member in (NodeId(i) for i in range(1, len(voters) + self.spare + 1))
        }

    def _draw_faults(self) -> Faults:
        rng = self.rng

        def maybe(most: float) -> float:
            return rng.random() * most if rng.random() < 0.5 else 0.0

        return Faults(
            loss=maybe(0.3),
            duplicates=maybe(0.3),
            delay=rng.choice((1, 2, 5, 15)),
            crash=maybe(0.02),
            partition=maybe(0.15),
            changes=maybe(0.05),
            transfers=maybe(0.03),
            compactions=maybe(0.1),
        )

    def _member(self, member: NodeId, start: Machine) -> Member:
        rng = self.rng
        config = RaftConfig(
            id=member,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=2,
            pre_vote=True,
            check_quorum=True,
            step_down_on_removal=True,
            forward_proposals=False,
            async_storage_writes=rng.random() < 0.3,
            inflight_messages=rng.choice((1, 2, 8, 100)),
            inflight_bytes=rng.choice((1, 100, NO_LIMIT)),
            max_append_bytes=rng.choice((0, 100, NO_LIMIT)),
            max_committed_bytes_per_ready=rng.choice((1, 100, NO_LIMIT)),
            max_committed_entries_per_ready=rng.choice((1, 3, NO_LIMIT)),
            max_uncommitted_bytes=rng.choice((50, NO_LIMIT)),
        )
        return Member(config, start, rng, self.checks)

    # --- time -------------------------------------------------------------------------------

    def run(self, ticks: int) -> None:
        end = self.now + ticks
        while self.now < end:
            self.now += 1
            self._disturb()
            for member in self.members.values():
                self._on(member, member.core.tick)
                self._work_on_disk(member)
            if self.faults is not CALM:
                self._operate()
            self._deliver_due()

    def _deliver_due(self) -> None:
        budget = DELIVERIES_PER_TICK
        while self.flight and self.flight[0][0] <= self.now:
            self._deliver(heapq.heappop(self.flight)[2])
            budget -= 1
            assert budget, "members answer each other without end"

    def _work_on_disk(self, member: Member) -> None:
        """A disk that is slow at times, and catches up at others."""
        items = self.rng.choice((0, 1, 2, 1000))
        while items and member.has_storage_work() and member.id not in self.down:
            self._on(member, member.storage_work)
            items -= 1

    def _on(self, member: Member, action: Any, *args: Any) -> None:
        """Let ``action`` happen on a member that is up, and carry out what follows."""
        if member.id in self.down:
            return
        try:
            try:
                action(*args)
            except RaftError:
                self.checks.count("refusals")
            member.work()
        except Crash:
            self._crash(member)
        self._post(member)

    def _crash(self, member: Member) -> None:
        self.down[member.id] = self.now + self.rng.randrange(1, 4 * ELECTION_TICKS)

    def _post(self, member: Member) -> None:
        """Put on the network what left the member, even if it crashed right after."""
        messages, member.out = member.out, []
        for message in messages:
            copies = 1 + (self.rng.random() < self.faults.duplicates)
            for _ in range(copies):
                self.serial += 1
                at = self.now + self.rng.randrange(self.faults.delay)
                heapq.heappush(self.flight, (at, self.serial, message))

    def _deliver(self, message: Message) -> None:
        member = self.members.get(message.to)
        lost = self.rng.random() < self.faults.loss
        lost = lost or (message.from_, message.to) in self.cut
        if message.type is MessageType.SNAP and message.snapshot is not None:
            self._deliver_snapshot(message, message.snapshot, lost=lost)
        elif member is not None and not lost and member.id not in self.down:
            if self.rng.random() < 0.1:
                member.inbox.append(message)
            else:
                self._on(member, member.core.step, message)

    def _deliver_snapshot(self, message: Message, snapshot: Snapshot, *, lost: bool) -> None:
        """An install ends with a report to the leader, one way or the other."""
        ensure(snapshot.index > 0, "an empty snapshot was sent")
        target = self.members[message.to]
        lost = lost or target.id in self.down
        if not lost:
            self._on(target, target.core.step, message)
        leader = self.members[message.from_]
        self._on(leader, leader.core.report_snapshot, message.to, not lost)

    # --- faults and operators ---------------------------------------------------------------

    def _disturb(self) -> None:
        rng, faults = self.rng, self.faults
        for stopped in list(self.down):
            if self.down[stopped] <= self.now:
                del self.down[stopped]
                self.members[stopped].restart()
        for member in self.members.values():
            member.crash_chance = faults.crash
        if rng.random() < faults.partition:
            self.cut = self._partition()

    def _partition(self) -> set[tuple[int, int]]:
        """Directed links that are cut from now on, until the next partition."""
        rng = self.rng
        ids = list(self.members)
        kind = rng.choice(("none", "leader", "leader", "halves", "random"))
        if kind == "random":
            return {(a, b) for a in ids for b in ids if rng.random() < 0.3}
        if kind == "none":
            return set()
        leader = self.leader()
        if kind == "leader" and leader is not None:
            side = {leader.id}
        else:
            side = set(rng.sample(ids, len(ids) // 2))
        return {(a, b) for a in ids for b in ids if (a in side) != (b in side)}

    def _operate(self) -> None:
        rng, faults = self.rng, self.faults
        for member in self.members.values():
            leads = member.core.role is Role.LEADER
            barrier = member.core.conf_change_unapplied
            if leads and not barrier and rng.random() < 0.5:
                self._on(member, member.core.propose, self._payloads())
            if rng.random() < 0.1:
                self._read(member)
            if leads and rng.random() < faults.changes:
                self._on(member, member.core.propose_conf_change, self._change(member.id))
            if leads and rng.random() < faults.transfers:
                self._on(member, member.core.transfer_leader, rng.choice(list(self.members)))
            if rng.random() < 0.2:
                member.checkpoint()
            if rng.random() < faults.compactions:
                member.compact(rng.choice((0, 3)))

    def _payloads(self) -> list[bytes]:
        self.serial += 1
        return [b"%d.%d" % (self.serial, i) for i in range(self.rng.randrange(1, 4))]

    def _read(self, member: Member) -> None:
        self.serial += 1
        context = b"r%d" % self.serial
        self.checks.read_begins(context)
        self._on(member, member.core.read_index, context)

    def _change(self, leader: NodeId) -> ConfChange:
        """Any change but one of the leader itself, which transfers first (reliability.md 5.5)."""
        rng = self.rng
        kinds = (ConfChangeType.ADD_NODE, ConfChangeType.REMOVE_NODE, ConfChangeType.ADD_LEARNER)
        transition = rng.choice(list(ConfChangeTransition))
        count = rng.choice((0, 1, 1, 2, 3))
        others = [member for member in self.members if member != leader]
        ids = rng.sample(others, min(count, len(others)))
        changes = tuple(ConfChangeSingle(rng.choice(kinds), member) for member in ids)
        return ConfChange(changes, transition if changes else ConfChangeTransition.AUTO)

    # --- the end ----------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults; everybody is up and reachable."""
        self.faults = CALM
        self.cut = set()
        for member in list(self.down):
            self.down[member] = self.now

    def leader(self) -> Member | None:
        """The leader with the highest term, if there is one."""
        leading = [m for m in self.members.values() if m.core.role is Role.LEADER]
        return max(leading, key=lambda member: member.core.term, default=None)

    def converged(self, payload: bytes) -> bool:
        """Whether a proposal made after the heal is applied on all members of the configuration."""
        leader = self.leader()
        if leader is None:
            return False
        conf = leader.machine.conf
        group = [self.members[i] for i in (*conf.voters, *conf.voters_outgoing, *conf.learners)]
        return len({member.machine for member in group}) == 1 and any(
            value[1] == payload for value in self.checks.committed.values()
        )

    def counters_in_use(self) -> list[str]:
        """I22: what is not zero, although it must be when nothing is going on."""
        found = []
        for member in self.members.values():
            status = member.core.status()
            counters = {
                "bytes being applied": member.core.raft.log.applying_bytes(),
                "uncommitted bytes": status.uncommitted_bytes,
                "waiting reads": status.reads_waiting,
                "windows": sum(peer.inflight for peer in status.progress.values()),
            }
            found += [f"{what} of {member.id}" for what, value in counters.items() if value]
        return found
