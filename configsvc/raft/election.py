"""Elections: who campaigns, who grants, who wins, and when a leader gives up.

Pre-vote asks first whether an election could be won, so that a member that was cut off does not
unseat a working leader. Check-quorum makes a leader step down that hears from no quorum, and
makes everybody refuse votes while a leader is known to be alive.

Not here: the change of role itself (``raft.roles``).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from configsvc.errors import ensure
from configsvc.raft import quorum
from configsvc.raft.messages import Entry, EntryKind, Message, MessageType, Role
from configsvc.raft.quorum import VoteResult
from configsvc.raft.roles import (
    become_candidate,
    become_follower,
    become_leader,
    become_pre_candidate,
    cast_vote,
)
from configsvc.raft.sending import append_entries, broadcast_append
from configsvc.raft.state import NOBODY, Raft
from configsvc.types import LogIndex, Term

TRANSFER_MARK: Final = b"transfer"  # context of vote requests that may break a lease


class Campaign(Enum):
    PRE_ELECTION = "pre-election"
    ELECTION = "election"
    TRANSFER = "transfer"  # ordered by the leader: no pre-vote, and leases do not protect it


def start(raft: Raft, kind: Campaign | None = None) -> None:
    """Campaign, if this member may; by default with pre-vote if that is on."""
    if raft.role is Role.LEADER or not raft.promotable():
        return
    if raft.log.has_unapplied_conf_change():
        return  # it would count votes in a configuration that is no longer in force
    if kind is None:
        kind = Campaign.PRE_ELECTION if raft.config.pre_vote else Campaign.ELECTION
    _campaign(raft, kind)


def _campaign(raft: Raft, kind: Campaign) -> None:
    if kind is Campaign.PRE_ELECTION:
        become_pre_candidate(raft)
        request, answer, term = MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESP, raft.next_term()
    else:
        become_candidate(raft)
        request, answer, term = MessageType.VOTE, MessageType.VOTE_RESP, raft.term
    mark = TRANSFER_MARK if kind is Campaign.TRANSFER else b""
    last, last_term = LogIndex(raft.log.last_index), Term(raft.log.last_term())
    for voter in raft.voters:
        if voter == raft.id:
            # The own vote counts once it is durable, like any other (C3).
            raft.send(Message(answer, to=raft.id, term=term))
        else:
            raft.send(
                Message(request, to=voter, term=term, log_term=last_term, index=last, context=mark)
            )


def on_vote_request(raft: Raft, message: Message) -> None:
    """Grant or refuse a vote or pre-vote. Learners vote too: they may be voters by now."""
    pre_vote = message.type is MessageType.PRE_VOTE
    answer = MessageType.PRE_VOTE_RESP if pre_vote else MessageType.VOTE_RESP
    free = (
        raft.vote == message.from_
        or (raft.vote == NOBODY and raft.lead == NOBODY)
        or (pre_vote and message.term > raft.term)
    )
    if free and raft.log.up_to_date(message.index, message.log_term):
        # A granted pre-vote answers for the term asked about, which is not this member's yet.
        raft.send(Message(answer, to=message.from_, term=message.term))
        if not pre_vote:
            cast_vote(raft, message.from_)
    else:
        raft.send(Message(answer, to=message.from_, term=raft.term, reject=True))


def in_lease(raft: Raft) -> bool:
    """Whether a leader is known to have been alive less than an election timeout ago."""
    return (
        raft.config.check_quorum
        and raft.lead != NOBODY
        and raft.election_elapsed < raft.config.election_ticks
    )


def on_vote_response(raft: Raft, message: Message) -> None:
    """Count an answer; only the kind that the present candidacy asked for."""
    pre = raft.role is Role.PRE_CANDIDATE
    if message.type is not (MessageType.PRE_VOTE_RESP if pre else MessageType.VOTE_RESP):
        return
    raft.votes.setdefault(message.from_, not message.reject)
    result = quorum.vote_result(raft.conf.voters, raft.conf.voters_outgoing, raft.votes)
    if result is VoteResult.WON:
        if pre:
            _campaign(raft, Campaign.ELECTION)
        else:
            _take_office(raft)
    elif result is VoteResult.LOST:
        # The term stays: a refusal of a later one has been seen before this.
        become_follower(raft, raft.term, NOBODY)


def _take_office(raft: Raft) -> None:
    become_leader(raft)
    # Entries of earlier terms are committed only together with one of this term.
    empty = Entry(raft.term, LogIndex(0), EntryKind.NORMAL, b"")
    ensure(append_entries(raft, (empty,)), "a leader's first entry is never refused")
    broadcast_append(raft)


def check_quorum(raft: Raft) -> None:
    """Step down unless a quorum was heard from since the last check."""
    own = raft.progress.get(raft.id)
    if own is not None:
        own.recent_active = True
    active = {peer: progress.recent_active for peer, progress in raft.progress.items()}
    result = quorum.vote_result(raft.conf.voters, raft.conf.voters_outgoing, active)
    if result is not VoteResult.WON:
        become_follower(raft, raft.term, NOBODY)
    for peer, progress in raft.progress.items():
        if peer != raft.id:
            progress.recent_active = False
