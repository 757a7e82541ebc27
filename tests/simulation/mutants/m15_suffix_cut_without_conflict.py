"""#15 An older append cuts off a good suffix."""

from __future__ import annotations

from configsvc.raft.log import RaftLog
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "duplicates": 0.5, "reorder": True}


def plant(patch: Patch) -> None:
    patch.attribute(RaftLog, "_known_prefix", lambda self, entries: 0)
