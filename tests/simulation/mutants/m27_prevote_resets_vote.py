"""#27 A pre-vote forgets the vote of the term, and answers to it count as votes."""

from __future__ import annotations

from typing import Any

from configsvc.raft import dispatch, election
from configsvc.raft.messages import Message, MessageType, Role
from configsvc.raft.state import NOBODY, Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "duplicates": 0.5, "slow_links": 0.5}


def plant(patch: Patch) -> None:
    def forgetting(become: Any) -> Any:
        def become_pre_candidate(raft: Raft) -> None:
            become(raft)
            raft.vote = NOBODY

        return become_pre_candidate

    patch.wrap(election, "become_pre_candidate", forgetting)
    count = election.on_vote_response

    def any_kind(raft: Raft, message: Message) -> None:
        pre = raft.role is Role.PRE_CANDIDATE
        kind = MessageType.PRE_VOTE_RESP if pre else MessageType.VOTE_RESP
        count(raft, message._replace(type=kind))

    for kind in (MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP):
        patch.item(dispatch._CANDIDATE, kind, any_kind)
