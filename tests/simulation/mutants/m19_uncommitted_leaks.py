"""#19 The counter of uncommitted bytes is never given back."""

from __future__ import annotations

from configsvc.raft import proposing
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3}


def plant(patch: Patch) -> None:
    patch.attribute(proposing, "reduce_uncommitted", lambda raft, entries: None)
