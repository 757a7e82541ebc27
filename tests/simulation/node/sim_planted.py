"""A violation that is planted into the product: the run must go red, and name what is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.simulation.node.sim_kernel import S
from tests.simulation.node.sim_swarm import calm
from tests.simulation.node.sim_world import World, simulate

SEEDS = 4

Patch = pytest.MonkeyPatch


class Case(NamedTuple):
    red: str  # how the failure begins, as a pattern
    plant: Callable[[Patch], None]
    swarm: dict[str, Any] = {}  # noqa: RUF012  # never changed


def run(seed: int, swarm: dict[str, Any]) -> World:
    """What a case runs, planted or not."""
    return simulate(seed, calm(minority=True, **swarm), safety=6 * S)


def noticed(case: Case, patch: Patch) -> bool:
    """Whether some seed names what is planted; anything else that fails is raised."""
    case.plant(patch)
    for seed in range(SEEDS):
        try:
            run(seed, case.swarm)
        except AssertionError as error:
            if re.search(case.red, str(error)):
                return True
            raise
    return False
