"""#31 A removed member with a high term unseats the leader again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from configsvc.runtime.member import Member
from configsvc.runtime.membership import Membership
from tests.simulation.mutants.plant import Patch
from tests.simulation.node import sim_node

SWARM = {"members": 5, "churn": 0.6, "partitions": 0.6, "strict_reconfig": False}


def plant(patch: Patch) -> None:
    def without_prevote(product: Any) -> Any:
        return lambda *args: replace(product(*args), pre_vote=False, check_quorum=False)

    patch.wrap(sim_node, "product_config", without_prevote)

    def accepting(tell: Any) -> Any:
        def _tell_peers(self: Member) -> None:
            removed, self.state.members.removed = self.state.members.removed, set()
            tell(self)
            self.state.members.removed = removed

        return _tell_peers

    patch.wrap(Member, "_tell_peers", accepting)
    patch.attribute(Membership, "tick", lambda self, now: None)
