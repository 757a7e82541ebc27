"""#14 A follower acknowledges its whole log, of which only the beginning was compared."""

from __future__ import annotations

from typing import Any

from configsvc.raft import replication
from tests.simulation.mutants.plant import Patch

HARNESS = "unit"  # hints name the last common entry: thousands of seeds never make use of the lie
TESTS = "tests/unit/raft/test_raft_acknowledging.py"


def plant(patch: Patch) -> None:
    def longer(acknowledge: Any) -> Any:
        return lambda raft, message, index: acknowledge(raft, message, raft.log.last_index)

    patch.wrap(replication, "_acknowledge", longer)
