"""#43 A snapshot brings the configuration without its outgoing half and without auto-leave."""

from __future__ import annotations

from typing import Any

from configsvc.raft.membership import confchange
from configsvc.raft.messages import ConfState
from tests.simulation.mutants.plant import Patch

HARNESS = "core"  # members of the product change one at a time, never jointly
SWARM: dict[str, Any] = {}


def plant(patch: Patch) -> None:
    def single(conf: ConfState) -> ConfState:
        return ConfState(tuple(sorted(conf.voters)), (), tuple(sorted(conf.learners)))

    patch.attribute(confchange, "normalized", single)
