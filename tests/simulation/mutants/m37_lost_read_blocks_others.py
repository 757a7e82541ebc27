"""#37 The answer to a read round gets lost: its callers wait, and nobody may ask again."""

from __future__ import annotations

from typing import Any

from configsvc.runtime import reads
from configsvc.runtime.reads import Reads
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "lossy": 0.3}


def plant(patch: Patch) -> None:
    patch.attribute(reads, "RETRY_S", 1e9)

    def one_at_a_time(flush: Any) -> Any:
        def flush_(self: Reads, core: Any) -> None:
            if not self._rounds:
                flush(self, core)

        return flush_

    patch.wrap(Reads, "flush", one_at_a_time)
