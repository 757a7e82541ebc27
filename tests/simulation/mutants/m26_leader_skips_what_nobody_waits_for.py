"""#26 A member does not apply a write of its own whose caller has given up waiting."""

from __future__ import annotations

from typing import Any

from configsvc.runtime.applying import Applying
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "partitions": 0.6, "kills": 0.3, "ops_per_s": 30.0}


def plant(patch: Patch) -> None:
    def forgetful(decode: Any) -> Any:
        def _decode(self: Applying, data: bytes) -> Any:
            command = decode(self, data)
            member: Any = self._listener
            proposals = getattr(member, "proposals", None) or member._member.proposals
            if command is None or not command.envelope.request_id:
                return command
            own = command.envelope.request_id >> 32 == proposals._next_id >> 32
            return None if own and not proposals.waits_for(command.envelope.request_id) else command

        return _decode

    patch.wrap(Applying, "_decode", forgetful)
