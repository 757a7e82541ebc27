"""#34 A new leader answers reads before it has committed an entry of its term."""

from __future__ import annotations

from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "kills": 0.4, "ops_per_s": 30.0, "slow_disks": 0.3}


def plant(patch: Patch) -> None:
    patch.attribute(Raft, "committed_in_term", lambda self: True)
