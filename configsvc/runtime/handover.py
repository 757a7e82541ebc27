"""Leadership on its way to another member, given up, or not to be had (D2, E2).

Target is the voter with a healthy disk and the highest match. Writes wait a moment for the new
leader and are refused with a hint after that; a transfer that does not succeed within an election
timeout is called off, by the core as well.

Not here: when to hand over (``disk_health``, ``cluster_health``, ``memory_health``,
``membership``, a stop), how votes are won (``raft``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from configsvc.errors import ConflictError, LeaderChangedError, RequestTimeoutError
from configsvc.runtime.disk_health import DiskState
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

HOLD_S: Final = 0.25  # writes wait this long for the new leader
LAG_MAX: Final = 1_000  # entries that a voter may lack and still count as caught up
_UNABLE: Final = frozenset({DiskState.HUNG, DiskState.FULL})
_DECLINED: Final = {
    DiskState.SLOW: "the member declines leadership: its disk is slow",
    DiskState.HUNG: "the member declines leadership: its disk hangs",
    DiskState.FULL: "the member declines leadership: its disk is full",
}


class Handover:
    """One member's office, and whether it may have one."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._unfit: set[str] = set()  # why this member must not campaign
        self._transfer: tuple[NodeId, Waiting, float] | None = None  # to whom, caller, since

    @property
    def under_way(self) -> Waiting | None:
        """The transfer that nobody knows the outcome of yet; None: there is none."""
        return self._transfer[1] if self._transfer is not None else None

    def set_fit(self, reason: str, *, fit: bool) -> bool:
        """Whether ``reason`` keeps this member from campaigning; True when that is news (E2)."""
        if (reason not in self._unfit) == fit:
            return False
        (self._unfit.discard if fit else self._unfit.add)(reason)
        self._member.machine.raft.set_promotable(not self._unfit)
        return True

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
        self.transfer_to(target)
        return True

    def ask(self, target: int) -> Waiting:
        """Hand leadership to a voter of the caller's choice, as ``transfer_to``.

        Raises ConflictError for one whose disk is not well by its last report (E3): what it would
        answer is known here already, and writes need not wait for it.
        """
        told = self._member.housekeeping.peers.get(NodeId(target))
        if told is not None and told.disk in _DECLINED and target != self._member.self_id:
            raise ConflictError(_DECLINED[told.disk])
        return self.transfer_to(target)

    def transfer_to(self, target: int) -> Waiting:
        """Hand leadership to a voter; answered once it leads (N9)."""
        member = self._member
        waiting = Waiting()
        if target == member.self_id:
            waiting.complete(b"")
            return waiting
        self._end(LeaderChangedError())  # an earlier one is called off by this one
        self._transfer = (NodeId(target), waiting, member.clock.monotonic())
        member.machine.raft.transfer_leader(NodeId(target))
        member.wake()
        return waiting

    def leadership(self, lead: NodeId) -> None:
        """Somebody leads, or nobody does."""
        if self._transfer is not None and lead and lead != self._member.self_id:
            self._end(b"" if lead == self._transfer[0] else LeaderChangedError())

    def tick(self) -> None:
        """Called every raft tick."""
        if self._transfer is None:
            return
        member = self._member
        taken = member.clock.monotonic() - self._transfer[2]
        if taken >= member.config.election_timeout_ms / 1000:
            self._end(RequestTimeoutError())
        elif taken >= HOLD_S:
            member.proposals.fail_queued(LeaderChangedError())

    def _end(self, result: bytes | LeaderChangedError | RequestTimeoutError) -> None:
        if self._transfer is not None:
            waiting, self._transfer = self._transfer[1], None
            waiting.complete(result)

    def _best_successor(self, least: int, *, healthy: bool) -> NodeId:
        """The voter with a healthy disk and the highest match, from ``least`` on; 0: none.

        One with a slow disk only where nobody's is well, and not at all if ``healthy``.
        """
        member = self._member
        reports = member.housekeeping.peers
        slow = {who for who, told in reports.items() if told.disk is DiskState.SLOW}
        bad = {who for who, told in reports.items() if told.disk in _UNABLE}
        bad |= slow if healthy else set()
        able = [
            (who not in slow, peer.match, -who, who)
            for who, peer in member.machine.raft.status().progress.items()
            if who != member.self_id and who in member.machine.conf_state.voters
            if peer.recent_active and who not in bad and peer.match >= least
        ]
        return NodeId(max(able)[3]) if able else NodeId(0)
