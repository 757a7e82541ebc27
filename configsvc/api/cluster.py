"""etcdserverpb.Cluster: who the members are, and changing them."""

from __future__ import annotations

from collections.abc import Callable

from configsvc.api.contract import Caller
from configsvc.api.service import Service
from configsvc.apply.commands import MemberChangeOp
from configsvc.apply.members import Member as MemberInfo
from configsvc.codec import requests
from configsvc.codec.varint import bytes_field, int_field, string_field
from configsvc.proto import rpc_pb2
from configsvc.runtime.waiting import Waiting


class ClusterService(Service):
    """Handlers of Cluster (M1–M8)."""

    def member_list(self, caller: Caller, raw: bytes) -> bytes | Waiting:
        """MemberList: peer URLs only for root, cluster.read and agents (3.5)."""
        m = requests.parse(rpc_pb2.MemberListRequest, raw)

        def answer() -> bytes:
            self.standing(caller)
            return self.header_at(0) + self._members(caller)

        return self.linearizable(caller, answer) if m.linearizable else answer()

    def _members(self, caller: Caller) -> bytes:
        peers = caller.principal.kind == "agent" or self.holds(caller, "cluster.read")
        return b"".join(
            bytes_field(2, encode_member(info, peers=peers))
            for info in self.member.membership.all()
        )

    def member_add(self, caller: Caller, raw: bytes) -> Waiting:
        """MemberAdd (M2, M3, M5, M6)."""
        m = requests.parse(rpc_pb2.MemberAddRequest, raw)
        self.need(caller, "cluster.admin")
        change = self.member.membership.plan_add(tuple(m.peerURLs), is_learner=m.isLearner)

        def answer() -> bytes:
            added = self.member.membership.get(change.member)
            return self.header_at(0) + bytes_field(2, encode_member(added)) + self._all(3)

        return self._change(caller, change, answer)

    def member_remove(self, caller: Caller, raw: bytes) -> Waiting:
        """MemberRemove (M6, M7)."""
        m = requests.parse(rpc_pb2.MemberRemoveRequest, raw)
        self.need(caller, "cluster.admin")
        change = self.member.membership.plan_remove(m.ID)
        return self._change(caller, change, lambda: self.header_at(0) + self._all(2))

    def member_update(self, caller: Caller, raw: bytes) -> Waiting:
        """MemberUpdate: new peer URLs, validated."""
        m = requests.parse(rpc_pb2.MemberUpdateRequest, raw)
        self.need(caller, "cluster.admin")
        change = self.member.membership.plan_update(m.ID, tuple(m.peerURLs))
        return self._change(caller, change, lambda: self.header_at(0) + self._all(2))

    def member_promote(self, caller: Caller, raw: bytes) -> Waiting:
        """MemberPromote (M5)."""
        m = requests.parse(rpc_pb2.MemberPromoteRequest, raw)
        self.need(caller, "cluster.admin")
        change = self.member.membership.plan_promote(m.ID)
        return self._change(caller, change, lambda: self.header_at(0) + self._all(2))

    def _change(self, caller: Caller, op: MemberChangeOp, answer: Callable[[], bytes]) -> Waiting:
        return self.member.membership.change(
            caller.envelope, caller.reason, caller.ticket, op, answer
        )

    def _all(self, field: int) -> bytes:
        return b"".join(bytes_field(field, encode_member(i)) for i in self.member.membership.all())


def encode_member(info: MemberInfo, *, peers: bool = True) -> bytes:
    """``etcdserverpb.Member``; one that has not started has no name and no client URLs (M1)."""
    parts = [int_field(1, info.id)]
    if info.name:
        parts.append(string_field(2, info.name))
    if peers:
        parts += (string_field(3, url) for url in info.peer_urls)
    parts += (string_field(4, url) for url in info.client_urls)
    if info.is_learner:
        parts.append(b"\x28\x01")
    return b"".join(parts)
