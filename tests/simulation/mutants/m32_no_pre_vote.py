"""#32 A member that hears nobody unseats a working leader again and again (no pre-vote)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.simulation.mutants.plant import Patch
from tests.simulation.node import sim_node

SWARM = {"members": 5, "broken_rest": True, "churn": 0.0}


def plant(patch: Patch) -> None:
    def without(product: Any) -> Any:
        return lambda *args: replace(product(*args), pre_vote=False)

    patch.wrap(sim_node, "product_config", without)
