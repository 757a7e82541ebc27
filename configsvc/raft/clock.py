"""What happens as ticks go by. A tick has no length here; the shell gives it one."""

from __future__ import annotations

from configsvc.raft import election, reads
from configsvc.raft.messages import Role
from configsvc.raft.sending import broadcast_heartbeat
from configsvc.raft.state import NOBODY, Raft


def tick(raft: Raft) -> None:
    """One tick has passed."""
    if raft.role is Role.LEADER:
        _tick_leader(raft)
    else:
        _tick_others(raft)


def beat(raft: Raft) -> None:
    """Send heartbeats now; reads that wait for the next round go with them."""
    reads.on_beat(raft)
    broadcast_heartbeat(raft)


def _tick_others(raft: Raft) -> None:
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.randomized_timeout and raft.promotable():
        raft.election_elapsed = 0
        election.start(raft)


def _tick_leader(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            election.check_quorum(raft)
        raft.transferee = NOBODY  # a target that has not taken over by now will not
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        beat(raft)
