"""#64 What an earlier leader was given is sent to the next one, as if it had not been taken."""

from __future__ import annotations

from configsvc.runtime.proposals import Proposals
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "transfers": 0.2, "ops_per_s": 30.0}


def plant(patch: Patch) -> None:
    def again(self: Proposals) -> None:
        for pending in self._table.values():
            if pending.handed_on:
                pending.handed_on = False
                self._queue.append(pending.queued)
        self._doubtful.clear()

    patch.attribute(Proposals, "leadership_changed", again)
