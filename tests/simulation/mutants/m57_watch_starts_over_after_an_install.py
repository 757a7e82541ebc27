"""#57 After an install a watch replays revisions that it had been sent before."""

from __future__ import annotations

from typing import Any

from configsvc.runtime.watch_hub import WatchHub
from tests.simulation.mutants.plant import Patch

SWARM = {
    "members": 3,
    "snapshot_count": 5,
    "catchup_entries": 1,
    "pauses": 0.4,
    "partitions": 0.6,
    "ops_per_s": 30.0,
    "compactions": 0.0,
}


def plant(patch: Patch) -> None:
    def again(resume: Any) -> Any:
        def resume_(self: WatchHub, revision: int) -> None:
            resume(self, revision)
            for watcher in self._watchers.values():
                if not watcher.synced:
                    watcher.next_revision = max(1, watcher.next_revision - 5)

        return resume_

    patch.wrap(WatchHub, "resume", again)
