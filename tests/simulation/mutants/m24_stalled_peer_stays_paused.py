"""#24 A follower that stood still is never sent anything again: its answers do not end the pause."""

from __future__ import annotations

from typing import Any

from configsvc.raft import dispatch
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "pauses": 0.4, "lossy": 0.1, "churn": 0.0}


def plant(patch: Patch) -> None:
    def wedged(respond: Any) -> Any:
        def on_heartbeat_response(raft: Raft, message: Message) -> None:
            progress = raft.progress.get(message.from_)
            paused = progress is not None and progress.flow_paused
            if not paused:
                respond(raft, message)

        return on_heartbeat_response

    product = dispatch._LEADER[MessageType.HEARTBEAT_RESP]
    patch.item(dispatch._LEADER, MessageType.HEARTBEAT_RESP, wedged(product))
