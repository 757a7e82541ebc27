"""#45 Writes go on behind an unapplied change of the configuration: logs that nobody may lead."""

from __future__ import annotations

from configsvc.raft.node import RawNode
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "churn": 1.0, "strict_reconfig": False, "ops_per_s": 30.0, "slow_disks": 0.5}


def plant(patch: Patch) -> None:
    patch.attribute(RawNode, "conf_change_unapplied", property(lambda self: False))
