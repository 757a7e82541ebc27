"""Changing the members: live checks, the way to the leader, and what a change does to this one.

The list itself is applied state, and ``apply`` validates every change again on all members alike
(reliability.md 5.5 e). Here are the checks that need live facts: who is connected, how far a
learner got (M5, M6).

Not here: quorums (``raft``), rows (``apply.members``), sockets (``transport``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from configsvc.apply.commands import Effects, MemberChangeOp, Refused
from configsvc.apply.members import ADD, PROMOTE, REMOVE, UPDATE, Member, Members, check_url
from configsvc.codec import command as codec
from configsvc.codec.command import CommandDecoder
from configsvc.codec.membership import core_change, encode_op
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    LearnerNotReadyError,
    MemberBadURLsError,
    MemberNotFoundError,
    MemberNotLearnerError,
    NoLeaderError,
    RequestTooManyRequestsError,
    UnhealthyError,
)
from configsvc.identity.member_ids import member_id
from configsvc.raft.errors import ProposalDropped
from configsvc.runtime.rpc import PeerMethod
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member as RunningMember

ACTIVE_S: Final = 5.0  # connected at least this long counts as active (M6)
PROMOTE_ENTRIES_MAX: Final = 1_000  # a learner may lag this many entries (M1)
PROMOTE_PERCENT: Final = 90
_ACCEPTED = struct.Struct("<Q")


class Membership:
    """Membership changes of one running member."""

    def __init__(self, member: RunningMember) -> None:
        self._member = member
        self._decoder = CommandDecoder()
        member.calls.serve(PeerMethod.CONF_CHANGE, self._serve)

    @property
    def _list(self) -> Members:
        return self._member.state.members

    def all(self) -> list[Member]:
        """Members by id (M1)."""
        return self._list.sorted()

    def get(self, wanted: int) -> Member:
        """Raises ``MemberNotFoundError``."""
        found = self._list.by_id.get(wanted)
        if found is None:
            raise MemberNotFoundError
        return found

    # --- planning --------------------------------------------------------------------------------

    def plan_add(self, peer_urls: tuple[str, ...], *, is_learner: bool) -> MemberChangeOp:
        """A new member's id follows from its URLs, the token and the time (P11)."""
        if not peer_urls:
            raise MemberBadURLsError
        for url in peer_urls:
            check_url(url)
        config = self._member.config
        now = self._member.time_ns() // 1_000_000_000
        new_id = member_id(peer_urls, config.initial_cluster_token, now)
        return MemberChangeOp(ADD, new_id, tuple(sorted(peer_urls)), is_learner)

    def plan_remove(self, wanted: int) -> MemberChangeOp:
        self.get(wanted)
        return MemberChangeOp(REMOVE, wanted, (), False)

    def plan_promote(self, wanted: int) -> MemberChangeOp:
        if not self.get(wanted).is_learner:
            raise MemberNotLearnerError
        return MemberChangeOp(PROMOTE, wanted, (), False)

    def plan_update(self, wanted: int, peer_urls: tuple[str, ...]) -> MemberChangeOp:
        self.get(wanted)
        if not peer_urls:
            raise MemberBadURLsError
        for url in peer_urls:
            check_url(url)
        return MemberChangeOp(UPDATE, wanted, tuple(sorted(peer_urls)), False)

    # --- the way to the log ----------------------------------------------------------------------

    def change(
        self,
        envelope: bytes,
        reason: str,
        ticket: str,
        op: MemberChangeOp,
        answer: Callable[[], bytes],
    ) -> Waiting:
        """Propose a change in the caller's name; answered when it is applied here (M8)."""
        member = self._member

        def applied(effects: Effects) -> bytes:
            if isinstance(effects.result, Refused):
                raise effects.result.error
            return answer()

        queued, waiting = member.proposals.prepare(
            envelope,
            codec.OP_MEMBER_CHANGE,
            encode_op(op),
            applied,
            reason=reason,
            ticket=ticket,
            urgent=True,
        )
        if member.is_leader:
            try:
                self._propose(queued.command, member.self_id)
            except ConfigServiceError as error:
                member.proposals.withdraw(queued.request_id, error)
            return waiting

        def told(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                member.proposals.withdraw(queued.request_id, result)

        if not member.lead:
            told(NoLeaderError())
        else:
            member.calls.call(member.lead, PeerMethod.CONF_CHANGE, queued.command).bind(told)
        return waiting

    def _serve(self, peer: NodeId, body: bytes) -> bytes:
        if not self._member.is_leader:
            raise NoLeaderError
        self._propose(body, peer)
        return b"\x01"

    def _propose(self, command: bytes, accepted_by: NodeId) -> None:
        member = self._member
        stamped = member.proposals.stamp_one(command, accepted_by, member.state.last_time_ns)
        op = self._decoder.decode(stamped).op
        if not isinstance(op, MemberChangeOp):
            raise DecodeError("a configuration change that is none")
        if member.change_pending:
            raise RequestTooManyRequestsError
        self._check_live(op)
        try:
            member.machine.raft.propose_conf_change(core_change(op, stamped))
        except ProposalDropped:
            raise NoLeaderError from None
        member.change_pending = True
        member.wake()

    def _check_live(self, op: MemberChangeOp) -> None:
        """The part of M5 and M6 that asks who is here now."""
        member = self._member
        if not member.config.strict_reconfig_check:
            return
        voters = [m for m in self.all() if not m.is_learner]
        active = {m.id for m in voters if self._active(NodeId(m.id))}
        if op.action == ADD and len(voters) > 1:
            if len(active) < (len(voters) + 1) // 2 + 1:
                raise UnhealthyError
        elif op.action == REMOVE and op.member in active:
            rest = len(voters) - 1
            if len(active) - 1 < rest // 2 + 1 and rest:
                raise UnhealthyError
        elif op.action == PROMOTE:
            self._check_learner(NodeId(op.member))

    def _active(self, who: NodeId) -> bool:
        member = self._member
        return who == member.self_id or member.peer_active_for(who) >= ACTIVE_S

    def _check_learner(self, who: NodeId) -> None:
        progress = self._member.machine.raft.status().progress.get(who)
        last = self._member.machine.raft.last_index
        if progress is None or not progress.recent_active:
            raise LearnerNotReadyError
        lag = last - progress.match
        if lag > PROMOTE_ENTRIES_MAX or progress.match * 100 < last * PROMOTE_PERCENT:
            raise LearnerNotReadyError
