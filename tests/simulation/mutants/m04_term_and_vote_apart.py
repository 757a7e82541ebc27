"""#4 Term and vote are two writes: the vote follows with the next frame, a crash comes between."""

from __future__ import annotations

from typing import Any

from configsvc.storage.wal.wal import Wal
from configsvc.types import NodeId
from tests.simulation.mutants.plant import Patch

SWARM = {"kills": 0.5, "crash_point": 0.005}


def plant(patch: Patch) -> None:
    def in_two(write: Any) -> Any:
        def write_frame(self: Wal, kind: int, hard: Any, *rest: Any) -> None:
            fresh_term = hard.term > self._hard.term
            write(self, kind, hard._replace(vote=NodeId(0)) if fresh_term else hard, *rest)

        return write_frame

    patch.wrap(Wal, "write_frame", in_two)
