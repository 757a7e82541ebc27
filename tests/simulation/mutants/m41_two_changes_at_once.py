"""#41 A change of the configuration is proposed while another one is unapplied."""

from __future__ import annotations

from configsvc.raft import proposing
from configsvc.raft.node import RawNode
from configsvc.runtime.member import Member
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "churn": 2.0, "hasty": True, "strict_reconfig": False, "slow_disks": 0.5}


def plant(patch: Patch) -> None:
    patch.attribute(proposing, "_may_change", lambda raft, entry: True)
    patch.attribute(RawNode, "conf_change_unapplied", property(lambda self: False))
    patch.hide(Member, "change_pending", property(lambda self: False, lambda self, _: None))
