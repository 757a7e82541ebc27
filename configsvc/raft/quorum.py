"""What a majority, or two majorities at once, have acknowledged or voted.

Stateless. A configuration is two tuples of voters; the second is empty unless the configuration
is joint. An empty majority agrees with everything, so that joining with it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final

from configsvc.types import NodeId

INFINITE_INDEX: Final = 2**64 - 1  # what the empty majority has committed


class VoteResult(Enum):
    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


def majority_index(acked: list[int]) -> int:
    """The largest index that more than half of ``acked`` have reached; sorts ``acked``.

    One number per voter, 0 for a voter that has acknowledged nothing.
    """
    count = len(acked)
    if count == 0:
        return INFINITE_INDEX
    acked.sort()
    return acked[(count - 1) // 2]


def committed_index(
    voters: Sequence[NodeId], outgoing: Sequence[NodeId], acked: Callable[[NodeId], int]
) -> int:
    """The largest index acknowledged by a majority of each half."""
    index = majority_index([acked(voter) for voter in voters])
    if outgoing:
        index = min(index, majority_index([acked(voter) for voter in outgoing]))
    return index


def majority_vote(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """Outcome of a vote in one majority; voters missing from ``votes`` have not answered."""
    if not voters:
        return VoteResult.WON
    needed = len(voters) // 2 + 1
    granted = sum(votes.get(voter, False) for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def vote_result(
    voters: Sequence[NodeId], outgoing: Sequence[NodeId], votes: Mapping[NodeId, bool]
) -> VoteResult:
    """Outcome of a vote that needs both halves."""
    first, second = majority_vote(voters, votes), majority_vote(outgoing, votes)
    if first is second:
        return first
    if VoteResult.LOST in (first, second):
        return VoteResult.LOST
    return VoteResult.PENDING
