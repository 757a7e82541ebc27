"""Bugs that others had, planted one at a time: the simulation must notice each.

A mutant replaces one rule of the core. If none of the seeds notices it, the checks are too weak.
Rules whose loss needs a rarer coincidence than a few seconds find have tables in
``tests/unit/raft`` and scripts of their own (#7, #13, #20, #35).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_core_sim import simulate

from configsvc.errors import ConfigServiceError, InvariantViolationError
from configsvc.raft import plan, proposing, readqueue, roles
from configsvc.raft.log import RaftLog
from configsvc.raft.messages import MessageType
from configsvc.raft.progress import Inflights
from configsvc.raft.state import Raft

SEEDS = 100

Plant = Callable[[pytest.MonkeyPatch], None]


def forgotten_vote(patch: pytest.MonkeyPatch) -> None:
    """#27: falling back to follower in the same term frees the vote."""
    start = roles._start

    def forget(raft: Raft, term: int) -> None:
        start(raft, term)  # type: ignore[arg-type]
        raft.vote = 0  # type: ignore[assignment]

    patch.setattr(roles, "_start", forget)


def early_acknowledgements(patch: pytest.MonkeyPatch) -> None:
    """#6: entries are acknowledged while they are being written."""
    patch.setattr(plan, "_EARLY", plan._EARLY | {MessageType.APP_RESP})


def early_votes(patch: pytest.MonkeyPatch) -> None:
    """#1: votes and candidacies leave before they are durable."""
    patch.setattr(plan, "split_messages", lambda messages, *, nothing_early: (messages, ()))


def cut_without_conflict(patch: pytest.MonkeyPatch) -> None:
    """#15: an older append cuts off a good suffix."""
    patch.setattr(RaftLog, "_known_prefix", lambda self, entries: 0)


def read_before_commit(patch: pytest.MonkeyPatch) -> None:
    """#34: a new leader answers reads before it has committed an entry of its term."""
    patch.setattr(Raft, "committed_in_term", lambda self: True)


def reads_without_rounds(patch: pytest.MonkeyPatch) -> None:
    """#35 to its end: nobody is asked."""
    confirmed = readqueue.ReadQueue.take_confirmed

    def alone(self: readqueue.ReadQueue, conf: object, own: object) -> object:
        for member in conf.voters:  # type: ignore[attr-defined]
            self._acked[member] = self.begun
        return confirmed(self, conf, own)  # type: ignore[arg-type]

    patch.setattr(readqueue.ReadQueue, "take_confirmed", alone)


def unchecked_changes(patch: pytest.MonkeyPatch) -> None:
    """#41: changes are proposed while another one is unapplied."""
    patch.setattr(proposing, "_may_change", lambda raft, entry: True)


def skipped_page(patch: pytest.MonkeyPatch) -> None:
    """#18: paging loses the entries that did not fit."""
    accept = RaftLog.accept_applying

    def skip(self: RaftLog, entries: object, *, allow_unstable: bool) -> None:
        accept(self, entries, allow_unstable=allow_unstable)  # type: ignore[arg-type]
        self.applying = self._appliable(allow_unstable)

    patch.setattr(RaftLog, "accept_applying", skip)


def window_never_freed(patch: pytest.MonkeyPatch) -> None:
    """#17, #24: acknowledgements and changes of state leave the window full."""
    patch.setattr(Inflights, "free_to", lambda self, index: None)
    patch.setattr(Inflights, "clear", lambda self: None)


MUTANTS: tuple[Plant, ...] = (
    forgotten_vote,
    early_acknowledgements,
    early_votes,
    cut_without_conflict,
    read_before_commit,
    reads_without_rounds,
    unchecked_changes,
    skipped_page,
    window_never_freed,
)


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_planted_bugs_are_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS):
        try:
            simulate(seed)
        except (AssertionError, InvariantViolationError, ConfigServiceError):
            return
    pytest.fail(f"{SEEDS} seeds did not notice it")
