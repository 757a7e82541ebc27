"""#17 The byte window of a peer is not reset when its state changes: nothing is ever sent again."""

from __future__ import annotations

from configsvc.raft.progress import Inflights
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "resets": 0.5, "lossy": 0.3, "raft": {"inflight_bytes": 400}}


def plant(patch: Patch) -> None:
    patch.attribute(Inflights, "clear", lambda self: self._window.clear())
