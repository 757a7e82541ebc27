"""#36 An answer to a read is used although the leader has changed since it was asked."""

from __future__ import annotations

from configsvc.raft import dispatch
from configsvc.raft.messages import Message, MessageType, ReadState
from configsvc.raft.state import Raft
from configsvc.runtime.reads import Reads
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "slow_links": 0.8, "ops_per_s": 30.0, "kills": 0.3}


def plant(patch: Patch) -> None:
    def any_leader(raft: Raft, message: Message) -> None:
        raft.read_states.append(ReadState(message.index, message.context))

    patch.item(dispatch._FOLLOWER, MessageType.READ_INDEX_RESP, any_leader)
    patch.attribute(Reads, "leadership_changed", lambda self: None)
