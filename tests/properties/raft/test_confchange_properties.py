"""Membership arithmetic: invariants, intersecting quorums, restoring step by step."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from configsvc.raft.errors import ConfChangeInvalid
from configsvc.raft.membership import confchange
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
)
from configsvc.raft.progress import Inflights, Progress
from configsvc.types import NodeId

NODES = st.integers(1, 6).map(NodeId)
SINGLES = st.builds(ConfChangeSingle, st.sampled_from(ConfChangeType), NODES)
CHANGES = st.builds(
    lambda changes, transition: ConfChange(tuple(changes), transition),
    st.lists(SINGLES, max_size=3),
    st.sampled_from(ConfChangeTransition),
)
PATHS = st.lists(CHANGES, max_size=8)
START = ConfState(voters=(NodeId(1), NodeId(2), NodeId(3)))


def walk(path: list[ConfChange]) -> list[ConfState]:
    """The configurations on the way; illegal changes leave things as they are."""
    confs = [START]
    for change in path:
        try:
            confs.append(confchange.next_conf_state(confs[-1], change).conf)
        except ConfChangeInvalid:
            continue
    return confs


def quorums(conf: ConfState) -> list[set[NodeId]]:
    """The smallest sets that decide in ``conf``."""

    def majorities(voters: tuple[NodeId, ...]) -> list[set[NodeId]]:
        return [set(c) for c in combinations(voters, len(voters) // 2 + 1)] if voters else [set()]

    return [a | b for a in majorities(conf.voters) for b in majorities(conf.voters_outgoing)]


@given(PATHS)
def test_invariants_hold_and_ids_ascend(path: list[ConfChange]) -> None:
    for conf in walk(path):
        confchange.check_invariants(conf)
        assert confchange.normalized(conf) == conf
        assert conf.voters


@given(PATHS)
def test_consecutive_quorums_intersect(path: list[ConfChange]) -> None:
    confs = walk(path)
    for before, after in pairwise(confs):
        assert all(a & b for a in quorums(before) for b in quorums(after))


@given(PATHS)
def test_progress_belongs_to_members_only(path: list[ConfChange]) -> None:
    def fresh(is_learner: bool) -> Progress:
        return Progress(1, Inflights(1, 1), is_learner=is_learner)

    conf = START
    progress = {member: fresh(False) for member in START.voters}
    for change in path:
        try:
            changed = confchange.next_conf_state(conf, change)
        except ConfChangeInvalid:
            continue
        renewed = confchange.renew_progress(changed, progress, fresh)
        conf = changed.conf
        assert list(renewed) == list(confchange.members(conf))
        for member, peer in renewed.items():
            assert peer.is_learner == (member in conf.learners)
            if member in progress and member not in changed.renewed:
                assert peer.inflights is progress[member].inflights
            else:
                assert member in changed.renewed
        progress = renewed


@given(PATHS)
def test_every_configuration_can_be_built_by_legal_changes(path: list[ConfChange]) -> None:
    target = walk(path)[-1]
    outgoing = target.voters_outgoing or target.voters
    conf = ConfState()
    for voter in outgoing:
        conf = confchange.simple(conf, (ConfChangeSingle(ConfChangeType.ADD_NODE, voter),)).conf
    learners = target.learners + target.learners_next
    added = tuple(ConfChangeSingle(ConfChangeType.ADD_LEARNER, m) for m in learners)
    if target.voters_outgoing:
        gone = tuple(ConfChangeSingle(ConfChangeType.REMOVE_NODE, m) for m in outgoing)
        come = tuple(ConfChangeSingle(ConfChangeType.ADD_NODE, m) for m in target.voters)
        auto_leave = target.auto_leave
        conf = confchange.enter_joint(conf, gone + come + added, auto_leave=auto_leave).conf
    else:
        conf = confchange.simple(conf, added).conf
    assert conf == target
