"""#33 A leader whose disk hangs stays in office: heartbeats leave during the write."""

from __future__ import annotations

from typing import Any

from configsvc.raft.messages import MessageType
from configsvc.runtime.disk_health import DiskHealth
from configsvc.runtime.machine import Machine
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "broken_rest": True, "churn": 0.0}
_BEATS = (MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP)


def plant(patch: Patch) -> None:
    patch.attribute(DiskHealth, "tick", lambda self, now: None)

    def beating(run: Any) -> Any:
        def run_(self: Machine, *rest: Any) -> bool:
            if self.writing:
                raft = self.raft.raft
                beats = [m for m in raft.outbox if m.type in _BEATS]
                if beats:
                    raft.outbox = [m for m in raft.outbox if m.type not in _BEATS]
                    self._net.send(beats)
            return bool(run(self, *rest))

        return run_

    patch.wrap(Machine, "run", beating)
