"""#6 Entries are acknowledged while they are still being written."""

from __future__ import annotations

from configsvc.raft import plan
from configsvc.raft.messages import MessageType
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "slow_disks": 0.3, "power": 0.2}


def plant(patch: Patch) -> None:
    patch.attribute(plan, "_EARLY", plan._EARLY | {MessageType.APP_RESP})
