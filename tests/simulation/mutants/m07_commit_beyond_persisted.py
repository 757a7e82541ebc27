"""#7 A heartbeat moves the commit index past what the follower is known to hold."""

from __future__ import annotations

from configsvc.raft import dispatch, replication, sending
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from configsvc.types import LogIndex
from tests.simulation.mutants.plant import Patch

SWARM = {"members": 3, "slow_disks": 0.3, "partitions": 0.6, "kills": 0.2, "lossy": 0.3}


def plant(patch: Patch) -> None:
    heartbeats = sending.broadcast_heartbeat

    def full(raft: Raft) -> None:
        sent = len(raft.outbox)
        heartbeats(raft)
        commit = LogIndex(raft.log.committed)
        raft.outbox[sent:] = [
            m._replace(commit=commit) if m.type is MessageType.HEARTBEAT else m
            for m in raft.outbox[sent:]
        ]

    def trusting(raft: Raft, message: Message) -> None:
        commit = LogIndex(min(message.commit, raft.log.last_index))
        replication.take_heartbeat(raft, message._replace(commit=commit))

    from configsvc.raft import clock, reads

    for module in (sending, clock, reads):
        if hasattr(module, "broadcast_heartbeat"):
            patch.attribute(module, "broadcast_heartbeat", full)
    patch.item(dispatch._FOLLOWER, MessageType.HEARTBEAT, dispatch._follow(trusting))
