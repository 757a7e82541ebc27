"""#16 A term that is not known counts as 0, and an empty append matches a missing entry."""

from __future__ import annotations

from typing import Any

from configsvc.raft.errors import Compacted, Unavailable
from configsvc.raft.log import RaftLog
from tests.simulation.mutants.plant import Patch

HARNESS = "unit"  # the log is held back for slow peers: seeds come to it too rarely
TESTS = "tests/unit/raft/test_raft_log.py"


def plant(patch: Patch) -> None:
    def lenient(term: Any) -> Any:
        def known(self: RaftLog, index: int) -> int:
            try:
                return int(term(self, index))
            except (Compacted, Unavailable):
                return 0

        return known

    patch.wrap(RaftLog, "term", lenient)
