"""#66 A member ignores a leader that its own list does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configsvc.raft.messages import Message
from configsvc.runtime.passes import Passes
from configsvc.types import NodeId
from tests.simulation.mutants.plant import Patch

SWARM = {
    "members": 3,
    "churn": 0.6,
    "kills": 0.4,
    "snapshot_count": 5,
    "catchup_entries": 1,
    "strict_reconfig": False,
}


def plant(patch: Patch) -> None:
    def wary(hear: Any) -> Any:
        def on_messages(self: Passes, peer: NodeId, messages: Sequence[Message]) -> None:
            known = self._member.state.members.by_id
            if not known or peer in known:
                hear(self, peer, messages)

        return on_messages

    patch.wrap(Passes, "on_messages", wary)
