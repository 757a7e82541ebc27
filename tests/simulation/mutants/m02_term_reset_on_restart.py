"""#2 The term is 0 again after a restart: old entries of high terms beat newer committed ones."""

from __future__ import annotations

from typing import Any

from configsvc.raft.messages import HardState
from configsvc.storage.wal.recovery import Replay
from tests.simulation.mutants.plant import Patch

SWARM = {"restart_all": 0.1}


def plant(patch: Patch) -> None:
    def forgetful(final: Any) -> Any:
        return lambda self: HardState(commit=final(self).commit)

    patch.wrap(Replay, "final_hard_state", forgetful)
