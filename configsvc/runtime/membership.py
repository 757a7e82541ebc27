"""Changing the members: live checks, the way to the leader, and what a change does to this one.

The list itself is applied state, and ``apply`` validates every change again on all members alike
(reliability.md 5.5 e). Here are the checks that need live facts: who is connected, how far a
learner got (M5, M6).

Not here: quorums (``raft``), rows (``apply.members``), sockets (``transport``).
"""

from __future__ import annotations

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
    ExitCode,
    FatalError,
    LeaderChangedError,
    LearnerNotReadyError,
    MemberBadURLsError,
    MemberNotFoundError,
    MemberNotLearnerError,
    NoLeaderError,
    NotLeaderError,
    RequestTooManyRequestsError,
    UnhealthyError,
)
from configsvc.identity.member_ids import member_id
from configsvc.raft.errors import ProposalDropped
from configsvc.runtime.forwarding import Queued
from configsvc.runtime.rpc import PeerMethod
from configsvc.runtime.waiting import Waiting
from configsvc.transport.admission import REMOVED
from configsvc.transport.hello import Hello, Refusal
from configsvc.transport.joining import JoinQuestion
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member as RunningMember

RETRY_S: Final = 0.05
ACTIVE_S: Final = 5.0  # connected at least this long counts as active (M6)
PROMOTE_ENTRIES_MAX: Final = 1_000  # a learner may lag this many entries (M1)
PROMOTE_PERCENT: Final = 90
LINGER_TIMEOUTS: Final = 5  # a removed member goes on voting this many election timeouts at most
FAREWELL_S: Final = 1.0  # for answers that are on their way, on a busy machine too
_NOT_NOW: Final = (
    NoLeaderError,
    NotLeaderError,
    LeaderChangedError,
    RequestTooManyRequestsError,  # another change is under way
)


LOST_STORE: Final = Refusal(
    ExitCode.WRONG_IDENTITY, "its data was lost or swapped: the cluster knows another store id"
)
WENT_BACK: Final = Refusal(
    ExitCode.WENT_BACK, "it holds less than it acknowledged: an old copy of its data"
)


