"""Reads that wait on a leader for proof that it still is one. A queue and its arithmetic.

A *round* is one exchange of heartbeats. Rounds are numbered by the leader, per term, from 1 (R2):
an acknowledgement of round n was sent after round n began, so it proves leadership for every
read that arrived before, that is for all rounds up to n. Numbers never come from a caller.

Always true: rounds in ``waiting`` never fall, and at most one of them is not begun. Everything is
forgotten with the leadership (C10, R4). Not here: sending rounds, answering (``raft.reads``).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from configsvc.raft import quorum
from configsvc.raft.messages import ConfState
from configsvc.types import NodeId


class WaitingRead(NamedTuple):
    round: int
    commit_index: int  # the leader's when the read arrived there
    from_: NodeId  # who gets the answer; 0 or the leader itself: a read state
    context: bytes


class ReadQueue:
    __slots__ = ("_acked", "_bound", "begun", "unproven", "waiting")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.begun = 0  # the last round sent; 0: none in this term
        self.waiting: deque[WaitingRead] = deque()
        # Reads that arrived before an entry of the term was committed: (from, context).
        self.unproven: list[tuple[NodeId, bytes]] = []
        self._acked: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self.waiting) + len(self.unproven)

    @property
    def full(self) -> bool:
        return len(self) >= self._bound

    def add(self, index: int, from_: NodeId, context: bytes) -> bool:
        """Queue a read; whether its round must be begun now.

        While a round is under way, newcomers share the next one.
        """
        under_way = bool(self.waiting)
        self.waiting.append(WaitingRead(self.begun + 1, index, from_, context))
        return not under_way

    def begin(self) -> int:
        """Number of a new round."""
        self.begun += 1
        return self.begun

    def next_round_waits(self) -> bool:
        """Whether reads wait for a round that has not begun."""
        return bool(self.waiting) and self.waiting[-1].round > self.begun

    def acknowledge(self, from_: NodeId, round_: int) -> None:
        if round_ > self._acked.get(from_, 0):
            self._acked[from_] = round_

    def take_confirmed(self, conf: ConfState, own: NodeId) -> list[WaitingRead]:
        """Remove and return the reads whose round a quorum of both halves has acknowledged."""
        acked = self._acked
        acked[own] = self.begun
        confirmed = quorum.committed_index(
            conf.voters, conf.voters_outgoing, lambda voter: acked.get(voter, 0)
        )
        confirmed = min(confirmed, self.begun)
        taken = []
        while self.waiting and self.waiting[0].round <= confirmed:
            taken.append(self.waiting.popleft())
        return taken
