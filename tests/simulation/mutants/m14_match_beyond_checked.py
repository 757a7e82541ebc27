"""#14 A follower acknowledges its whole log, of which only the beginning was compared."""

from __future__ import annotations

from typing import Any

from configsvc.raft import replication
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "kills": 0.4}


def plant(patch: Patch) -> None:
    def longer(acknowledge: Any) -> Any:
        return lambda raft, message, index: acknowledge(raft, message, raft.log.last_index)

    patch.wrap(replication, "_acknowledge", longer)
