"""``RawNode``: the core's outside. Calls go in, a ``Ready`` comes out, ``advance`` closes it.

The caller carries out each ``Ready`` in the order of ``raft.plan``, applies the committed entries
(configuration changes through ``apply_conf_change``, in their place) and calls ``advance`` before
it asks for the next. With asynchronous storage writes there is no ``advance``: the messages to
``APPEND_THREAD`` and ``APPLY_THREAD`` carry the answers to deliver when the work is done.

Nothing here blocks, reads a clock or draws randomness but from ``rng``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from configsvc.errors import ensure
from configsvc.raft import clock, dispatch, election, proposing, reads, sending, transfer
from configsvc.raft.confchange_codec import encode_conf_change
from configsvc.raft.config import RaftConfig
from configsvc.raft.handout import Handout
from configsvc.raft.log import RaftLog
from configsvc.raft.membership import confchange, switching
from configsvc.raft.messages import (
    ConfChange,
    ConfState,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Ready,
    Role,
)
from configsvc.raft.progress import Progress, ProgressState
from configsvc.raft.roles import become_follower
from configsvc.raft.state import NOBODY, Raft, Rng
from configsvc.raft.storage import LogStorage
from configsvc.types import LogIndex, NodeId, Term

_BLANK: Final = HardState()
_NO_MEMBERS: Final = ConfState()


class PeerStatus(NamedTuple):
    """A leader's view of one member."""

    match: LogIndex  # durable there up to here
    next: LogIndex
    state: ProgressState
    recent_active: bool  # heard from since the last quorum check
    paused: bool
    inflight: int  # unanswered appends
    inflight_full: bool
    pending_snapshot: LogIndex  # 0: none under way
    is_learner: bool


class Status(NamedTuple):
    id: NodeId
    term: Term
    vote: NodeId
    commit: LogIndex
    applied: LogIndex
    lead: NodeId  # 0: none known
    role: Role
    conf_state: ConfState
    progress: dict[NodeId, PeerStatus]  # in ascending order of id; empty unless leader
    transferee: NodeId  # 0: no transfer under way
    uncommitted_bytes: int
    reads_waiting: int
    messages_unknown: int


