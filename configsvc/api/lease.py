"""etcdserverpb.Lease: grants and revocations through the log, renewals by the leader."""

from __future__ import annotations

from collections import deque
from typing import Any

from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.service import Service, raise_refused
from configsvc.apply.commands import Effects
from configsvc.codec import answers, requests
from configsvc.codec import command as codec
from configsvc.codec.varint import bytes_field, int_field
from configsvc.errors import (
    ConfigServiceError,
    LeaseTTLTooLargeError,
    PermissionDeniedError,
)
from configsvc.lease.messages import creator_of
from configsvc.limits import LEASE_TTL_MAX_S
from configsvc.mvcc.shape import LEASE_GRANT_BYTES
from configsvc.proto import command_pb2, rpc_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import KeySpan


class LeaseService(Service):
    """Handlers of Lease."""

    def grant(self, caller: Caller, raw: bytes) -> Waiting:
        """LeaseGrant (L1–L3)."""
        m = requests.parse(rpc_pb2.LeaseGrantRequest, raw)
        if m.TTL > LEASE_TTL_MAX_S:
            raise LeaseTTLTooLargeError
        self.not_corrupt()
        self.within_quota(LEASE_GRANT_BYTES)
        return self.propose(caller, codec.OP_LEASE_GRANT, raw, self._granted, needs_id=not m.ID)

    def _granted(self, effects: Effects) -> bytes:
        raise_refused(effects)
        result: Any = effects.result
        return self.header_at(effects.revision) + answers.lease_grant_body(result)

    def revoke(self, caller: Caller, raw: bytes) -> Waiting:
        """LeaseRevoke (L4)."""
        m = requests.parse(rpc_pb2.LeaseRevokeRequest, raw)
        self.not_corrupt()
        op = command_pb2.LeaseRevoke(ids=[m.ID]).SerializeToString()
        return self.propose(caller, codec.OP_LEASE_REVOKE, op)

    def time_to_live(self, caller: Caller, raw: bytes) -> Waiting:
        """LeaseTimeToLive (L6, L7); attached keys only to whoever may read them all (N8)."""
        m = requests.parse(rpc_pb2.LeaseTimeToLiveRequest, raw)
        self.standing(caller)
        out = Waiting()

        def told(result: tuple[int, int] | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                out.complete(result)
                return
            try:
                self.standing(caller)  # the leader was asked meanwhile
                out.complete(self._time_to_live(caller, m.ID, m.keys, *result))
            except ConfigServiceError as error:
                out.complete(error)

        self.member.leases.time_to_live(m.ID, told)
        return out

    def _time_to_live(
        self, caller: Caller, lease_id: int, with_keys: bool, left: int, granted: int
    ) -> bytes:
        lessor = self.member.state.lessor
        body = self.header() + int_field(2, lease_id)
        if lease_id not in lessor or left < 0:
            return body + int_field(3, -1)
        self._may_ask(caller, lease_id, every_key=with_keys)
        body += int_field(3, left) + int_field(4, granted)
        if with_keys:
            body += b"".join(bytes_field(5, k) for k in lessor.get(lease_id).sorted_keys())
        return body

    def _may_ask(self, caller: Caller, lease_id: int, *, every_key: bool) -> None:
        """keys=true: READ on all; else the creator, READ on any attached key, or root (3.5).

        A deny on a key hides its name from root, too (POL-2).
        """
        lease = self.member.state.lessor.get(lease_id)
        view = self.member.decider.view(caller.principal, caller.source)
        own = view.is_root or lease.creator == creator_of(caller.principal)
        if every_key:
            if not lease.keys and not own:
                raise PermissionDeniedError
            for key in lease.sorted_keys():
                self.may_read(caller, KeySpan(key, key + b"\0"))
            return
        if own:
            return
        for key in lease.keys:
            if view.granted("kv.range", KeySpan(key, key + b"\0")) is not None:
                return
        raise PermissionDeniedError

    def leases(self, caller: Caller, raw: bytes) -> bytes:
        """LeaseLeases (L8): those the caller could ask about."""
        requests.parse(rpc_pb2.LeaseLeasesRequest, raw)
        self.standing(caller)
        out = [self.header()]
        for lease_id in self.member.leases.ids_by_time_left():
            try:
                self._may_ask(caller, lease_id, every_key=False)
            except PermissionDeniedError:
                continue
            out.append(bytes_field(2, int_field(1, lease_id)))
        return b"".join(out)

    def keep_alive(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """LeaseKeepAlive (L5, L6, L11)."""
        return _KeepAlive(self, caller, sink)

    def may_renew(self, caller: Caller, lease_id: int) -> None:
        """WRITE on every attached key; an empty lease: its creator or root."""
        self.standing(caller)
        self.member.may_write_lease(caller.principal, caller.source, lease_id)


class _KeepAlive:
    """One keepalive stream: one answer per request, in order."""

    def __init__(self, service: LeaseService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._open = 0
        self._half_closed = False
        self._ended = False
        self._order: deque[tuple[bytes, list[bytes | ConfigServiceError]]] = deque()

    def on_message(self, raw: bytes) -> None:
        m = requests.parse(rpc_pb2.LeaseKeepAliveRequest, raw)
        service = self._service
        service.standing(self._caller)
        head = service.header() + int_field(2, m.ID)
        slot: list[bytes | ConfigServiceError] = []
        self._order.append((head, slot))
        member = service.member
        if m.ID in member.state.lessor or not member.lead:
            self._renew(m.ID, slot)
            return

        def late() -> bytes:
            """Everything acknowledged by then is applied: whose lease it is, if it is one."""
            if not self._ended:
                self._renew(m.ID, slot)
            return b""

        def failed(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                self._renewed(slot, result)

        member.reads.submit(late, urgent=True).bind(failed)

    def _renew(self, lease_id: int, slot: list[bytes | ConfigServiceError]) -> None:
        service = self._service
        if lease_id in service.member.state.lessor:
            service.may_renew(self._caller, lease_id)
        service.member.leases.renew(lease_id, lambda ttl: self._renewed(slot, ttl))

    def _renewed(
        self, slot: list[bytes | ConfigServiceError], ttl: int | ConfigServiceError
    ) -> None:
        slot.append(ttl if isinstance(ttl, ConfigServiceError) else int_field(3, ttl))
        while self._order and self._order[0][1] and not self._ended:
            head, answer = self._order.popleft()
            if isinstance(answer[0], ConfigServiceError):
                self._end(answer[0])
            else:
                self._sink.send(head + answer[0])
        if self._half_closed and not self._order:
            self._end(None)

    def _end(self, error: ConfigServiceError | None) -> None:
        if not self._ended:
            self._ended = True
            self._order.clear()
            self._sink.finish(error)

    def on_half_close(self) -> None:
        self._half_closed = True
        if not self._order:
            self._end(None)

    def on_cancel(self) -> None:
        self._ended = True
        self._order.clear()

    def on_writable(self) -> None:
        return
