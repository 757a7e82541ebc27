"""#18 Paging of committed entries loses those that did not fit into the page."""

from __future__ import annotations

from typing import Any

from configsvc.raft.log import RaftLog
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "raft": {"max_committed_entries_per_ready": 1}, "kills": 0.2}


def plant(patch: Patch) -> None:
    def skipping(accept: Any) -> Any:
        def accept_applying(self: RaftLog, entries: Any, *, allow_unstable: bool) -> None:
            accept(self, entries, allow_unstable=allow_unstable)
            self.applying = self._appliable(allow_unstable)

        return accept_applying

    patch.wrap(RaftLog, "accept_applying", skipping)
