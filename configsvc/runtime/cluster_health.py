"""What a leader sees of all members together: their clocks, their versions.

A leader whose wall clock is far from the others' stamps wrong times into entries: it hands over
(A1). The cluster version is the lowest that all members speak, raised by an entry once they all
speak a higher one (V1); a member that speaks less than it must not go on.

Not here: what members report (``housekeeping``), stamping (``proposals``).
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from configsvc import limits
from configsvc.apply.cluster import version_numbers
from configsvc.codec import command as codec
from configsvc.codec.publishing import cluster_version_op
from configsvc.errors import ConfigServiceError, ExitCode, FatalError, InvalidArgumentError

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

CLOCK_OFF_NS: Final = 5_000_000_000
CLOCKS_MIN: Final = 3  # two clocks do not say which of them is wrong
LOOK_S: Final = 1.0


class ClusterHealth:
    """One member's look at the others; ``tick`` takes it."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._next_look = 0.0
        self._next_hand_over = 0.0
        self._judged = ""  # cluster version that was compared with ours last

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        self._judge_version()
        if self._member.is_leader:
            self._judge_clock(now)
            self._raise_version()

    # --- clocks ----------------------------------------------------------------------------------

    def clock_offset_ns(self) -> int:
        """By how much the median of the voters' clocks is ahead of ours; 0: too few are known."""
        member = self._member
        peers = member.housekeeping.peers
        offsets = [0] + [
            peers[v].clock_offset_ns
            for v in member.machine.conf_state.voters
            if v in peers and member.net.connected(v)
        ]
        return int(median(offsets)) if len(offsets) >= CLOCKS_MIN else 0

    def _judge_clock(self, now: float) -> None:
        member = self._member
        offset = self.clock_offset_ns()
        if abs(offset) <= CLOCK_OFF_NS or now < self._next_hand_over:
            return
        timeout = member.config.election_timeout_ms / 1000
        self._next_hand_over = now + limits.HAND_OVER_EVERY_TIMEOUTS * timeout
        member.report.error(
            "runtime",
            "this member's clock is far from the others': leadership is handed over",
            seconds=round(offset / 1e9, 3),
        )
        member.handover.begin()

    # --- versions --------------------------------------------------------------------------------

    def _raise_version(self) -> None:
        """Propose the highest version that all members speak, if it is above the present one."""
        member = self._member
        state = member.state
        spoken = [_minor(one.version) for one in state.members.by_id.values()]
        if not spoken or () in spoken or member.leading_since_term != member.term:
            return  # somebody has not started yet
        lowest = min(spoken)
        if lowest <= _minor(state.cluster_version):
            return
        version = ".".join(map(str, (*lowest, 0)))
        try:
            member.proposals.submit(
                codec.SYSTEM_ACTOR,
                codec.OP_CLUSTER_VERSION,
                cluster_version_op(version),
                lambda _: b"",
                urgent=True,
            )
        except ConfigServiceError:
            return  # its turn comes again

    def _judge_version(self) -> None:
        member = self._member
        version = member.state.cluster_version
        if version == self._judged:
            return
        self._judged = version
        if _minor(version) > _minor(member.config.advertised_etcd_version):
            member.die(
                FatalError(
                    ExitCode.TOO_NEW,
                    f"the cluster speaks version {version}, this program does not",
                    "start the release that the other members run",
                )
            )


def _minor(version: str) -> tuple[int, ...]:
    """Major and minor number; empty if it is not known."""
    try:
        return version_numbers(version)[:2] if version else ()
    except InvalidArgumentError:
        return ()
