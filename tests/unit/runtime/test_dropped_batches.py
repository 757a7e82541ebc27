"""A leader whose core takes no writes just now rests until something happens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configsvc import limits
from configsvc.raft.errors import ProposalDropped
from configsvc.runtime.passes import Passes


class Leader:
    """More writes wait than one batch takes."""

    def __init__(self, waiting: int, *, room: bool) -> None:
        self.waiting = waiting
        self.room = room
        self.calls: list[Callable[[], None]] = []
        member: Any = SimpleNamespace(
            loop=SimpleNamespace(call_soon=self.calls.append),
            clock=SimpleNamespace(monotonic=lambda: 0.0),
            proposals=self,
            leading_since_term=1,
            handover=SimpleNamespace(under_way=None),
            housekeeping=SimpleNamespace(hold_writes=lambda urgent=False: False),
            machine=SimpleNamespace(
                raft=SimpleNamespace(
                    term=1, last_index=1, conf_change_unapplied=False, propose=self._propose
                )
            ),
            state=SimpleNamespace(last_time_ns=0),
            news=SimpleNamespace(expects=lambda *_: None),
        )
        self.passes = Passes(member)

    foreign = ()

    @property
    def queued(self) -> bool:
        return self.waiting > 0

    def take_for_leader(self, _: int, *, urgent_only: bool) -> tuple[list[bytes], list[int]]:
        taken = min(self.waiting, limits.READY_ENTRIES_MAX)
        self.waiting -= taken
        return [b"write"] * taken, list(range(taken))

    def give_back(self, batch: list[int]) -> None:
        self.waiting += len(batch)

    def _propose(self, _: list[bytes]) -> None:
        if not self.room:
            raise ProposalDropped


@pytest.mark.parametrize(
    ("batches", "room", "woken"),
    [(2, True, 1), (2, False, 0), (1, True, 0), (1, False, 0)],
)
def test_the_next_batch_follows_at_once_only_if_this_one_was_taken(
    batches: int, room: bool, woken: int
) -> None:
    leader = Leader(batches * limits.READY_ENTRIES_MAX, room=room)
    leader.passes._propose()
    assert len(leader.calls) == woken
    assert leader.queued == (batches > 1 or not room)


def test_what_did_not_fill_a_batch_wakes_nobody() -> None:
    leader = Leader(limits.READY_ENTRIES_MAX + 1, room=True)
    leader.passes._propose()
    assert len(leader.calls) == 1
    leader.passes._propose()
    assert not leader.queued
