"""#13 An entry of an earlier term is committed by counting replicas."""

from __future__ import annotations

from configsvc.raft import replication, sending
from configsvc.raft.membership import switching
from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 5, "kills": 0.8, "partitions": 0.8, "crash_point": 0.01, "churn": 0.0}


def plant(patch: Patch) -> None:
    def counted(raft: Raft) -> bool:
        index = raft.quorum_index()
        if index <= raft.log.committed:
            return False
        raft.log.commit_to(index)
        return True

    for module in (sending, replication, switching):
        patch.attribute(module, "maybe_commit", counted)
