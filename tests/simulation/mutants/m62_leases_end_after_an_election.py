"""#62 A new leader counts the leases on from when they were granted: they end at once."""

from __future__ import annotations

from typing import Any

from configsvc.lease.lessor import Lessor
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "kills": 0.4, "transfers": 0.2, "ops_per_s": 30.0, "clients": 8}


def plant(patch: Patch) -> None:
    def stale(promote: Any) -> Any:
        def promote_(self: Lessor, now_ns: int, extend_ns: int) -> None:
            promote(self, now_ns, extend_ns)
            for lease in self.leases.values():
                lease.deadline_ns = now_ns
            self._due = [(lease.deadline_ns, lease.id) for lease in self.leases.values()]

        return promote_

    patch.wrap(Lessor, "promote", stale)
