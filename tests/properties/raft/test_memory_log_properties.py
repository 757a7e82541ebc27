"""The retained log against a dictionary."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from configsvc.raft.messages import Entry, Snapshot
from configsvc.raft.sizes import ENTRY_OVERHEAD
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, Term


class LogTwin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.base = 0
        self.term = 0  # grows with every append, so that each write is distinguishable
        self.twin: dict[int, Entry] = {}

    @property
    def last(self) -> int:
        return max(self.twin, default=self.base)

    @rule(back=st.integers(0, 4), sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4))
    def append(self, back: int, sizes: list[int]) -> None:
        first = max(1, self.last + 1 - back)
        self.term += 1
        entries = [
            Entry(Term(self.term), LogIndex(index), 0, b"x" * size)
            for index, size in enumerate(sizes, first)
        ]
        self.log.append(entries)
        kept = [entry for entry in entries if entry.index > self.base]
        if kept:
            self.twin = {i: e for i, e in self.twin.items() if i < kept[0].index}
            self.twin.update((entry.index, entry) for entry in kept)

    @precondition(lambda self: self.twin)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.base + 1, self.last))
        self.log.compact(index)
        self.base = index
        self.twin = {i: e for i, e in self.twin.items() if i > index}

    @rule(ahead=st.integers(1, 5))
    def install(self, ahead: int) -> None:
        self.base, self.twin = self.last + ahead, {}
        self.term += 1
        self.log.apply_snapshot(Snapshot(LogIndex(self.base), Term(self.term)))

    @invariant()
    def same(self) -> None:
        assert (self.log.first_index(), self.log.last_index()) == (self.base + 1, self.last)
        held = self.log.entries(self.base + 1, self.last + 1, 2**63)
        assert held == tuple(self.twin[i] for i in sorted(self.twin))
        assert all(self.log.term(i) == e.term for i, e in self.twin.items())
        size = sum(len(e.data) + ENTRY_OVERHEAD for e in self.twin.values())
        assert self.log.bytes_retained == size


TestLogTwin = LogTwin.TestCase
TestLogTwin.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
