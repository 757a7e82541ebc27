"""#29 A vote of an earlier term is counted in the present one."""

from __future__ import annotations

from typing import Any

from configsvc.raft import dispatch
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {
    "members": 5,
    "duplicates": 0.5,
    "reorder": True,
    "partitions": 0.6,
    "slow_links": 3.0,
    "lossy": 0.1,
    "ops_per_s": 3.0,
    "churn": 0.0,
}


def plant(patch: Patch) -> None:
    def lax(settle: Any) -> Any:
        def _settle_term(raft: Raft, message: Message) -> bool:
            if message.type is MessageType.VOTE_RESP and message.term < raft.term:
                return True
            return bool(settle(raft, message))

        return _settle_term

    patch.wrap(dispatch, "_settle_term", lax)
