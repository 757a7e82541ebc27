"""#56 A progress message speaks for a watcher that has not been sent everything before it."""

from __future__ import annotations

from configsvc.runtime.watch_hub import WatchHub
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "ops_per_s": 30.0, "limits": {"WATCH_CATCHUP_REVISIONS": 1}}


def plant(patch: Patch) -> None:
    def progress(self: WatchHub) -> None:
        for watcher in list(self._watchers.values()):
            if watcher.progress:
                watcher.stream.sink.send(self._header(self._store.revision))

    patch.attribute(WatchHub, "progress", progress)
