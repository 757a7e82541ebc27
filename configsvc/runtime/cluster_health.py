"""What a leader sees of all members together: their clocks, their versions.

A leader whose wall clock is far from the others' stamps wrong times into entries: it hands over
(A1). Whose clock is off is told so, once a second, and then says it itself: to its operators, and
to whoever wants it to lead.

The cluster version is the lowest that all members speak, raised by an entry once they all speak a
higher one (V1); a member that speaks less than it must not go on.

Not here: what members report (``housekeeping``), stamping (``proposals``).
"""

from __future__ import annotations

import struct
from statistics import median
from typing import TYPE_CHECKING, Final

from configsvc import limits
from configsvc.apply.cluster import version_numbers
from configsvc.codec import command as codec
from configsvc.codec.publishing import cluster_version_op
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    ExitCode,
    FatalError,
    InvalidArgumentError,
)
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

CLOCK_OFF_NS: Final = 5_000_000_000
CLOCK_RIGHT_NS: Final = 4_000_000_000  # one that was off is right again from here on
CLOCKS_MIN: Final = 3  # two clocks do not say which of them is wrong
LOOK_S: Final = 1.0
TOLD_S: Final = 5.0  # what a leader said of this member's clock holds so long
FRAME_CLOCK: Final = 11
_OFFSET = struct.Struct("<q")  # ns that the receiver's clock is ahead of the median


class ClusterHealth:
    """One member's look at the others; ``tick`` takes it."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._next_look = 0.0
        self._next_hand_over = 0.0
        self._judged = ""  # cluster version that was compared with ours last
        self._told_ns = 0  # by the leader: how far our clock is ahead of the median
        self._told_until = 0.0
        self._off: frozenset[NodeId] = frozenset()  # in this look at the others
        self._still_off: frozenset[NodeId] = frozenset()  # and in the one before
        self.clock_ahead_ns = 0  # the same while it is too far ahead or behind; else 0

    @property
    def clock_off(self) -> bool:
        """Whether this member's clock is too far from the others' to stamp anything (A1)."""
        return self.clock_ahead_ns != 0

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        self._judge_version()
        self._note_clock(now)
        if self._member.is_leader:
            self._judge_clock(now)
            self._tell_clocks()
            self._raise_version()

    # --- clocks ----------------------------------------------------------------------------------

    def clock_offset_ns(self) -> int:
        """By how much the median of the voters' clocks is ahead of ours; 0: too few are known."""
        offsets = self._offsets()
        return int(median(offsets)) if len(offsets) >= CLOCKS_MIN else 0

    def _clocks_known(self) -> bool:
        return len(self._offsets()) >= CLOCKS_MIN

    def _offsets(self) -> list[int]:
        """Of the voters' clocks from ours, which comes first; as far as they are known."""
        member = self._member
        peers = member.housekeeping.peers
        return [0] + [
            peers[v].clock_offset_ns
            for v in member.machine.conf_state.voters
            if v in peers and member.net.connected(v)
        ]

    def is_off(self, who: NodeId) -> bool:
        """Whether another member's clock is too far from the median, as far as a leader knows.

        By two looks: when our own clock was set, what one member told last may be of before.
        """
        return who in self._still_off

    def _ahead_ns(self, who: NodeId) -> int:
        told = self._member.housekeeping.peers.get(who)
        if told is None or not self._clocks_known():
            return 0
        return told.clock_offset_ns - self.clock_offset_ns()

    def _note_clock(self, now: float) -> None:
        """Tell operators when this member's clock goes wrong, and when it is right again."""
        if self._member.is_leader:
            ahead = -self.clock_offset_ns()
            self._take_word(ahead, now)  # until the next leader has looked twice
        else:
            ahead = self._told_ns if now < self._told_until else 0
        bound = CLOCK_RIGHT_NS if self.clock_off else CLOCK_OFF_NS
        was, self.clock_ahead_ns = self.clock_ahead_ns, ahead if abs(ahead) > bound else 0
        report = self._member.report
        if self.clock_ahead_ns and not was:
            seconds = round(ahead / 1e9, 3)
            report.error("runtime", "this member's clock is far from the others'", seconds=seconds)
        elif was and not self.clock_ahead_ns:
            report.info("runtime", "this member's clock is right again")

    def _tell_clocks(self) -> None:
        """Each member whose clock is off hears it from its leader."""
        member = self._member
        others = [v for v in member.machine.conf_state.voters if v != member.self_id]
        ahead = {who: self._ahead_ns(who) for who in others}
        before, self._off = self._off, frozenset(w for w in others if _far(ahead[w]))
        self._still_off = self._off & before
        for who in others:
            if who in self._still_off:
                member.net.send_frame(who, FRAME_CLOCK, _OFFSET.pack(ahead[who]))

    def on_frame(self, peer: NodeId, body: bytes) -> None:
        """What a leader says of this member's clock.

        Raises:
            DecodeError: malformed; the connection is closed.
        """
        if len(body) != _OFFSET.size:
            raise DecodeError("word on a clock of the wrong length")
        member = self._member
        if peer == member.lead:
            self._take_word(_OFFSET.unpack(body)[0], member.clock.monotonic())

    def _take_word(self, ahead_ns: int, now: float) -> None:
        self._told_ns, self._told_until = ahead_ns, now + TOLD_S

    def _judge_clock(self, now: float) -> None:
        member = self._member
        if not self.clock_off or now < self._next_hand_over:
            return
        timeout = member.config.election_timeout_ms / 1000
        self._next_hand_over = now + limits.HAND_OVER_EVERY_TIMEOUTS * timeout
        member.report.warn("runtime", "leadership is handed over", state="clock")
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


def _far(ahead_ns: int) -> bool:
    """Whether a member is told; it judges for itself when its clock is right again."""
    return abs(ahead_ns) > CLOCK_RIGHT_NS


def _minor(version: str) -> tuple[int, ...]:
    """Major and minor number; empty if it is not known."""
    try:
        return version_numbers(version)[:2] if version else ()
    except InvalidArgumentError:
        return ()
