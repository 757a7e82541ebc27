"""#5 A single member counts its own entries, and answers, before the log is synced."""

from __future__ import annotations

from typing import Any

from configsvc.raft import plan, sending
from configsvc.raft.state import Raft
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 1, "power": 0.3, "churn": 0.0}


def plant(patch: Patch) -> None:
    append = sending._append

    def at_once(raft: Raft, entries: Any, size: int) -> None:
        append(raft, entries, size)
        if len(raft.voters) == 1:
            raft.progress[raft.id].acknowledge(raft.log.last_index)
            sending.maybe_commit(raft)

    patch.attribute(sending, "_append", at_once)
    patch.attribute(plan, "_durable_count", lambda committed, durable: len(committed))
