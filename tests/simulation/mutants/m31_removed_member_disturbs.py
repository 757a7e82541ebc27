"""#31 A removed member with a high term unseats the leader again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from configsvc.runtime.membership import Membership
from configsvc.runtime.peering import Peering
from tests.simulation.mutants.plant import Patch
from tests.simulation.node import sim_node

SWARM = {"members": 5, "churn": 0.6, "partitions": 0.6, "strict_reconfig": False}


def plant(patch: Patch) -> None:
    def without_prevote(product: Any) -> Any:
        return lambda *args: replace(product(*args), pre_vote=False, check_quorum=False)

    patch.wrap(sim_node, "product_config", without_prevote)

    def accepting(tell: Any) -> Any:
        def tell_net(self: Peering) -> None:
            members = self._member.state.members
            removed, members.removed = members.removed, set()
            tell(self)
            members.removed = removed

        return tell_net

    patch.wrap(Peering, "tell_net", accepting)
    patch.attribute(Membership, "tick", lambda self, now: None)
