"""#44 A leader removes itself and is gone, although only its vote could elect another one."""

from __future__ import annotations

from configsvc.errors import ExitCode, FatalError
from configsvc.runtime.handover import Handover
from configsvc.runtime.membership import Membership
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 2, "churn": 1.0, "strict_reconfig": False, "slow_links": 0.5, "lossy": 0.3}


def plant(patch: Patch) -> None:
    patch.attribute(Handover, "begin", lambda self, **_: False)

    def at_once(self: Membership) -> None:
        if self._removed_at is None and self._member.self_id in self._list.removed:
            self._removed_at = 0.0
            self._member.die(FatalError(ExitCode.REMOVED, "removed", ""))

    patch.attribute(Membership, "_begin_leaving", at_once)
