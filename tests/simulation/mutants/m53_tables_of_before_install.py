"""#53 An install does not reach everything in memory: there the rights, here the leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from configsvc.apply.state import ApplyState
from configsvc.runtime import install
from configsvc.runtime.restore import Stored
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "snapshot_count": 5, "catchup_entries": 1, "partitions": 0.6, "kills": 0.2}


def plant(patch: Patch) -> None:
    def in_part(adopt: Any) -> Any:
        def adopted(state: ApplyState, stored: Stored, live: Iterable[Any]) -> None:
            before = state.lessor.rows()
            adopt(state, stored, live)
            for lease, ttl, creator, _ in before:
                if lease not in state.lessor:
                    state.lessor.grant(lease, ttl, creator)

        return adopted

    patch.wrap(install, "adopt", in_part)
