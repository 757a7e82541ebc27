"""Leadership on its way to another member, given up, or not to be had (D2, E2).

Target is the voter with a healthy disk and the highest match. Writes wait a moment for the new
leader and are refused with a hint after that; a transfer that does not succeed within an election
timeout is called off, by the core as well. A member that had better not lead declines, the leader
hears of it at once and asks the next best (E3).

Not here: when to hand over (``disk_health``, ``cluster_health``, ``memory_health``,
``membership``, a stop), how votes are won (``raft``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from configsvc import limits
from configsvc.errors import (
    ConfigServiceError,
    ConflictError,
    LeaderChangedError,
    RequestTimeoutError,
)
from configsvc.runtime.disk_health import DiskState
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

HOLD_S: Final = 0.25  # writes wait this long for the new leader
LAG_MAX: Final = 1_000  # entries that a voter may lack and still count as caught up
_CORE_TICKS: Final = 2  # by so many the core may call a transfer off before we do
_DECLINED: Final = {
    DiskState.SLOW: "the member declines leadership: its disk is slow",
    DiskState.HUNG: "the member declines leadership: its disk hangs",
    DiskState.FULL: "the member declines leadership: its disk is full",
}
_BEHIND: Final = "the member declines leadership: its history is behind"
_WRONG_CLOCK: Final = "the member declines leadership: its clock is wrong"
_SAID_NO: Final = "the member declines leadership"


class _Transfer(NamedTuple):
    target: NodeId
    waiting: Waiting  # completed once the outcome is known
    since: float
    chosen_here: bool  # another one will do as well


class Handover:
    """One member's office, and whether it may have one."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._unfit: set[str] = set()  # why this member must not campaign
        self._willing = True
        self._transfer: _Transfer | None = None
        self._declined_until: dict[NodeId, float] = {}  # those who said no are not asked again

    @property
    def under_way(self) -> Waiting | None:
        """The transfer that nobody knows the outcome of yet; None: there is none."""
        return self._transfer.waiting if self._transfer is not None else None

    def set_fit(self, reason: str, *, fit: bool) -> bool:
        """Whether ``reason`` keeps this member from campaigning; True when that is news (E2)."""
        if (reason not in self._unfit) == fit:
            return False
        (self._unfit.discard if fit else self._unfit.add)(reason)
        self._member.machine.raft.set_promotable(not self._unfit)
        return True

    def judge_self(self) -> None:
        """Decline leadership while something is wrong that does not forbid a campaign (E3).

        All members may be alike, and then one of them has to lead; but nobody is made to.
        """
        member = self._member
        willing = not (
            member.stopping
            or member.membership.leaving
            or member.disk.state is not DiskState.OK
            or member.disk.age_s > member.config.election_timeout_ms / 2_000
            or member.housekeeping.hold_writes()
            or member.cluster_health.clock_off
        )
        if willing != self._willing:
            self._willing = willing
            member.machine.raft.set_transferable(willing)

    def give_up(self) -> None:
        """Lead no more, as after a failed quorum check; callers are told that they may doubt."""
        machine = self._member.machine
        machine.raft.step_down()
        machine.notice_role()
        self._member.wake()

    def begin(self, *, caught_up: bool = False, healthy: bool = False) -> bool:
        """Begin to hand leadership to the best voter; False: there is none that could take it.

        ``caught_up``: only to a voter that lacks next to nothing. ``healthy``: and only to one
        whose disk is well; a slow one would hand it on (E3).
        """
        if self._transfer is not None:
            return True
        last = self._member.machine.raft.last_index
        target = self._best_successor(last - LAG_MAX if caught_up else 0, healthy=healthy)
        if not target:
            return False
        self._hand_to(target, Waiting(), chosen_here=True)
        return True

    def ask(self, target: int) -> Waiting:
        """Hand leadership to a voter of the caller's choice, as ``transfer_to``.

        Raises ConflictError for one that declines by its last report (E3): what it would answer
        is known here already, and writes need not wait for it.
        """
        reason = "" if target == self._member.self_id else self._would_decline(NodeId(target))
        if reason:
            raise ConflictError(reason)
        return self.transfer_to(target)

    def transfer_to(self, target: int) -> Waiting:
        """Hand leadership to a voter; answered once it leads (N9), or declines."""
        waiting = Waiting()
        if target == self._member.self_id:
            waiting.complete(b"")
        else:
            self._hand_to(NodeId(target), waiting, chosen_here=False)
        return waiting

    def leadership(self, lead: NodeId) -> None:
        """Somebody leads, or nobody does."""
        if self._transfer is not None and lead and lead != self._member.self_id:
            self._end(b"" if lead == self._transfer.target else LeaderChangedError())

    def tick(self) -> None:
        """Called every raft tick."""
        self.judge_self()
        if self._transfer is None:
            return
        member = self._member
        taken = member.clock.monotonic() - self._transfer.since
        timeout = member.config.election_timeout_ms / 1000
        if taken >= timeout - _CORE_TICKS * member.config.tick:
            self._end(RequestTimeoutError())
            if member.is_leader:
                member.machine.raft.transfer_leader(member.self_id)  # calls it off
        elif member.is_leader and member.machine.raft.transferee != self._transfer.target:
            self._declined(self._transfer)
        elif taken >= HOLD_S:
            member.proposals.fail_queued(LeaderChangedError())

    def _hand_to(self, target: NodeId, waiting: Waiting, *, chosen_here: bool) -> None:
        member = self._member
        self._end(LeaderChangedError())  # an earlier one is called off by this one
        self._transfer = _Transfer(target, waiting, member.clock.monotonic(), chosen_here)
        member.machine.raft.transfer_leader(target)
        member.wake()

    def _declined(self, transfer: _Transfer) -> None:
        """The target said no. The next best is asked within the same time, if there is one."""
        member = self._member
        timeout = member.config.election_timeout_ms / 1000
        self._declined_until[transfer.target] = member.clock.monotonic() + timeout
        member.report.warn("raft", "a member declines leadership", peer=f"{transfer.target:016x}")
        least = member.machine.raft.last_index - LAG_MAX
        target = self._best_successor(least, healthy=True) if transfer.chosen_here else NodeId(0)
        if not target:
            self._end(ConflictError(_SAID_NO))
            member.wake()  # writes go on
            return
        self._transfer = transfer._replace(target=target)
        member.machine.raft.transfer_leader(target)
        member.wake()

    def _end(self, result: bytes | ConfigServiceError) -> None:
        if self._transfer is not None:
            waiting, self._transfer = self._transfer.waiting, None
            waiting.complete(result)

    def _would_decline(self, who: NodeId) -> str:
        """Why a member would, by what it told last; "": it would not, or it told nothing."""
        told = self._member.housekeeping.peers.get(who)
        if told is None:
            return ""
        if told.disk in _DECLINED:
            return _DECLINED[told.disk]
        if 2 * told.sql_lag >= limits.SQL_LAG_ENTRIES_MAX:
            return _BEHIND
        return _WRONG_CLOCK if self._member.cluster_health.is_off(who) else ""

    def _best_successor(self, least: int, *, healthy: bool) -> NodeId:
        """The voter with a healthy disk and the highest match, from ``least`` on; 0: none.

        One with a slow disk only where nobody's is well, and not at all if ``healthy``.
        """
        member = self._member
        now = member.clock.monotonic()
        reports = member.housekeeping.peers
        slow = {who for who, told in reports.items() if told.disk is DiskState.SLOW}
        bad = {who for who in reports if self._would_decline(NodeId(who))}
        if not healthy:
            bad -= slow
        bad |= {who for who, until in self._declined_until.items() if now < until}
        able = [
            (who not in slow, peer.match, -who, who)
            for who, peer in member.machine.raft.status().progress.items()
            if who != member.self_id and who in member.machine.conf_state.voters
            if peer.recent_active and who not in bad and peer.match >= least
        ]
        return NodeId(max(able)[3]) if able else NodeId(0)
