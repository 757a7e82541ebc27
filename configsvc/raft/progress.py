"""What a leader believes about one peer: how far its log matches, and what is under way to it.

Always true:
  * ``match < next``: everything up to ``match`` is durable on the peer, ``next`` is sent next.
  * Probe: at most one message with entries is under way. Replicate: as many as the window holds.
    Snapshot: none.
  * The window is emptied on every change of state, in messages and in bytes.

Not here: when to send (``raft.sending``), what an answer means (``raft.replication``).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from configsvc.errors import ensure


class ProgressState(Enum):
    PROBE = "StateProbe"  # where the logs part is not known yet
    REPLICATE = "StateReplicate"  # optimistic: entries stream, acknowledgements follow
    SNAPSHOT = "StateSnapshot"  # waiting until the peer has installed one


class Inflights:
    """Messages with entries that a replicating peer has not acknowledged, oldest first."""

    __slots__ = ("_window", "bytes", "max_bytes", "max_messages")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0  # payload bytes of everything in the window
        self._window: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._window)

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent. The last message may have passed the byte bound."""
        return len(self._window) >= self.max_messages or self.bytes >= self.max_bytes

    def add(self, last_index: int, size: int) -> None:
        """Note a message whose last entry is ``last_index`` and whose payloads have ``size``."""
        ensure(len(self._window) < self.max_messages, "no room in the inflight window")
        self._window.append((last_index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Forget the messages that end at or below ``index``."""
        window = self._window
        while window and window[0][0] <= index:
            self.bytes -= window.popleft()[1]

    def clear(self) -> None:
        self._window.clear()
        self.bytes = 0


class Progress:
    """One peer as its leader sees it. The leader's own progress follows its own durable log."""

    __slots__ = (
        "flow_paused",
        "inflights",
        "is_learner",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next_index: int, inflights: Inflights, *, is_learner: bool) -> None:
        ensure(next_index > 0, "there is no entry 0 to send")
        self.match = 0
        self.next = next_index
        self.sent_commit = 0  # commit index the peer has been told in the last message
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0  # its index while in SNAPSHOT, else 0
        self.recent_active = False  # heard from since the last quorum check
        self.flow_paused = False
        self.inflights = inflights
        self.is_learner = is_learner

    def copy(self, *, is_learner: bool) -> Progress:
        """The same progress under a new configuration; the window is shared, not copied."""
        twin = Progress(self.next, self.inflights, is_learner=is_learner)
        twin.match, twin.sent_commit, twin.state = self.match, self.sent_commit, self.state
        twin.pending_snapshot, twin.recent_active = self.pending_snapshot, self.recent_active
        twin.flow_paused = self.flow_paused
        return twin

    @property
    def paused(self) -> bool:
        """Whether entries may not be sent now."""
        return self.flow_paused or self.state is ProgressState.SNAPSHOT

    def can_bump_commit(self, commit: int) -> bool:
        """Whether the peer may not know ``commit`` yet and a message could tell it."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def become_probe(self) -> None:
        # A snapshot that was sent has probably been installed: probe from behind it.
        from_index = max(self.match, self.pending_snapshot)
        self._enter(ProgressState.PROBE)
        self.next = from_index + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def _enter(self, state: ProgressState) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    def sent_entries(self, count: int, size: int) -> None:
        """Account for one append of ``count`` entries from ``next`` on, ``size`` payload bytes."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # Even an empty append pauses a full window: the next heartbeat answer lifts it.
            self.flow_paused = self.inflights.full
        else:
            ensure(
                self.state is ProgressState.PROBE, "entries sent to a peer that awaits a snapshot"
            )
            if count:
                self.flow_paused = True

    def acknowledge(self, index: int) -> bool:
        """The peer matches up to ``index``; whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def reject(self, asked: int, hint: int) -> bool:
        """The peer refused an append behind ``asked``; whether the answer is not a stale one.

        ``hint`` is where the logs may meet. After True the caller probes from ``next``.
        """
        if self.state is ProgressState.REPLICATE:
            if asked <= self.match:
                return False  # of an older message: the peer has acknowledged more since
            self.next = self.match + 1
        else:
            if asked != self.next - 1:
                return False  # not the answer to the probe under way
            self.next = max(min(asked, hint + 1), self.match + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True