class RawNode:
    """One member of a consensus group."""

    def __init__(
        self,
        config: RaftConfig,
        storage: LogStorage,
        rng: Rng,
        *,
        hard_state: HardState = _BLANK,
        conf_state: ConfState = _NO_MEMBERS,
        applied: int = 0,
    ) -> None:
        """Start from durable state.

        Args:
            config: Switches and bounds.
            storage: The durable log; the caller appends to it, the core only reads.
            rng: Source of the election jitter.
            hard_state: Term, vote and commit hint as recovered; the commit index starts at the
                higher of hint and ``applied`` (C6).
            conf_state: The configuration in force at ``applied``; from the same transaction (M2).
            applied: Last index the state machine has applied; 0: the base of ``storage``.
        """
        log = RaftLog(
            storage,
            commit_hint=hard_state.commit,
            applied=applied,
            applying_bytes_max=config.max_committed_bytes_per_ready,
            applying_entries_max=config.max_committed_entries_per_ready,
        )
        conf = confchange.normalized(conf_state)
        self.raft = Raft(config, log, rng, hard_state=hard_state, conf=conf)
        become_follower(self.raft, self.raft.term, NOBODY)
        self._handout = Handout(self.raft)

    # --- what others look at --------------------------------------------------------------

    @property
    def lead(self) -> NodeId:
        """The leader, 0 if none is known."""
        return self.raft.lead

    @property
    def term(self) -> Term:
        return self.raft.term

    @property
    def role(self) -> Role:
        return self.raft.role

    @property
    def commit_index(self) -> LogIndex:
        return LogIndex(self.raft.log.committed)

    @property
    def applied_index(self) -> LogIndex:
        """Last index whose application has been acknowledged by ``advance``."""
        return LogIndex(self.raft.log.applied)

    @property
    def last_index(self) -> LogIndex:
        """Last entry of the log, durable or not."""
        return LogIndex(self.raft.log.last_index)

    @property
    def snapshot_waiting(self) -> LogIndex:
        """Index of a snapshot that was taken and is not installed yet; 0: there is none."""
        snapshot = self.raft.log.unstable.snapshot
        return snapshot.index if snapshot is not None else LogIndex(0)

    @property
    def conf_change_unapplied(self) -> bool:
        """Whether a leader's log may hold a configuration change that is not applied yet.

        The shell then takes no normal proposals (5.5 a): entries behind a change could come to
        lie with a member that nobody who knows the change would vote for.
        """
        raft = self.raft
        return raft.role is Role.LEADER and raft.pending_conf_index > raft.log.applied

    def status(self) -> Status:
        """Everything worth showing; costs a pass over the members."""
        raft = self.raft
        leading = raft.role is Role.LEADER
        return Status(
            id=raft.id,
            term=raft.term,
            vote=raft.vote,
            commit=self.commit_index,
            applied=self.applied_index,
            lead=raft.lead,
            role=raft.role,
            conf_state=raft.conf,
            progress={p: peer_status(v) for p, v in raft.progress.items()} if leading else {},
            transferee=raft.transferee,
            uncommitted_bytes=raft.uncommitted_bytes,
            reads_waiting=len(raft.reads),
            messages_unknown=raft.messages_unknown,
        )

    # --- input ----------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the caller's clock has passed."""
        clock.tick(self.raft)

    def step(self, message: Message) -> None:
        """Take a message; see ``dispatch.step`` for what it raises. The state stays sound."""
        dispatch.step(self.raft, message)

    def campaign(self) -> None:
        """Campaign now, if this member may."""
        election.start(self.raft)

    def propose(self, datas: Sequence[bytes]) -> None:
        """Propose normal entries as one batch, all or none.

        Raises:
            ProposalDropped: nothing was appended; a retry elsewhere is safe.
        """
        proposing.propose_payloads(self.raft, datas)

    def propose_conf_change(self, change: ConfChange) -> None:
        """Propose a membership change; a leader that may not take it now appends an empty entry.

        Raises:
            ProposalDropped: as ``propose``.
        """
        kind = EntryKind.CONF_CHANGE if change.v1 else EntryKind.CONF_CHANGE_V2
        proposing.propose_change(self.raft, kind, encode_conf_change(change))

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """A committed change takes effect; call it when its entry's turn to be applied comes.

        Raises:
            ConfChangeInvalid: illegal here; nothing changed. ``confchange.next_conf_state`` tells
                so beforehand.
        """
        return switching.apply_conf_change(self.raft, change)

    def read_index(self, context: bytes) -> None:
        """Ask from which applied index on a linearizable read may be served.

        The answer comes as a read state of some later ``Ready``, or never: a change of leader
        or role forgets it (R4), a lost message too. ``context`` must be new for every attempt.

        Raises:
            ReadDropped: no leader is known, or too many reads wait.
        """
        reads.request(self.raft, context)

    def transfer_leader(self, to: NodeId) -> None:
        """Hand leadership to the voter ``to``; naming the leader itself calls it off."""
        dispatch.handle(self.raft, Message(MessageType.TRANSFER_LEADER, from_=to))

    @property
    def leader_silent(self) -> bool:
        """Whether a follower has not heard its leader for an election timeout."""
        raft = self.raft
        return (
            raft.role is Role.FOLLOWER
            and raft.lead != NOBODY
            and raft.election_elapsed >= raft.config.election_ticks
        )

    @property
    def transferee(self) -> NodeId:
        """Whom this leader is handing leadership to; 0: nobody, or no longer."""
        return self.raft.transferee

    @property
    def commit_untold(self) -> bool:
        """Whether followers may wait for ``tell_commit``; never with ``tell_commits``."""
        return self.raft.commit_untold and self.raft.role is Role.LEADER

    def tell_commit(self, up_to: int, *, to: NodeId = NOBODY) -> bool:
        """Tell followers, or ``to`` alone, that what ``up_to`` covers is committed, unless
        something sent to them said so already; whether there was somebody to be told. Nothing
        happens on other roles.
        """
        return sending.tell_commit(self.raft, up_to, to)

    def forget_leader(self) -> None:
        """Free a follower's vote within its leader's lease; nothing on other roles."""
        transfer.forget_leader(self.raft)

    def report_unreachable(self, member: NodeId) -> None:
        """Messages to ``member`` were lost."""
        dispatch.handle(self.raft, Message(MessageType.UNREACHABLE, from_=member))

    def report_snapshot(self, member: NodeId, ok: bool) -> None:
        """The install on ``member`` ended; every MsgSnap must be followed by one call."""
        dispatch.handle(self.raft, Message(MessageType.SNAP_STATUS, from_=member, reject=not ok))

    def set_promotable(self, allowed: bool) -> None:
        """Whether this member may campaign (E2); it votes and acknowledges all the same."""
        self.raft.promotable_flag = allowed

    def set_transferable(self, allowed: bool) -> None:
        """Whether this member may be handed leadership (E3); it campaigns all the same.

        One that must not, or is not promotable, tells the leader that it declines.
        """
        self.raft.declines_transfer = not allowed

    def step_down(self) -> None:
        """A leader gives up as after a failed quorum check: same term, no leader (D1)."""
        if self.raft.role is Role.LEADER:
            become_follower(self.raft, self.raft.term, NOBODY)

    # --- output ---------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether ``ready`` would hand out anything."""
        return self._handout.waits()

    def ready(self) -> Ready:
        """Hand out the work; each piece once."""
        return self._handout.take()

    def advance(self) -> None:
        """The last ``Ready`` has been carried out: written, sent and applied."""
        ensure(not self.raft.config.async_storage_writes, "answers replace advance")
        for message in self._handout.acknowledgements():
            dispatch.handle(self.raft, message)


def peer_status(progress: Progress) -> PeerStatus:
    """A copy of what ``progress`` says now."""
    return PeerStatus(
        match=LogIndex(progress.match),
        next=LogIndex(progress.next),
        state=progress.state,
        recent_active=progress.recent_active,
        paused=progress.paused,
        inflight=len(progress.inflights),
        inflight_full=progress.inflights.full,
        pending_snapshot=LogIndex(progress.pending_snapshot),
        is_learner=progress.is_learner,
    )
