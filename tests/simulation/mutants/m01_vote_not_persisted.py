"""#1 The vote is never written: after a restart the member votes again in the same term."""

from __future__ import annotations

from typing import Any

from configsvc.storage.wal.wal import Wal
from configsvc.types import NodeId
from tests.simulation.mutants.plant import Patch

SWARM = {"kills": 0.5, "restart_all": 0.1}


def plant(patch: Patch) -> None:
    def without(write: Any) -> Any:
        def write_frame(self: Wal, kind: int, hard: Any, *rest: Any) -> None:
            write(self, kind, hard._replace(vote=NodeId(0)), *rest)

        return write_frame

    patch.wrap(Wal, "write_frame", without)
