"""Every queue of a member has a bound, and it holds (I14).

``BoundChecks`` looks at the queues after everything that a member does, and stands where work goes
from one queue to the next: what is proposed, handed out, sent. ``CheckedApplying`` is the
product's way through apply, which says what it applies, and with how much room.

A bound is what the product promises, to the entry: what one step may add to it is added here too,
and nothing besides. Entries that are alone may be larger than any bound of bytes.

Not here: the queue before a peer's connection (``sim_lanes``), the last line of the history's
writer (``sim_sql``), counters that go back to zero (``sim_world``, I22).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from configsvc import limits
from configsvc.raft.messages import Entry, Message, MessageType, Ready
from configsvc.raft.sizes import retained_bytes
from configsvc.runtime import applying
from configsvc.runtime.applying import Applying
from configsvc.runtime.forwarding import Queued

if TYPE_CHECKING:
    from configsvc.raft.config import RaftConfig
    from configsvc.runtime.member import Member
    from tests.simulation.node.sim_node import Life, Node


class BoundChecks:
    """The queues of all members but those that a part of the simulator stands for."""

    def watch(self, life: Life) -> None:
        """Stand between the core of a member and what feeds it."""
        member = life.member
        proposals, raft = member.proposals, member.machine.raft
        config = raft.raft.config
        take, propose, ready = proposals.take_for_leader, raft.propose, raft.ready

        def taken(time_ns: int, *, urgent_only: bool = False) -> tuple[list[bytes], list[Queued]]:
            commands, batch = take(time_ns, urgent_only=urgent_only)
            if batch:
                _admitted(member, batch)
            return commands, batch

        def proposed(datas: Sequence[bytes]) -> None:
            waited = raft.raft.uncommitted_bytes
            propose(datas)
            now = raft.raft.uncommitted_bytes
            assert not waited or now <= config.max_uncommitted_bytes, f"I14 {now} bytes uncommitted"

        def handed_out() -> Ready:
            out = ready()
            entries = out.committed_entries
            most = config.max_committed_entries_per_ready
            assert len(entries) <= most, f"I14 {len(entries)} entries handed out at once"
            within = _within(entries, config.max_committed_bytes_per_ready)
            assert within, f"I14 {retained_bytes(entries)} bytes handed out at once"
            return out

        proposals.take_for_leader = taken  # type: ignore[method-assign]
        raft.propose = proposed  # type: ignore[method-assign]
        raft.ready = handed_out  # type: ignore[method-assign]

    def look(self, life: Life) -> None:
        """After everything a member does."""
        member = life.member
        proposals = member.proposals
        most = limits.PROPOSALS_WAITING_MAX
        # Urgent ones have twice the room. A member that is asked by others holds as many again.
        assert proposals.waiting <= 2 * most, f"I14 proposals: {proposals.waiting}"
        assert proposals._bytes <= 2 * limits.PROPOSALS_WAITING_BYTES_MAX, "I14 proposals' bytes"
        foreign = len(proposals._foreign)
        assert foreign <= 2 * most, f"I14 proposals of others: {foreign}"
        assert len(proposals._queue) <= proposals.waiting, "I14 queued, and nobody waits for it"
        waiting = member.reads.waiting
        assert waiting <= limits.PENDING_READS_MAX, f"I14 reads: {waiting}"
        core = member.machine.raft.raft
        assert len(core.reads) <= core.config.pending_reads, "I14 reads of the core"

    def sent(self, node: Node, message: Message) -> None:
        """What one append holds, and how much of it is on its way."""
        if message.type is not MessageType.APP or not message.entries or node.life is None:
            return
        core = node.life.member.machine.raft.raft
        within = _within(message.entries, core.config.max_append_bytes)
        assert within, f"I14 {retained_bytes(message.entries)} bytes in one append"
        progress = core.progress.get(message.to)
        if progress is not None and progress.inflights:
            window = progress.inflights
            before = window.bytes - window._window[-1][1]  # the last one may pass the bound
            assert before < window.max_bytes, f"I14 {before} bytes on their way, and one more"


class CheckedApplying(Applying):
    """What one machine applies, and whether it may."""

    __slots__ = ()

    def take(self, entries: Sequence[Entry]) -> None:
        before = self._lag()
        super().take(entries)
        handed_out = self._config.max_committed_entries_per_ready
        # There was room when they were handed out; some may be applied already, the rest is now.
        self._has_room(before, limits.SQL_LAG_ENTRIES_MAX - 1 + handed_out)
        waiting = len(self._waiting)
        most = applying.APPLY_WAITING_ENTRIES_MAX - 1 + handed_out
        assert waiting <= most, f"I14 {waiting} entries wait for apply"
        size = retained_bytes(self._waiting)
        most = applying.APPLY_WAITING_BYTES_MAX - 1 + retained_bytes(entries)
        assert size <= most, f"I14 {size} bytes wait for apply"

    def go_on(self) -> None:
        before, applied, in_pieces = self._lag(), self._machine.applied, self.in_pieces
        if not in_pieces:
            assert self._member.history.has_room(), "I14 applied although the history is full"
        super().go_on()
        most = 1 if in_pieces else applying.READY_ENTRIES_MAX
        now = self._machine.applied - applied
        assert now <= most, f"I14 {now} entries applied at once"
        self._has_room(before, limits.SQL_LAG_ENTRIES_MAX - 1 + most)

    def _has_room(self, before: int, most: int) -> None:
        lag = self._lag()
        assert lag <= max(before, most), f"I14 the history lags {lag} entries"

    def _lag(self) -> int:
        return self._member.history.lag().entries

    @property
    def _config(self) -> RaftConfig:
        return self._machine.raft.raft.config

    @property
    def _member(self) -> Member:
        return cast("Any", self._listener)._member  # type: ignore[no-any-return]


def _admitted(member: Member, batch: list[Queued]) -> None:
    """A leader proposes ``batch``: not more than it hands out at once, and not while it is held."""
    assert len(batch) <= limits.READY_ENTRIES_MAX, f"I14 {len(batch)} entries proposed at once"
    room = 2 if all(queued.urgent for queued in batch) else 1
    behind = member.committed - member.applied
    assert behind < room * limits.APPLY_LAG_ENTRIES_MAX, f"I14 proposed, apply lags {behind}"
    size = retained_bytes(member.machine._applying._waiting)
    assert size < room * limits.APPLY_LAG_BYTES_MAX, f"I14 proposed, {size} bytes wait for apply"
    lag = member.history.lag().entries
    assert 2 * lag < room * limits.SQL_LAG_ENTRIES_MAX, f"I14 proposed, the history lags {lag}"


def _within(entries: Sequence[Entry], most: int) -> bool:
    return len(entries) <= 1 or retained_bytes(entries) <= most
