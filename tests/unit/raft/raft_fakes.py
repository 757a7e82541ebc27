"""Small groups of cores for unit tests: everything written, sent and applied at once."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.config import RaftConfig, product_config
from configsvc.raft.errors import PeerNotFound
from configsvc.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    ReadState,
)
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, NodeId, Term

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def entry(term: int, index: int, data: bytes = b"", kind: int = EntryKind.NORMAL) -> Entry:
    return Entry(Term(term), LogIndex(index), kind, data)


def config(member: int = 1, **changes: object) -> RaftConfig:
    """The product's settings with some changed."""
    base = product_config(NodeId(member), election_ticks=10, heartbeat_ticks=1)
    # Nobody here has a clock to tell commits by.
    return replace(base, **{"tell_commits": True, **changes})  # type: ignore[arg-type]


def voters(count: int) -> ConfState:
    return ConfState(voters=tuple(NodeId(i) for i in range(1, count + 1)))


class Group:
    """Cores joined by a perfect network; ``sent`` keeps what left since the last look."""

    def __init__(self, count: int = 3, *, seed: int = 0, **changes: object) -> None:
        self.logs = {NodeId(i): MemoryLog() for i in range(1, count + 1)}
        self.cores = {
            member: RawNode(
                config(member, **changes),
                log,
                random.Random(seed + member),
                hard_state=HardState(),
                conf_state=voters(count),
            )
            for member, log in self.logs.items()
        }
        self.cut: set[NodeId] = set()
        self.sent: list[Message] = []
        self.applied: dict[NodeId, list[Entry]] = {member: [] for member in self.cores}
        self.reads: list[ReadState] = []

    def lead(self, member: NodeId = ONE) -> RawNode:
        """Make ``member`` leader; what went over the network is forgotten."""
        for other in self.cores.values():
            other.forget_leader()  # else the lease of an earlier leader would protect it
        self.cores[member].campaign()
        self.settle()
        self.sent.clear()
        return self.cores[member]

    def work(self, member: NodeId) -> list[Message]:
        """One Ready of one member."""
        core, log = self.cores[member], self.logs[member]
        ready = core.ready()
        if ready.hard_state is not None:
            log.set_hard_state(ready.hard_state)
        if ready.snapshot is not None:
            log.apply_snapshot(ready.snapshot)
        log.append(ready.entries)
        for committed in ready.committed_entries:
            self.applied[member].append(committed)
            if committed.kind != EntryKind.NORMAL:
                core.apply_conf_change(decode_conf_change(committed.data))
        self.reads += ready.read_states
        core.advance()
        return list(ready.messages)

    def settle(self) -> None:
        """Until nobody has anything to do."""
        busy = True
        while busy:
            busy = False
            flight: list[Message] = []
            for member, core in self.cores.items():
                if core.has_ready():
                    busy = True
                    flight += self.work(member)
            self.sent += flight
            for message in flight:
                if message.to in self.cores and not {message.to, message.from_} & self.cut:
                    with suppress(PeerNotFound):  # removed members answer, too
                        self.cores[message.to].step(message)
