"""What callers are told whose leader went away while they waited.

A change of leader fails at once what was handed to the earlier one (``following``). Two cases come
before, or without, such a change. A leader that stands still is silent long before another is
elected: after an election timeout nobody waits for it any more, and nothing more is sent to it. And
what was on a connection that broke may never have arrived although the leader goes on: a write
without an answer an election timeout later is told as lost with the connection.

Always true: nothing that was handed on is told as "not done"; what still waits here goes to the
next leader.

Not here: who waits (``proposals``, ``reads``, ``rpc``), elections (``raft``, ``elections``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configsvc.errors import (
    ConfigServiceError,
    RequestTimeoutError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
)
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member


class LostLeader:
    """One member's leader, as its callers see it."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._lead = NodeId(0)
        self._lost_at = -1.0  # when a leader was last lost; below 0: never
        self._silent = False

    @property
    def silent(self) -> bool:
        """Whether the leader has not been heard for an election timeout."""
        silent: bool = self._member.machine.raft.leader_silent
        return silent

    def leadership(self, lead: NodeId) -> None:
        """Somebody leads, or nobody does."""
        before, self._lead = self._lead, lead
        self._silent = False
        if before and before != lead:
            self._lost_at = self._member.clock.monotonic()
            self._member.calls.leader_lost(before)

    def connection_lost(self, peer: NodeId) -> None:
        """A connection to ``peer`` broke."""
        if peer == self._lead:
            self._member.proposals.connection_lost()

    def tick(self) -> None:
        """Called every raft tick."""
        silent = self.silent
        if silent and not self._silent:
            member = self._member
            member.report.warn("raft", "the leader is silent", peer=f"{self._lead:016x}")
            self._lost_at = member.clock.monotonic()
            member.proposals.leadership_changed()
            member.reads.leadership_changed()
            member.calls.leader_lost(self._lead)
        self._silent = silent

    def why_late(self, since: float) -> ConfigServiceError:
        """What to tell whoever has waited in vain since then (monotonic seconds)."""
        if since <= self._lost_at:
            return TimeoutDueToLeaderFailError()
        member = self._member
        if member.is_leader:
            connected = self._quorum_since(since)
        else:
            connected = not self._lead or self._connected_since(self._lead, since)
        return RequestTimeoutError() if connected else TimeoutDueToConnectionLostError()

    def _quorum_since(self, since: float) -> bool:
        member = self._member
        voters = member.machine.conf_state.voters
        there = [v for v in voters if v == member.self_id or self._connected_since(v, since)]
        return 2 * len(there) > len(voters)

    def _connected_since(self, peer: NodeId, since: float) -> bool:
        up_since = self._member.net.active_since(peer)
        return up_since is not None and up_since <= since
