"""Fast quorum arithmetic against slow and obvious twins, and the laws of joint majorities."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from configsvc.raft.quorum import INFINITE_INDEX, VoteResult, committed_index, vote_result
from configsvc.types import NodeId

NODES = st.integers(1, 12).map(NodeId)
HALF = st.sets(NODES, max_size=9).map(lambda ids: tuple(sorted(ids)))
ACKED = st.dictionaries(NODES, st.integers(0, 20))
VOTES = st.dictionaries(NODES, st.booleans())

Half = tuple[NodeId, ...]


def committed(voters: Half, outgoing: Half, acked: dict[NodeId, int]) -> int:
    return committed_index(voters, outgoing, lambda voter: acked.get(voter, 0))


def held_by_majority(voters: Half, acked: dict[NodeId, int], index: int) -> bool:
    return not voters or 2 * sum(acked.get(v, 0) >= index for v in voters) > len(voters)


@given(HALF, HALF, ACKED)
def test_committed_agrees_with_counting(
    voters: Half, outgoing: Half, acked: dict[NodeId, int]
) -> None:
    index = committed(voters, outgoing, acked)
    if not voters and not outgoing:
        assert index == INFINITE_INDEX
        return
    both = [i for i in range(22) if all(held_by_majority(h, acked, i) for h in (voters, outgoing))]
    assert index == max(both)


@given(HALF, VOTES)
def test_vote_agrees_with_trying_every_outcome(voters: Half, votes: dict[NodeId, bool]) -> None:
    missing = [voter for voter in voters if voter not in votes]
    granted = sum(votes.get(voter, False) for voter in voters)
    wins = [not voters or 2 * (granted + more) > len(voters) for more in range(len(missing) + 1)]
    otherwise = VoteResult.PENDING if any(wins) else VoteResult.LOST
    assert vote_result(voters, (), votes) is (VoteResult.WON if wins[0] else otherwise)


@given(HALF, HALF, ACKED, VOTES)
def test_joining_with_nothing_or_itself_changes_nothing(
    voters: Half, outgoing: Half, acked: dict[NodeId, int], votes: dict[NodeId, bool]
) -> None:
    assert committed(voters, (), acked) == committed(voters, voters, acked)
    assert committed(voters, outgoing, acked) == committed(outgoing, voters, acked)
    assert vote_result(voters, (), votes) is vote_result(voters, voters, votes)
    assert vote_result(voters, outgoing, votes) is vote_result(outgoing, voters, votes)


@given(HALF, HALF, ACKED)
def test_lowering_what_is_below_the_committed_index_changes_nothing(
    voters: Half, outgoing: Half, acked: dict[NodeId, int]
) -> None:
    index = committed(voters, outgoing, acked)
    for member, value in acked.items():
        if 0 < value < index:
            assert committed(voters, outgoing, {**acked, member: value - 1}) == index
            assert committed(voters, outgoing, {**acked, member: 0}) == index


@given(HALF.filter(bool), HALF, VOTES)
def test_two_candidates_never_win_together(
    voters: Half, outgoing: Half, votes: dict[NodeId, bool]
) -> None:
    others = {member: not granted for member, granted in votes.items()}
    results = (vote_result(voters, outgoing, votes), vote_result(voters, outgoing, others))
    assert results != (VoteResult.WON, VoteResult.WON)
