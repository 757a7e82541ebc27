"""The member's tick: who is called how often, and what a stall of this process means.

Always true: a tick never runs ahead of messages that arrived during a stall (H2), because our own
pause must not look like the others' silence.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

STALL_TICKS: Final = 3  # a timer this late means that the process stood still (H2)
LEADERLESS_ELECTIONS: Final = 3  # election timeouts after which streams that need a leader end


class Timing:
    """One timer for everything periodic in a member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._last_tick = member.clock.monotonic()
        self._handle: asyncio.TimerHandle | None = None
        self._leader_lost_at: float | None = None

    def start(self) -> None:
        member = self._member
        self._last_tick = member.clock.monotonic()
        self._handle = member.loop.call_later(member.config.tick, self._on_timer)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def leadership(self, lead: NodeId) -> None:
        """The leader changed; 0: there is none."""
        self._leader_lost_at = None if lead else self._member.clock.monotonic()

    def _on_timer(self) -> None:
        member = self._member
        now = member.clock.monotonic()
        tick = member.config.tick
        late = now - self._last_tick - tick
        self._last_tick = now
        self._handle = member.loop.call_later(tick, self._on_timer)
        if late > STALL_TICKS * tick:
            # First what arrived meanwhile, then at most one tick.
            member.leases.stalled(late)
            member.housekeeping.stalled(late)
            member.loop.call_later(tick / 10, self._tick)
            return
        self._tick()

    def _tick(self) -> None:
        member = self._member
        now = member.clock.monotonic()
        member.machine.raft.tick()
        member.lost_leader.tick()
        member.proposals.sweep()
        member.reads.sweep()
        member.calls.sweep()
        member.leases.tick()
        member.installs.tick(now)
        member.housekeeping.tick()
        member.disk.tick(now)
        member.cluster_health.tick(now)
        member.memory.tick(now)
        member.membership.tick(now)
        member.audit.tick()
        member.publishing.tick()
        member.checkpoints.tick(now)
        member.elections.tick()
        member.handover.tick()
        self._check_leader(now)
        member.wake()

    def _check_leader(self, now: float) -> None:
        lost = self._leader_lost_at
        member = self._member
        if lost is None or not member.streams:
            return
        if now - lost > LEADERLESS_ELECTIONS * member.config.election_timeout_ms / 1000:
            for stream in [s for s in member.streams if s.needs_leader]:
                stream.leader_lost()
