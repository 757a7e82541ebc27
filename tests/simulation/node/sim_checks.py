"""Invariants of a simulated cluster, checked as things happen (reliability.md 6.3).

The checker sees what no member sees: all that was sent, synced, committed and applied, over all
members and all their starts. It never asks a member what is right, only compares. A broken
invariant is an ``AssertionError`` that begins with the invariant's number.

Not here: histories of clients and watchers (``tests.simulation.checkers``), reads
(``sim_read_checks``), bounds (``sim_bounds``), the order of file steps (``sim_disk_checks``), what
a fault costs (``sim_minority``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from configsvc.apply.commands import Effects, Refused
from configsvc.mvcc.messages import Row
from configsvc.raft.errors import Compacted
from configsvc.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Role,
)
from configsvc.types import NodeId
from tests.simulation.node.sim_bounds import BoundChecks
from tests.simulation.node.sim_read_checks import ReadChecks
from tests.simulation.node.sim_upkeep import AlarmChecks

if TYPE_CHECKING:
    from configsvc.raft.storage import MemoryLog
    from tests.simulation.node.sim_log import Durable
    from tests.simulation.node.sim_node import Life, Node
    from tests.simulation.node.sim_world import World


class Checks:
    def __init__(self, world: World) -> None:
        self.world = world
        self.trace = blake2b(digest_size=16)
        self.leaders: dict[int, NodeId] = {}
        self.votes: dict[tuple[NodeId, int], NodeId] = {}
        self.committed: list[tuple[int, bytes]] = [(0, b"")]  # by index: term, digest
        self.committed_in: list[int] = [0]  # by index: a term in which that was known
        self.confs: dict[int, ConfState] = {}
        self.events: list[tuple[int, tuple[Row, ...]]] = []  # every revision that changed keys
        self.results: dict[int, Effects] = {}  # request id -> what its entry did
        self.acked = 0  # highest revision that a client was told
        self.elections = 0
        self.bounds = BoundChecks()
        self.reads = ReadChecks(world)
        self.alarms = AlarmChecks()
        self._before: dict[tuple[int, int], tuple[int, int, bytes]] = {}  # (index, term) -> entry
        self._seen: dict[NodeId, tuple[int, int, int]] = {}  # term, commit, applied of this start
        self._office: dict[NodeId, tuple[int, int]] = {}  # term and commit index of a leader
        self._conf_seen: dict[NodeId, int] = {}
        self._roles: dict[NodeId, tuple[int, int]] = {}

    def note(self, *what: Any) -> None:
        """Something that must be the same whenever the seed is the same."""
        self.trace.update(repr((self.world.kernel.now, *what)).encode())

    # --- promises ---------------------------------------------------------------------------------

    def sent(self, node: Node, message: Message) -> None:
        """I7, and I8: what a message promises is durable when it leaves."""
        kind, term, durable = message.type, message.term, node.durable
        self.bounds.sent(node, message)
        self.reads.sent(node, message)
        if kind is MessageType.VOTE:
            assert _kept(durable.hard, term, node.id), "I8 candidacy before it is durable"
            assert durable.last >= message.index, "I8 candidacy with entries that are not durable"
            self._voted(node.id, term, node.id)
        elif kind is MessageType.VOTE_RESP and not message.reject:
            assert _kept(durable.hard, term, message.to), "I8 vote before it is durable"
            self._voted(node.id, term, message.to)
        elif kind is MessageType.APP_RESP and not message.reject:
            # Of an earlier term: a newer leader may have replaced it in the same write. That is as
            # if the answer had been long under way; nobody can have won that term's office since
            # without a voter who held the entry, and refused.
            if term == durable.hard.term:
                assert message.index <= durable.last, "I8 acknowledged before it is durable"
            assert durable.hard.term >= term, "I8 acknowledged in a term that is not durable"

    def _voted(self, voter: NodeId, term: int, candidate: NodeId) -> None:
        assert self.votes.setdefault((voter, term), candidate) == candidate, "I7 two votes"

    def forgotten(self, voter: NodeId, since: int) -> None:
        """An old copy of ``voter`` knows of no vote in terms from ``since`` on. That two of its
        votes make no two leaders is I1's.
        """
        for who, term in [key for key in self.votes if key[0] == voter and key[1] >= since]:
            del self.votes[who, term]

    # --- members ----------------------------------------------------------------------------------

    def began(self, node: Node, life: Life) -> None:
        """A start found at least what had been durable (I8 over restarts, I6)."""
        durable, found = node.durable, life.member.machine
        hard = found.hard_state
        assert hard.term >= durable.hard.term, "I6 the term went back over a restart"
        if hard.term == durable.hard.term and durable.hard.vote:
            assert hard.vote == durable.hard.vote, "I7 the vote was forgotten over a restart"
        log = life.log
        self._compare(durable, log)
        self.world.nemesis.losses.started(life)
        self._configuration_at_start(life)
        self.bounds.watch(life)
        self.reads.watch(life)
        durable.recovered(hard, log)  # copied forward and synced (W7)
        self._seen.pop(node.id, None)
        self._roles.pop(node.id, None)

    def _compare(self, durable: Durable, log: MemoryLog) -> None:
        """What was durable is still there, unless a frame of a later term stands over it: one
        that was written and not synced may have survived.
        """
        for index in range(max(log.first_index(), durable.base), durable.last + 1):
            if index not in durable.terms:
                continue
            assert index <= log.last_index(), "I8 durable entries are gone after a restart"
            if log.term(index) != durable.terms[index]:
                later = log.term(index) > durable.terms[index]
                assert later, "I8 durable entries changed over a restart"
                return

    def _configuration_at_start(self, life: Life) -> None:
        """I11: a start goes on with the configuration of the applied log (M2)."""
        known = [index for index in self.confs if index <= life.started_applied]
        if known and not life.world.nodes[life.node.id].fresh:
            conf = self.confs[max(known)]
            assert life.member.machine.conf_state == conf, "I11 configuration after a restart"

    def look(self, life: Life) -> None:
        """After everything a member does."""
        self.bounds.look(life)
        machine = life.member.machine
        raft = machine.raft
        who = life.node.id
        now = (raft.term, raft.commit_index, machine.applied)
        before = self._seen.get(who)
        if before is not None:
            if before == now and self._roles.get(who) == (now[0], raft.role):
                return
            assert now[0] >= before[0], "I6 the term went back"
            assert now[1] >= before[1], "I6 commit went back"
            assert now[2] >= before[2], "I6 applied went back"
        assert now[2] <= max(now[1], life.started_applied), "I9 applied above commit"
        self._seen[who] = now
        if self._conf_seen.get(who) != machine.conf_index:
            self._conf_seen[who] = machine.conf_index
            self._configuration(life)
        role = (now[0], raft.role)
        if self._roles.get(who) != role:
            self._roles[who] = role
            if raft.role is Role.LEADER:
                self._took_office(life)
        if raft.role is Role.LEADER:
            self._leading(life)

    def _took_office(self, life: Life) -> None:
        """I1, I4: the only leader of its term, and it holds every committed entry."""
        raft, who = life.member.machine.raft, life.node.id
        self.elections += 1
        assert self.leaders.setdefault(raft.term, who) == who, f"I1 two leaders in {raft.term}"
        conf = life.member.machine.raft.raft.conf
        assert who in (*conf.voters, *conf.voters_outgoing), "I20 a leader that is no voter"
        # What was committed in earlier terms; a late winner may lead a term that is over.
        last = bisect_left(self.committed_in, raft.term) - 1
        log = raft.raft.log
        assert log.last_index >= last, "I4 leader lacks committed entries"
        for index in range(max(log.first_index(), last - 50, 1), last + 1):
            assert log.term(index) == self.committed[index][0], f"I4 leader differs at {index}"

    def _leading(self, life: Life) -> None:
        """I5, I11, I15."""
        raft = life.member.machine.raft.raft
        term, commit = self._office.get(life.node.id, (0, 0))
        if term == raft.term and raft.log.committed > commit:
            own = raft.log.term(raft.log.committed) == term
            assert own, "I5 an entry of an earlier term is committed by counting"
        self._office[life.node.id] = (raft.term, raft.log.committed)
        for peer, progress in raft.progress.items():
            assert progress.match < progress.next, f"I15 match and next of {peer}"
            window = progress.inflights
            assert len(window) <= window.max_messages, "I15 window"
            assert progress.match <= raft.log.last_index, "I15 match beyond the log"
        self._one_change_at_a_time(life)

    # --- entries ----------------------------------------------------------------------------------

    def applied(self, node: Node, life: Life, effects: Sequence[Effects]) -> None:
        """I3, I5, I9, I10: the same entry, durable where it must be, with the same outcome."""
        committed = self.committed
        for effect in effects:
            index = effect.index
            assert index <= node.durable.last, "I9 applied before it is durable here"
            if index < len(committed):
                term, digest = committed[index]
                assert term == effect.term, f"I3 committed entry {index} changed"
                assert digest == effect.digest, f"I10 digest at {index}"
                continue
            assert index == len(committed), "I3 applied with a gap"
            self._first_time(node, life, effect)
        if life.conf_before is not life.member.machine.conf_state:
            life.conf_earlier = life.conf_before
            life.conf_before = life.member.machine.conf_state

    def _first_time(self, node: Node, life: Life, effect: Effects) -> None:
        self._quorum(life, effect.index, effect.term)
        self.committed.append((effect.term, effect.digest))
        self.committed_in.append(max(life.member.machine.raft.term, self.committed_in[-1]))
        self.note("applied", effect.index, effect.term, effect.revision, effect.digest.hex())
        if effect.rows:
            assert not self.events or self.events[-1][0] < effect.revision, "I19 revision order"
            self.events.append((effect.revision, effect.rows))
        if effect.request_id:
            found = self.results.get(effect.request_id)
            again = found is not None and not isinstance(effect.result, Refused)
            assert not again, "I18 one request took effect twice"
            self.results[effect.request_id] = effect
        self.world.leases.applied(effect)
        self.alarms.applied(effect)

    def _quorum(self, life: Life, index: int, term: int) -> None:
        """I5: a majority of each half of the configuration holds the entry durably.

        Which configuration counts is decided when the entry is committed, and it takes effect
        when it is applied: the entries right behind a change may have been committed, together
        with it, under the configuration before.
        """
        machine = life.member.machine
        confs = [machine.conf_state] if machine.conf_index < index else []
        if life.conf_before is not machine.conf_state or not confs:
            confs.append(life.conf_before)
        if machine.conf_index < index and life.conf_earlier is not None:
            confs.append(life.conf_earlier)
        assert any(self._held(conf, index, term) for conf in confs), (
            f"I5 entry {index} is not durable on a majority of {confs}"
        )

    def _held(self, conf: ConfState, index: int, term: int) -> bool:
        nodes = self.world.nodes
        for voters in (conf.voters, conf.voters_outgoing):
            held = sum(v in nodes and nodes[v].held(index, term) for v in voters)
            if voters and 2 * held <= len(voters):
                return False
        return True

    def logged(self, entries: Sequence[Entry], before: int) -> None:
        """I2: an index and a term mean one entry, with one entry before it, on all members.

        ``before``: term of the entry that the first of them follows.
        """
        for entry in entries:
            key, value = (entry.index, entry.term), (before, int(entry.kind), entry.data)
            assert self._before.setdefault(key, value) == value, f"I2 log matching at {key}"
            before = entry.term

    def let_go(self, life: Life, up_to: int) -> None:
        """I9: the log gives up only what the history would have after a power loss."""
        kept = life.member.history.file.durable  # type: ignore[attr-defined]
        assert up_to <= kept, f"I9 the log ends at {up_to}, the history's disk at {kept}"

    def written(self, node: Node, life: Life, last: int) -> None:
        """I9: the history never holds more than the log does."""
        assert last <= node.durable.last, "I9 the history is ahead of the log"

    def _one_change_at_a_time(self, life: Life) -> None:
        """I11: at most one configuration entry above the applied index of a leader."""
        log = life.member.machine.raft.raft.log
        if log.applied == log.last_index:
            return
        try:
            above = log.entries(log.applied + 1, log.last_index + 1, 2**63)
        except Compacted:
            return
        changes = sum(entry.kind != EntryKind.NORMAL for entry in above)
        assert changes <= 1, "I11 two unapplied configuration entries"
        if changes:
            first = next(at for at, e in enumerate(above) if e.kind != EntryKind.NORMAL)
            own = life.member.machine.raft.term
            behind = [e for e in above[first + 1 :] if e.term == own and e.data]
            barrier = above[first].term != own or not behind
            assert barrier, "I11 proposals behind an unapplied configuration entry (5.5 a)"

    def _configuration(self, life: Life) -> None:
        """I11: the configuration is a function of the applied log."""
        machine = life.member.machine
        if machine.conf_index == life.started_applied:
            return  # where it started, not the entry that made it
        known = self.confs.setdefault(machine.conf_index, machine.conf_state)
        assert known == machine.conf_state, f"I11 configuration at {machine.conf_index}"


def _kept(hard: HardState, term: int, candidate: NodeId) -> bool:
    """Whether no crash can make the member vote for anybody but ``candidate`` in ``term``."""
    return hard.term > term or (hard.term, hard.vote) == (term, candidate)


class LeaseChecks:
    """I16: no lease ends before its client's last renewal plus its TTL, unless somebody asks, and
    none that has ended is renewed.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive_until: dict[int, float] = {}  # lease -> seconds that its holder may count on
        self.revoked: set[int] = set()  # asked for by a client, or of unknown fate
        self.ended: dict[int, float] = {}  # lease -> when its end was applied first
        self.slack = 0.9  # a member's clock may run that much faster, and the TTL is whole seconds

    def renewed(self, lease: int, called_s: float, ttl: int) -> None:
        """A grant or renewal that began at ``called_s`` was answered."""
        ended = self.ended.get(lease, called_s)
        assert called_s <= ended, f"I16 lease {lease} was renewed {called_s - ended:.3f} s too late"
        until = called_s + ttl * self.slack
        self.alive_until[lease] = max(self.alive_until.get(lease, 0.0), until)

    def applied(self, effect: Effects) -> None:
        for change in effect.tables:
            if change.table != "leases" or change.row is not None:
                continue
            lease = change.key[0]
            self.ended.setdefault(lease, self.world.kernel.now / 1e9)
            if lease in self.revoked:
                continue
            now = self.world.kernel.now / 1e9
            until = self.alive_until.get(lease, 0.0)
            assert now >= until, f"I16 lease {lease} ended {until - now:.3f} s early"
            self.world.count("leases ran out")