class Membership:
    """Membership changes of one running member."""

    def __init__(self, member: RunningMember) -> None:
        self._member = member
        self._decoder = CommandDecoder()
        self._incarnations: dict[int, int] = {}  # member -> the start we spoke with last
        self._removed_at: float | None = None
        self._removed_by: set[int] = set()  # members that told us so
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
        self._attempt(queued)
        return waiting

    def _attempt(self, queued: Queued) -> None:
        """Hand a change to the leader, again and again while it cannot take one, until it is
        applied or its caller's time is over. Whatever was proposed twice is refused by apply.
        """
        member = self._member

        def told(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, _NOT_NOW):
                member.loop.call_later(RETRY_S, self._attempt, queued)
            elif isinstance(result, ConfigServiceError):
                member.proposals.withdraw(queued.request_id, result)

        if not member.proposals.waits_for(queued.request_id):
            return
        if member.is_leader:
            try:
                self._propose(queued.command, member.self_id)
            except ConfigServiceError as error:
                told(error)
        elif member.lead:
            member.calls.call(member.lead, PeerMethod.CONF_CHANGE, queued.command).bind(told)
        else:
            told(NoLeaderError())

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
        if member.change_pending or member.machine.raft.conf_change_unapplied:
            raise RequestTooManyRequestsError
        if member.leading_since_term != member.term:
            raise NoLeaderError
        if op.action == REMOVE and op.member == member.self_id and member.handover.begin():
            raise NoLeaderError  # whoever leads next removes this member (5.5 c)
        self._check_live(op)
        try:
            member.machine.raft.propose_conf_change(core_change(op, stamped))
        except ProposalDropped:
            raise NoLeaderError from None
        if op.action == REMOVE and op.member != member.self_id:
            # Applied here, the change cuts that member off: it must hear of the commit before.
            member.news.expects(NodeId(op.member), member.machine.raft.last_index)
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

    # --- who may connect -------------------------------------------------------------------------

    def admit(self, question: JoinQuestion) -> NodeId | Refusal:
        """The id of a member that was added and holds nothing yet, or why it may not join."""
        who = question.member_id or self._id_of(question.peer_urls)
        if who in self._list.removed:
            return REMOVED
        known = self._list.by_id.get(who)
        if known is None:
            return Refusal(0, "no such member has been added")
        if known.store_id:
            return LOST_STORE
        return NodeId(who)

    def _id_of(self, peer_urls: tuple[str, ...]) -> int:
        """The member under these URLs; 0: none."""
        wanted = sorted(peer_urls)
        return next((m.id for m in self.all() if sorted(m.peer_urls) == wanted), 0)

    def judge_hello(self, peer: NodeId, hello: Hello) -> Refusal | str:
        """Why to refuse a peer that certificate and cluster let in; "" to accept it (L3, G1)."""
        # Also of a peer that is not in our list yet: once it is, its next words are not its first,
        # and what it acknowledged meanwhile may have overtaken them on another connection.
        first = self._incarnations.get(peer) != hello.incarnation
        self._incarnations[peer] = hello.incarnation
        known = self._list.by_id.get(peer)
        if known is None:
            return ""  # this member's list may lag
        if known.store_id and known.store_id != hello.store_id:
            return LOST_STORE
        return WENT_BACK if first and self._went_back(peer, hello) else ""

    def _went_back(self, peer: NodeId, hello: Hello) -> bool:
        """Whether the first words of a start prove that acknowledged entries are gone (G2 b)."""
        member = self._member
        if not member.is_leader or hello.term > member.term:
            return False
        progress = member.machine.raft.status().progress.get(peer)
        if progress is None or hello.last_index >= progress.match:
            return False
        member.report.error(
            "runtime",
            "a member holds less than it acknowledged",
            peer=f"{peer:016x}",
            index=progress.match,
        )
        return True

    def refused(self, peer: NodeId, refusal: Refusal) -> None:
        """Another member refuses this one; what only the side at fault is told ends it."""
        if peer in self._list.removed:
            return  # it has no say
        if refusal.code == ExitCode.REMOVED:
            self._removed_by.add(peer)
            self._begin_leaving()
        elif refusal.code in (ExitCode.WRONG_IDENTITY, ExitCode.WENT_BACK):
            self._member.die(
                FatalError(
                    ExitCode(refusal.code),
                    f"the cluster refuses this member: {refusal.text}",
                    "replace this member: configctl member replace",
                )
            )

    @property
    def leaving(self) -> bool:
        """Whether this member was removed and only lingers."""
        return self._removed_at is not None

    # --- leaving ---------------------------------------------------------------------------------

    def configuration(self) -> None:
        """A configuration took effect, or is in force at start."""
        if self._member.self_id in self._list.removed:
            self._begin_leaving()

    def _begin_leaving(self) -> None:
        member = self._member
        if self._removed_at is None:
            self._removed_at = member.clock.monotonic()
            member.report.warn("runtime", "this member was removed from the cluster")

    def tick(self, now: float) -> None:
        """A removed member lingers until the others know, then exits by itself (5.5 c, M7)."""
        if self._removed_at is None:
            return
        member = self._member
        conf = member.machine.conf_state
        others = [v for v in conf.voters if v != member.self_id]
        told = sum(v in self._removed_by for v in others)
        timeout = member.config.election_timeout_ms / 1000
        waited = now - self._removed_at
        known = 2 * told > len(others) and waited > FAREWELL_S
        if known or waited > LINGER_TIMEOUTS * timeout:
            member.die(
                FatalError(
                    ExitCode.REMOVED,
                    "this member was removed from the cluster",
                    "wipe its data directory and add it again under a new id",
                )
            )

    # --- live facts ------------------------------------------------------------------------------

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
