"""Which membership changes are legal, and what they make of a configuration. Pure arithmetic.

A configuration is a ``ConfState``. Always true of one:
  * Ids ascend; staged learners (``learners_next``) are outgoing voters.
  * Learners are voters of neither half.
  * A configuration that is not joint has no staged learners and is not left automatically.

Every member has progress on a leader, and nobody else has; ``renew_progress`` derives it.
Not here: when a change may be proposed (``raft.proposing``), taking one into use
(``raft.membership.switching``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from configsvc.errors import ensure
from configsvc.raft.errors import ConfChangeInvalid
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
)
from configsvc.raft.progress import Progress
from configsvc.types import NodeId


class Changed(NamedTuple):
    """A new configuration, and the ids in it whose progress starts anew."""

    conf: ConfState
    renewed: tuple[NodeId, ...]


def next_conf_state(conf: ConfState, change: ConfChange) -> Changed:
    """What ``conf`` becomes by ``change``.

    Raises:
        ConfChangeInvalid: the change is illegal here; the text says why. Every member comes to
            the same verdict, so apply can refuse a change before the core sees it (5.5 e).
    """
    if leaves_joint(change):
        return leave_joint(conf)
    if enters_joint(change):
        explicit = change.transition is ConfChangeTransition.JOINT_EXPLICIT
        return enter_joint(conf, change.changes, auto_leave=not explicit)
    return simple(conf, change.changes)


def leaves_joint(change: ConfChange) -> bool:
    """Whether ``change`` is the empty one that ends a joint configuration."""
    return not change.changes and change.transition is ConfChangeTransition.AUTO


def enters_joint(change: ConfChange) -> bool:
    """Whether ``change`` goes through a joint configuration."""
    return change.transition is not ConfChangeTransition.AUTO or len(change.changes) > 1


def simple(conf: ConfState, changes: Sequence[ConfChangeSingle]) -> Changed:
    """Change at most one voter, and any number of learners.

    Raises:
        ConfChangeInvalid: joint already, no voter would be left, or more than one would change.
    """
    if conf.voters_outgoing:
        raise ConfChangeInvalid("can't apply simple config change in joint config")
    draft = _Draft(conf)
    draft.carry_out(changes)
    changed = draft.finish()
    if len(set(conf.voters).symmetric_difference(changed.conf.voters)) > 1:
        raise ConfChangeInvalid("more than one voter changed without entering joint config")
    return changed


def enter_joint(
    conf: ConfState, changes: Sequence[ConfChangeSingle], *, auto_leave: bool
) -> Changed:
    """Keep the present voters as the outgoing half and change the incoming one at will.

    Raises:
        ConfChangeInvalid: joint already, no voters to start from, or none would be left.
    """
    if conf.voters_outgoing:
        raise ConfChangeInvalid("config is already joint")
    if not conf.voters:
        raise ConfChangeInvalid("can't make a zero-voter config joint")
    draft = _Draft(conf._replace(voters_outgoing=conf.voters, auto_leave=auto_leave))
    draft.carry_out(changes)
    return draft.finish()


def leave_joint(conf: ConfState) -> Changed:
    """Drop the outgoing half; staged learners become learners.

    Raises:
        ConfChangeInvalid: not joint.
    """
    if not conf.voters_outgoing:
        raise ConfChangeInvalid("can't leave a non-joint config")
    left = ConfState(voters=conf.voters, learners=_ascending(conf.learners + conf.learners_next))
    check_invariants(left)
    return Changed(left, ())


def members(conf: ConfState) -> tuple[NodeId, ...]:
    """Everybody with progress, ascending."""
    return _ascending(conf.voters + conf.voters_outgoing + conf.learners + conf.learners_next)


def voters_of_both(conf: ConfState) -> tuple[NodeId, ...]:
    """Voters of either half, ascending."""
    return _ascending(conf.voters + conf.voters_outgoing)


def renew_progress(
    changed: Changed,
    present: Mapping[NodeId, Progress],
    fresh: Callable[[bool], Progress],
) -> dict[NodeId, Progress]:
    """Progress of everybody in the new configuration, in ascending order of id.

    Args:
        changed: The new configuration.
        present: Progress in the old one; not changed, kept for ids that stay.
        fresh: Makes the progress of a newcomer; its argument says whether that is a learner.
    """
    conf = changed.conf
    progress = {}
    for member in members(conf):
        is_learner = member in conf.learners
        kept = None if member in changed.renewed else present.get(member)
        progress[member] = fresh(is_learner) if kept is None else kept.copy(is_learner=is_learner)
    return progress


def normalized(conf: ConfState) -> ConfState:
    """``conf`` from outside (a snapshot, a store) with ascending ids, checked."""
    conf = ConfState(
        _ascending(conf.voters),
        _ascending(conf.voters_outgoing),
        _ascending(conf.learners),
        _ascending(conf.learners_next),
        conf.auto_leave,
    )
    check_invariants(conf)
    return conf


def check_invariants(conf: ConfState) -> None:
    """See the head of this module."""
    for member in conf.learners_next:
        ensure(member in conf.voters_outgoing, "a staged learner must be an outgoing voter")
        ensure(member not in conf.learners, "a staged learner is not a learner yet")
    for member in conf.learners:
        ensure(member not in conf.voters, "a learner must not be a voter")
        ensure(member not in conf.voters_outgoing, "a learner must not be an outgoing voter")
    if not conf.voters_outgoing:
        ensure(not conf.learners_next, "staged learners only in a joint configuration")
        ensure(not conf.auto_leave, "only a joint configuration is left automatically")


def _ascending(ids: Iterable[NodeId]) -> tuple[NodeId, ...]:
    return tuple(sorted(set(ids)))


class _Draft:
    """A configuration while operations are carried out on it."""

    def __init__(self, conf: ConfState) -> None:
        self._conf = conf
        self._voters = list(conf.voters)
        self._learners = list(conf.learners)
        self._staged = list(conf.learners_next)
        self._renewed: list[NodeId] = []

    def carry_out(self, changes: Sequence[ConfChangeSingle]) -> None:
        for kind, member in changes:
            if member == 0:
                continue  # "nobody": the old way to neutralize a change
            if kind == ConfChangeType.ADD_NODE:
                self._add_voter(member)
            elif kind == ConfChangeType.ADD_LEARNER:
                self._add_learner(member)
            elif kind == ConfChangeType.REMOVE_NODE:
                self._take_out(member)
            else:
                ensure(kind == ConfChangeType.UPDATE_NODE, "unknown kind of membership change")

    def finish(self) -> Changed:
        if not self._voters:
            raise ConfChangeInvalid("removed all voters")
        conf = self._conf._replace(
            voters=_ascending(self._voters),
            learners=_ascending(self._learners),
            learners_next=_ascending(self._staged),
        )
        check_invariants(conf)
        return Changed(conf, _ascending(self._renewed))

    def _add_voter(self, member: NodeId) -> None:
        self._note_newcomer(member)
        self._take_out(member)
        self._voters.append(member)

    def _add_learner(self, member: NodeId) -> None:
        if member in self._learners:
            return
        self._note_newcomer(member)
        self._take_out(member)
        if member in self._conf.voters_outgoing:
            self._staged.append(member)  # its vote still counts in the outgoing half
        else:
            self._learners.append(member)

    def _note_newcomer(self, member: NodeId) -> None:
        halves = (self._voters, self._conf.voters_outgoing, self._learners, self._staged)
        if not any(member in half for half in halves):
            self._renewed.append(member)

    def _take_out(self, member: NodeId) -> None:
        for group in (self._voters, self._learners, self._staged):
            if member in group:
                group.remove(member)
