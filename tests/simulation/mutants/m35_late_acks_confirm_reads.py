"""#35 A late acknowledgement of an earlier round confirms the reads of the present one."""

from __future__ import annotations

from configsvc.raft.readqueue import ReadQueue
from configsvc.types import NodeId
from tests.simulation.mutants.plant import Patch

SWARM = {
    "members": 3,
    "duplicates": 0.5,
    "partitions": 0.6,
    "pauses": 0.4,
    "ops_per_s": 30.0,
}


def plant(patch: Patch) -> None:
    def eager(self: ReadQueue, from_: NodeId, round_: int) -> None:
        self._acked[from_] = self.begun

    patch.attribute(ReadQueue, "acknowledge", eager)
