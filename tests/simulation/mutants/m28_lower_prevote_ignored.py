"""#28 A pre-vote of a lower term is not answered: the member with the longer log never learns."""

from __future__ import annotations

from typing import Any

from configsvc.raft import dispatch
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.8, "kills": 0.5, "hung_disks": 0.2, "restart_all": 0.1}


def plant(patch: Patch) -> None:
    def silent(answer: Any) -> Any:
        def _answer_lower_term(raft: Raft, message: Message) -> None:
            if message.type is not MessageType.PRE_VOTE:
                answer(raft, message)

        return _answer_lower_term

    patch.wrap(dispatch, "_answer_lower_term", silent)
