"""#58 Where a watch goes over from history to what happens now, the events in between are lost."""

from __future__ import annotations

from typing import Any

from configsvc.runtime.watch_hub import Watcher, WatchHub
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "ops_per_s": 30.0, "limits": {"WATCH_CATCHUP_REVISIONS": 2}}


def plant(patch: Patch) -> None:
    def hasty(hand_over: Any) -> Any:
        def _hand_over(self: WatchHub, watcher: Watcher, batches: Any, following: int) -> None:
            near = following + 2 > self._store.revision
            hand_over(self, watcher, batches, self._store.revision + 1 if near else following)

        return _hand_over

    patch.wrap(WatchHub, "_hand_over", hasty)
