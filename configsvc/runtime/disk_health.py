"""Whether this member's disk is fit for leadership: slow, hung or full (D1, E3, O7).

Judged by the age of the oldest write that is not synced, by how long syncs take, and by the space
that is left. A leader with a bad disk hands over while somebody healthy is there; one whose disk
hangs gives up its office, because nothing it promises would be durable.

Always true:
  * A slow disk never forbids a campaign: all disks may be slow. A hung or full one does (E2).
  * Hand-overs for the disk's sake are ten election timeouts apart.
  * A disk that hangs for ten election timeouts of this process's own time ends it (exit 80).

Not here: errors of the disk (``storage.wal.writer`` ends the process).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from configsvc import limits
from configsvc.errors import ConfigServiceError, ExitCode, FatalError

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

NO_SPACE: Final = 1  # the replicated alarm
FATAL_TIMEOUTS: Final = 10
_SMOOTHING: Final = 0.2  # weight of the newest sync in the average


class DiskState(IntEnum):
    """Numbers travel in envelopes and never change; higher is worse."""

    OK = 0
    SLOW = 1
    HUNG = 2
    FULL = 3


class DiskHealth:
    """The disk of one member; ``tick`` looks at it."""

    def __init__(self, member: Member, free_bytes: Callable[[], int]) -> None:
        self._member = member
        self._free_bytes = free_bytes  # where log and history lie
        self._timeout = member.config.election_timeout_ms / 1000
        self._next_look = 0.0
        self._log_space = True  # the next segment of the log could be made
        self._free_space = True
        self._hung = False
        self._hung_for = 0.0  # seconds of this process's own time
        self._frames = 0
        self._sync_s = 0.0  # average
        self._next_hand_over = 0.0
        self.hand_overs_total = 0

    @property
    def state(self) -> DiskState:
        """How it is now."""
        if not (self._log_space and self._free_space):
            return DiskState.FULL
        if self._hung:
            return DiskState.HUNG
        return DiskState.SLOW if self._sync_s > limits.DISK_SLOW_S else DiskState.OK

    @property
    def age_s(self) -> float:
        """Seconds since the oldest write that is not durable; 0: there is none."""
        age: float = self._member.wal.oldest_unsynced_age(self._member.clock.monotonic())
        return age

    def log_space(self, ok: bool) -> None:
        """The log's writer could, or could not, make the next segment."""
        self._log_space = ok
        self._judge_space()

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        age, half = self.age_s, self._timeout / 2
        self._note_syncs()
        self._judge_age(age)
        if age <= half and now >= self._next_look:
            self._next_look = now + limits.DISK_LOOK_S
            reserve = 2 * limits.WAL_SEGMENT_BYTES + limits.DISK_RESERVE_BYTES
            with contextlib.suppress(OSError):  # it does not tell: the next write will
                self._free_space = self._free_bytes() >= reserve
            self._judge_space()
        if self.state is not DiskState.OK or age > half:
            self._hand_over(now, merely_slow=self.state is DiskState.SLOW and age <= half)

    # --- age and speed ---------------------------------------------------------------------------

    def _note_syncs(self) -> None:
        wal = self._member.wal
        if wal.frames_total != self._frames:
            self._frames = wal.frames_total
            self._sync_s += _SMOOTHING * (wal.sync_seconds_last - self._sync_s)

    def _judge_age(self, age: float) -> None:
        member = self._member
        self._hung_for = self._hung_for + member.config.tick if age > self._timeout else 0.0
        if self._hung_for > (FATAL_TIMEOUTS - 1) * self._timeout:
            member.die(
                FatalError(
                    ExitCode.STORAGE,
                    f"storage failed: a write has been waiting for {age:.1f} s",
                    "repair or replace the disk, then start again",
                )
            )
        hung = age > self._timeout
        if hung == self._hung:
            return
        self._hung = hung
        member.handover.set_fit("disk", fit=not hung)
        if hung:
            member.report.error("disk", "the disk hangs", seconds=round(age, 3))
            if member.is_leader:
                member.handover.give_up()
        else:
            member.report.info("disk", "the disk writes again")

    # --- space -----------------------------------------------------------------------------------

    def _judge_space(self) -> None:
        member = self._member
        full = self.state is DiskState.FULL
        if member.handover.set_fit("space", fit=not full):
            if full:
                member.report.error("disk", "space runs out: this member will not lead")
            else:
                member.report.info("disk", "there is space again")

    # --- leadership ------------------------------------------------------------------------------

    def _hand_over(self, now: float, *, merely_slow: bool) -> None:
        member = self._member
        if not member.is_leader or now < self._next_hand_over:
            return
        self._next_hand_over = now + limits.HAND_OVER_EVERY_TIMEOUTS * self._timeout
        if member.handover.begin(caught_up=True, healthy=merely_slow):
            self.hand_overs_total += 1
            member.report.warn("disk", "leadership is handed over", state=self.state.name.lower())
        elif self.state is DiskState.FULL:
            self._stop_growth()

    def _stop_growth(self) -> None:
        """Nobody fitter can lead: the cluster's alarm keeps the log from growing over the edge."""
        try:
            self._member.raise_alarm(NO_SPACE)
        except ConfigServiceError:
            return  # its turn comes again
