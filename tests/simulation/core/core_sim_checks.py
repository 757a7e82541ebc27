"""Invariants of a simulated group, checked as things happen (reliability.md 6.3).

The checker sees what no member sees: everything written, sent, committed and applied, over all
members and incarnations. It never looks into a member to decide what is right, only to compare.
"""

from __future__ import annotations

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
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.types import NodeId


class Checks:
    def __init__(self) -> None:
        self.leaders: dict[int, NodeId] = {}
        self.written: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.commit_max = 0
        self.votes: dict[tuple[NodeId, int], NodeId] = {}
        self.digests: dict[int, int] = {}
        self.confs: dict[int, ConfState] = {}
        self.reads: dict[bytes, int] = {}
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        """Coverage: that something happened at all."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def wrote(self, log: MemoryLog, entries: tuple[Entry, ...]) -> None:
        """I2: an (index, term) means one entry, and one entry before it, everywhere."""
        if not entries:
            return
        try:
            before = log.term(entries[0].index - 1)
        except Compacted:
            return
        for entry in entries:
            key, value = (entry.index, entry.term), (before, entry.data)
            assert self.written.setdefault(key, value) == value, f"I2 log matching at {key}"
            before = entry.term

    def sent(self, sender: NodeId, message: Message, disk: HardState, last: int) -> None:
        """I7, and I8: what a message promises is durable when it leaves."""
        kind, term = message.type, message.term
        if kind is MessageType.VOTE:
            assert _kept(disk, term, sender), "I8 candidacy before it is durable"
            self._voted(sender, term, sender)
            assert last >= message.index, "I8 candidacy with entries that are not durable"
        elif kind is MessageType.VOTE_RESP and not message.reject:
            assert _kept(disk, term, message.to), "I8 vote before it is durable"
            self._voted(sender, term, message.to)
        elif kind is MessageType.APP_RESP and not message.reject:
            assert message.index <= last, "I8 acknowledged before it is durable"

    def _voted(self, voter: NodeId, term: int, candidate: NodeId) -> None:
        assert self.votes.setdefault((voter, term), candidate) == candidate, "I7 two votes"

    def looked_at(self, core: RawNode) -> None:
        """After every step of a member."""
        if core.role is not Role.LEADER:
            return
        if self.leaders.setdefault(core.term, core.raft.id) != core.raft.id:
            raise AssertionError(f"I1 two leaders in term {core.term}")
        for peer, progress in core.raft.progress.items():
            assert progress.match < progress.next, f"I15 match and next of {peer}"
            window = progress.inflights
            assert len(window) <= window.max_messages, "I15 window"
            assert progress.match <= core.last_index, "I15 match beyond the log"

    def took_office(self, core: RawNode) -> None:
        """I4: a new leader holds every committed entry."""
        log = core.raft.log
        assert log.last_index >= self.commit_max, "I4 leader lacks committed entries"
        for index in range(max(log.first_index(), 1), self.commit_max + 1):
            assert log.term(index) == self.committed[index][0], f"I4 leader differs at {index}"
        self.count("leaders")

    def one_change_at_a_time(self, core: RawNode) -> None:
        """I11: at most one configuration entry above the applied index of a leader."""
        log = core.raft.log
        above = log.entries(log.applied + 1, log.last_index + 1, 2**63)
        changes = sum(entry.kind != EntryKind.NORMAL for entry in above)
        assert changes <= 1, "I11 two unapplied configuration entries"

    def committed_entry(self, entry: Entry) -> None:
        """I3: what is committed once stays."""
        value = (entry.term, entry.data)
        found = self.committed.setdefault(entry.index, value)
        assert found == value, f"I3 committed entry {entry.index} changed"
        self.commit_max = max(self.commit_max, entry.index)

    def applied(self, index: int, digest: int, conf: ConfState) -> None:
        """I10, I11: state and configuration are functions of the applied log."""
        assert self.digests.setdefault(index, digest) == digest, f"I10 digest at {index}"
        assert self.confs.setdefault(index, conf) == conf, f"I11 configuration at {index}"

    def read_begins(self, context: bytes) -> None:
        self.reads[context] = self.commit_max

    def read_answered(self, context: bytes, index: int) -> None:
        """I12: a read sees every commit that was known anywhere before it began."""
        assert index >= self.reads[context], "I12 stale read"
        self.count("reads")


def _kept(disk: HardState, term: int, candidate: NodeId) -> bool:
    """Whether no crash can make the member vote for anybody but ``candidate`` in ``term``."""
    return disk.term > term or (disk.term, disk.vote) == (term, candidate)
