"""When to campaign earlier than the election timeout says. Pre-vote stays in force throughout.

Two cases are certain enough: nobody has led since this process started although a majority is
connected, and the leader's address refuses connections, so that its process is gone. In the second
case a follower forgets its leader, or it would refuse its vote for the rest of the leader's lease.
Both only cost an election if they are wrong; safety never rests on them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from configsvc.raft.messages import Role
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

QUIET_HEARTBEATS: Final = 2.5  # a leader would have been heard within this many
DELAY_MIN_S: Final = 0.02
DELAY_STEP_S: Final = 0.08  # between the ranks of the survivors, so that they do not split votes
REFUSALS: Final = 2  # dials that must be refused before the process counts as gone


class Elections:
    """Early campaigns of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.leaders_seen = 0  # times that somebody else led than before, the first one included
        self._last_lead = NodeId(0)
        self._ever_led = False
        self._quorum_since: float | None = None
        self._refusals: dict[NodeId, int] = {}
        self._planned = False

    def leadership(self, lead: NodeId) -> None:
        """Somebody leads, or nobody does any more."""
        self.leaders_seen += bool(lead) and lead != self._last_lead
        self._last_lead = lead
        if lead:
            self._ever_led = True
            self._refusals.clear()

    def tick(self) -> None:
        """The first election after a start of the whole cluster."""
        member = self._member
        if self._ever_led or self._planned or member.lead:
            return
        now = member.clock.monotonic()
        if not self._majority_connected():
            self._quorum_since = None
            return
        if self._quorum_since is None:
            self._quorum_since = now
        quiet = QUIET_HEARTBEATS * member.config.heartbeat_interval_ms / 1000
        if now - self._quorum_since >= quiet:
            self._plan()

    def refused(self, peer: NodeId) -> None:
        """The peer's address refuses connections."""
        member = self._member
        if peer != member.lead or member.is_leader or member.stopping:
            return
        count = self._refusals[peer] = self._refusals.get(peer, 0) + 1
        if count < REFUSALS:
            return
        self._refusals.clear()
        member.report.info("raft", "the leader's process is gone", peer=f"{peer:016x}")
        member.machine.raft.forget_leader()
        member.wake()
        self._plan()

    def _plan(self) -> None:
        self._planned = True
        jitter = int.from_bytes(os.urandom(1), "big") / 255 * DELAY_MIN_S
        delay = DELAY_MIN_S + self._rank() * DELAY_STEP_S + jitter
        self._member.loop.call_later(delay, self._campaign)

    def _campaign(self) -> None:
        self._planned = False
        member = self._member
        if member.lead or member.stopping or member.machine.role is not Role.FOLLOWER:
            return
        member.machine.raft.campaign()
        member.wake()

    def _rank(self) -> int:
        """Place among the voters that can be reached, by id: the first campaigns first."""
        member = self._member
        alive = [
            v
            for v in member.machine.conf_state.voters
            if v == member.self_id or member.net.connected(v)
        ]
        return alive.index(member.self_id) if member.self_id in alive else len(alive)

    def _majority_connected(self) -> bool:
        member = self._member
        voters = member.machine.conf_state.voters
        up = sum(v == member.self_id or member.net.connected(v) for v in voters)
        return member.self_id in voters and 2 * up > len(voters)
