"""#32 A leader that can only speak stays in office for ever (no check-quorum)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.simulation.mutants.plant import Patch
from tests.simulation.node import sim_node

SWARM = {"members": 3, "broken_rest": True, "churn": 0.0}


def plant(patch: Patch) -> None:
    def without(product: Any) -> Any:
        return lambda *args: replace(product(*args), check_quorum=False)

    patch.wrap(sim_node, "product_config", without)
