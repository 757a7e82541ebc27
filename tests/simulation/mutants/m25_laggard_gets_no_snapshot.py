"""#25 Who needs more than the log still has is sent nothing, for no snapshot is ever asked for."""

from __future__ import annotations

from configsvc.raft import sending
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "snapshot_count": 5, "catchup_entries": 1, "partitions": 0.6, "kills": 0.2}


def plant(patch: Patch) -> None:
    patch.attribute(sending, "_send_snapshot", lambda raft, to, progress: False)
