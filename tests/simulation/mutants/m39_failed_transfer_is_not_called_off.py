"""#39 A transfer of leadership that fails is never called off: writes wait for ever."""

from __future__ import annotations

from configsvc.runtime.handover import Handover
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "transfers": 0.5, "kills": 0.3, "partitions": 0.3, "hung_disks": 0.1}


def plant(patch: Patch) -> None:
    patch.attribute(Handover, "tick", lambda self: self.judge_self())
