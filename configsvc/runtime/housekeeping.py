"""What a member does beside answering: cutting the log, holding writes, watching itself.

The log is cut behind what SQL holds durably and behind the slowest follower that still catches up,
up to a byte bound; beyond it such a member gets an install (reliability.md S1).
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from configsvc import limits
from configsvc.apply.state import CORRUPT
from configsvc.errors import ConfigServiceError, DecodeError, ExitCode, FatalError
from configsvc.raft.progress import ProgressState
from configsvc.runtime.cluster_health import FRAME_CLOCK
from configsvc.runtime.disk_health import DiskState
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

FRAME_ENVELOPE: Final = 2
FRAME_DIVERGED: Final = 9
DIGESTS_KEPT: Final = 4_096
ENVELOPE_EVERY_S: Final = 0.1
CUT_EVERY_S: Final = 1.0
_ENVELOPE = struct.Struct("<Q16sQIBI")  # applied, digest, wall ns, SQL lag, disk, its age in ms
_AGE_MS_MAX: Final = 0xFFFFFFFF


class PeerReport(NamedTuple):
    """What a member said of itself last (L6)."""

    applied: int
    clock_offset_ns: int  # its wall clock minus ours, transmission included
    sql_lag: int  # entries
    disk: DiskState
    write_age_ms: int  # of its oldest write that is not synced


class Housekeeping:
    """Background duties of one member; ``tick`` runs them."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._digests: deque[tuple[int, bytes]] = deque(maxlen=DIGESTS_KEPT)
        self._by_index: dict[int, bytes] = {}
        self._next_cut = 0.0
        self._next_envelope = 0.0
        self._next_progress = 0.0
        self._differs: set[int] = set()
        self.peers: dict[int, PeerReport] = {}
        self.stalls_total = 0

    # --- writes ----------------------------------------------------------------------------------

    def hold_writes(self, *, urgent: bool = False) -> bool:
        """Whether SQL or apply lags so far that new proposals wait (Q2, O2).

        ``urgent``: for those that have twice the room.
        """
        member = self._member
        lag = member.history.lag()
        room = 2 if urgent else 1
        return bool(
            2 * lag.entries >= room * limits.SQL_LAG_ENTRIES_MAX
            or 2 * lag.bytes >= room * limits.SQL_LAG_BYTES_MAX
            or member.committed - member.applied >= room * limits.APPLY_LAG_ENTRIES_MAX
            or member.machine.apply_lag_bytes >= room * limits.APPLY_LAG_BYTES_MAX
        )

    def note_digest(self, index: int, digest: bytes) -> None:
        """Remember the digest after ``index`` for comparison with the others (A3)."""
        if len(self._digests) == DIGESTS_KEPT:
            self._by_index.pop(self._digests[0][0], None)
        self._digests.append((index, digest))
        self._by_index[index] = digest

    def installed(self, index: int, digest: bytes) -> None:
        """An install replaced the state: digests before it are not this state's past."""
        self._digests.clear()
        self._by_index.clear()
        self.note_digest(index, digest)

    # --- ticks -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called every raft tick."""
        now = self._member.clock.monotonic()
        if now >= self._next_envelope:
            self._next_envelope = now + ENVELOPE_EVERY_S
            self._send_envelope()
        if now >= self._next_cut:
            self._next_cut = now + CUT_EVERY_S
            self.begin_above_one()
            self._cut_log()
            self._trim_memory()
        if now >= self._next_progress:
            self._next_progress = now + max(0.1, self._member.config.watch_progress_notify_interval)
            self._member.hub.progress()

    def stalled(self, seconds: float) -> None:
        """This process stood still."""
        self.stalls_total += 1
        self._member.report.warn("runtime", "the process stood still", seconds=round(seconds, 3))

    # --- log and memory --------------------------------------------------------------------------

    def _trim_memory(self) -> None:
        self._member.store.trim_tail(self._member.written_revision)

    def _cut_log(self) -> None:
        member = self._member
        log = member.machine.log
        first = log.first_index()
        wanted = self._wanted_cut(first)
        if log.bytes_retained < limits.LOG_RETAINED_BYTES_MAX:
            wanted = min(wanted, self._slowest_match(first), self._install_hold())
        if wanted < first:
            return
        cut = min(wanted, member.history_durable)
        if cut < first:
            member.history.request_checkpoint()
            return
        log.compact(cut)
        member.wal.compact(cut)

    def _wanted_cut(self, first: int) -> int:
        """Up to where the log is longer than it should be (S1); 0: it is not."""
        member = self._member
        log, config = member.machine.log, member.config
        cut = 0
        if member.applied - first >= config.snapshot_count + config.snapshot_catchup_entries:
            cut = member.applied - config.snapshot_catchup_entries
        excess = log.bytes_retained - limits.APPLY_LAG_BYTES_MAX
        if excess > 0:
            gone = log.entries(first, log.last_index() + 1, excess)
            cut = max(cut, min(gone[-1].index, member.applied))
        return cut

    def _slowest_match(self, first: int) -> int:
        """What the slowest follower holds that catches up from the log; leader only."""
        member = self._member
        if not member.is_leader:
            return member.applied
        matches = [
            peer.match
            for peer in member.machine.raft.status().progress.values()
            if peer.recent_active and peer.state is not ProgressState.SNAPSHOT
        ]
        return min((m for m in matches if m >= first - 1), default=member.applied)

    def _install_hold(self) -> int:
        hold = self._member.installs.sender.hold()
        return self._member.applied if hold is None else hold

    def begin_above_one(self) -> None:
        """Let go of the first entry, so that a member without any state is always installed.

        The configuration that a cluster was born with is in no entry: who starts from nothing must
        not begin with the first one. The files keep it as long as they like.
        """
        member = self._member
        log = member.machine.log
        if log.first_index() > 1 or member.applied < 1:
            return
        if member.history_durable >= 1:
            log.compact(1)
        else:
            member.history.request_checkpoint()

    # --- the others ------------------------------------------------------------------------------

    def _send_envelope(self) -> None:
        member = self._member
        lead = member.lead
        if not lead or lead == member.self_id or not self._digests:
            return
        index, digest = self._digests[-1]
        lag = member.history.lag().entries
        age_ms = min(int(member.disk.age_s * 1000), _AGE_MS_MAX)
        body = _ENVELOPE.pack(index, digest, member.time_ns(), lag, member.disk.state, age_ms)
        member.net.send_frame(lead, FRAME_ENVELOPE, body)

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> bool:
        """Frames of this room; False: not one of them."""
        if kind == FRAME_ENVELOPE:
            if len(body) != _ENVELOPE.size:
                raise DecodeError("envelope of the wrong length")
            index, digest, wall, lag, disk, age_ms = _ENVELOPE.unpack(body)
            if disk not in DiskState._value2member_map_:
                raise DecodeError("envelope with an unknown state of the disk")
            offset = wall - self._member.time_ns()
            self.peers[peer] = PeerReport(index, offset, lag, DiskState(disk), age_ms)
            self._compare(peer, index, digest)
            return True
        if kind == FRAME_CLOCK:
            self._member.cluster_health.on_frame(peer, body)
            return True
        if kind == FRAME_DIVERGED:
            self._told_diverged(body)
            return True
        return False

    def _compare(self, peer: NodeId, index: int, digest: bytes) -> None:
        own = self._by_index.get(index)
        member = self._member
        if own is None or not member.is_leader:
            return
        if own == digest:
            self._differs.discard(peer)
            return
        self._differs.add(peer)
        member.report.error("apply", "a member's results differ", peer=f"{peer:016x}", index=index)
        voters = member.machine.conf_state.voters
        agree = len([v for v in voters if v not in self._differs])
        if 2 * agree > len(voters):
            member.net.send_frame(peer, FRAME_DIVERGED, struct.pack("<Q16s", index, own))
        else:
            with contextlib.suppress(ConfigServiceError):  # the next envelope tries again
                member.raise_alarm(CORRUPT)

    def _told_diverged(self, body: bytes) -> None:
        if len(body) != 24:
            raise DecodeError("divergence notice of the wrong length")
        index, digest = struct.unpack("<Q16s", body)
        own = self._by_index.get(index)
        if own is not None and own != digest:
            self._member.die(
                FatalError(
                    ExitCode.DIVERGED,
                    f"results differ from the majority's at entry {index}",
                    "replace this member; keep its directory for inspection",
                )
            )
