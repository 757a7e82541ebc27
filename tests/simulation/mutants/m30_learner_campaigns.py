"""#30 A learner campaigns, and leads or blocks the others."""

from __future__ import annotations

from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "churn": 0.6, "partitions": 0.6, "kills": 0.3, "strict_reconfig": False}


def plant(patch: Patch) -> None:
    def anybody(self: Raft) -> bool:
        own = self.progress.get(self.id)
        return self.promotable_flag and own is not None and self.log.unstable.snapshot is None

    patch.attribute(Raft, "promotable", anybody)
