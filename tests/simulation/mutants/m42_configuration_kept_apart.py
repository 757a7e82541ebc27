"""#42 The configuration is not stored with the applied index: a restart begins with an older one."""

from __future__ import annotations

from configsvc.runtime import following
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "churn": 0.6, "kills": 0.3, "strict_reconfig": False}


def plant(patch: Patch) -> None:
    patch.attribute(following, "encode_conf_state", lambda conf: b"")
