"""#11 The log is cut up to what SQL has applied, although only part of that is on its disk."""

from __future__ import annotations

from typing import Any

from configsvc.runtime.housekeeping import Housekeeping
from tests.simulation.mutants.plant import Patch

SWARM = {
    "members": 3,
    "snapshot_count": 5,
    "catchup_entries": 1,
    "segment_bytes": 16 * 1024,
    "ops_per_s": 30.0,
    "sql_checkpoint": 30_000_000_000,
}


def plant(patch: Patch) -> None:
    def early(cut: Any) -> Any:
        def cut_log(self: Housekeeping) -> None:
            member = self._member
            durable, member.history_durable = member.history_durable, member.applied
            cut(self)
            member.history_durable = durable

        return cut_log

    patch.wrap(Housekeeping, "_cut_log", early)
