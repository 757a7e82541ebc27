"""What a member is in its term: the only writers of role, term, vote and leader.

Not here: what a new leader does first (``raft.election``).
"""

from __future__ import annotations

from typing import Final

from configsvc.errors import ensure
from configsvc.raft.messages import Role
from configsvc.raft.progress import Progress
from configsvc.raft.readqueue import ReadQueue
from configsvc.raft.state import NOBODY, Raft
from configsvc.types import NodeId, Term

# Raft paper, figure 4, with pre-candidates; a pre-candidate wins into a real candidacy only.
_MOVES: Final = frozenset(
    {(role, Role.FOLLOWER) for role in Role}
    | {(Role.FOLLOWER, Role.PRE_CANDIDATE), (Role.FOLLOWER, Role.CANDIDATE)}
    | {(Role.PRE_CANDIDATE, Role.PRE_CANDIDATE), (Role.PRE_CANDIDATE, Role.CANDIDATE)}
    | {(Role.CANDIDATE, Role.CANDIDATE), (Role.CANDIDATE, Role.PRE_CANDIDATE)}
    | {(Role.CANDIDATE, Role.LEADER)}
)


def become_follower(raft: Raft, term: Term, lead: NodeId) -> None:
    """Follow ``lead``, 0 if not known yet, in ``term``, which may be the present one."""
    _start(raft, term)
    _move(raft, Role.FOLLOWER)
    raft.lead = lead


def become_pre_candidate(raft: Raft) -> None:
    """Ask whether an election could be won; term and vote stay."""
    _move(raft, Role.PRE_CANDIDATE)
    raft.votes.clear()
    set_lead(raft, NOBODY)


def become_candidate(raft: Raft) -> None:
    """Stand for election in the next term, with the own vote."""
    _start(raft, raft.next_term())
    _move(raft, Role.CANDIDATE)
    raft.vote = raft.id


def become_leader(raft: Raft) -> None:
    """Lead the present term. Every peer is probed from the end of the log on."""
    _start(raft, raft.term)
    _move(raft, Role.LEADER)
    raft.lead = raft.id
    own = raft.progress[raft.id]
    own.become_replicate()
    own.recent_active = True
    raft.leadership_start = raft.log.last_index
    # Whether one of the entries of earlier terms changes the configuration is not worth a scan.
    raft.pending_conf_index = raft.log.last_index


def set_lead(raft: Raft, lead: NodeId) -> None:
    """A member that is not leader learns or forgets who is, without a change of role."""
    if raft.lead != lead:
        raft.lead = lead
        raft.read_states.clear()  # a result of the old view must not be told under the new (R4)


def cast_vote(raft: Raft, candidate: NodeId) -> None:
    ensure(raft.vote in (NOBODY, candidate), "one vote per term")
    raft.vote = candidate
    raft.election_elapsed = 0


def _move(raft: Raft, role: Role) -> None:
    ensure((raft.role, role) in _MOVES, "illegal change of role")
    raft.role = role


def _start(raft: Raft, term: Term) -> None:
    """Forget what belonged to the old term or role."""
    ensure(term >= raft.term, "the term may not fall")
    if term != raft.term:
        raft.term = term
        raft.vote = NOBODY  # one vote per term: only a new term frees it
        raft.verified = 0
    raft.lead = NOBODY
    raft.votes.clear()
    raft.transferee = NOBODY
    raft.pending_conf_index = 0
    raft.leadership_start = 0
    raft.uncommitted_bytes = 0
    raft.reads = ReadQueue(raft.config.pending_reads)
    raft.read_states.clear()
    raft.election_elapsed = raft.heartbeat_elapsed = 0
    jitter = raft.rng.randrange(raft.config.election_ticks)
    raft.randomized_timeout = raft.config.election_ticks + jitter
    _forget_progress(raft)


def _forget_progress(raft: Raft) -> None:
    last = raft.log.last_index
    for peer, old in raft.progress.items():
        fresh = Progress(last + 1, raft.new_window(), is_learner=old.is_learner)
        if peer == raft.id:
            fresh.match = last
        raft.progress[peer] = fresh
