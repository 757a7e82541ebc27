"""v3lockpb.Lock: a lock is the first place in a queue of keys (wire/behaviour.md 10)."""

from __future__ import annotations

from typing import Final

from configsvc.api.candidacy import CandidacyService
from configsvc.api.contract import Caller, Waiting
from configsvc.api.sequence import Steps
from configsvc.codec import requests
from configsvc.errors import ConfigServiceError
from configsvc.proto import rpc_pb2, v3lock_pb2

SESSION_EXPIRED: Final = "mutex: session is expired"


class LockService(CandidacyService):
    """Handlers of Lock."""

    def lock(self, caller: Caller, raw: bytes) -> Waiting:
        """Lock (K1–K5, K8): answered once the caller holds it."""
        m = requests.parse(v3lock_pb2.LockRequest, raw)
        return self.run(self._lock(caller, m.name, m.lease))

    def _lock(self, caller: Caller, name: bytes, lease: int) -> Steps[bytes]:
        me = yield from self.enter(caller, name, lease, b"")
        try:
            header = yield from self.wait_turn(caller, me, SESSION_EXPIRED)
        except ConfigServiceError:
            yield from self.leave(caller, me)
            raise
        return v3lock_pb2.LockResponse(header=header, key=me.key).SerializeToString()

    def unlock(self, caller: Caller, raw: bytes) -> Waiting:
        """Unlock (K6): deletes the key, whatever it is."""
        m = requests.parse(v3lock_pb2.UnlockRequest, raw)
        return self.run(self._unlock(caller, m.key))

    def _unlock(self, caller: Caller, key: bytes) -> Steps[bytes]:
        request = rpc_pb2.DeleteRangeRequest(key=key).SerializeToString()
        raw = yield self.kv.delete_range(caller, request)
        header = rpc_pb2.DeleteRangeResponse.FromString(raw).header
        return v3lock_pb2.UnlockResponse(header=header).SerializeToString()
