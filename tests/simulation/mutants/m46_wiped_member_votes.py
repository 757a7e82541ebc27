"""#46 A member that lost its disk comes back under its old id and votes as if for the first time."""

from __future__ import annotations

from configsvc.raft import dispatch, replication
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from configsvc.runtime.membership import Membership
from configsvc.runtime.publishing import Publishing
from configsvc.types import LogIndex
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "churn": 2.0, "partitions": 0.8, "kills": 0.5}


def plant(patch: Patch) -> None:
    patch.attribute(Membership, "judge_hello", lambda self, peer, hello: "")
    patch.attribute(Publishing, "_refused", lambda self, op_field, error: None)

    def trusting(raft: Raft, message: Message) -> None:
        commit = LogIndex(min(message.commit, raft.log.last_index))
        replication.take_heartbeat(raft, message._replace(commit=commit))

    patch.item(dispatch._FOLLOWER, MessageType.HEARTBEAT, dispatch._follow(trusting))
