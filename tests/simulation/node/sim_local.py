"""The member-local audit stream: what it holds on disk, and its writer in virtual time.

The stream's database syncs before it says so; what it has not said may be gone after a crash.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from configsvc.audit.merkle import Frontier
from configsvc.limits import LOCAL_QUEUE_RECORDS_MAX
from configsvc.storage.local.messages import LocalHead
from configsvc.storage.local.writer import LocalItem

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node


class SimLocal:
    """The file."""

    def __init__(self) -> None:
        self.tree = Frontier()
        self.time_ns = 0
        self.actors: list[tuple[bytes, bytes]] = []
        self.mark = "0" * 16

    @property
    def head(self) -> LocalHead:
        size, roots = self.tree.state()
        return LocalHead(size, tuple(roots), self.time_ns)

    def known_actors(self) -> list[tuple[bytes, bytes]]:
        return list(self.actors)

    def append(self, item: LocalItem) -> None:
        assert item.record.seq == self.tree.size, "the local stream has no gaps"
        self.tree.append(item.record.leaf)
        self.time_ns = item.time_ns
        if item.actor is not None:
            self.actors.append((item.actor.record, item.actor.hash))


class SimLocalWriter:
    """The face of ``LocalWriter``."""

    def __init__(self, node: Node, life: Life) -> None:
        self.store = node.local
        self._node = node
        self._life = life
        self._queue: deque[LocalItem] = deque()
        self._busy = False

    @property
    def takes(self) -> bool:
        return len(self._queue) < LOCAL_QUEUE_RECORDS_MAX

    def submit(self, item: LocalItem) -> None:
        self._queue.append(item)
        if not self._busy:
            self._busy = True
            self._life.thread(self._node.sql_latency(), self._write)

    def _write(self) -> None:
        while self._queue:
            self.store.append(self._queue.popleft())
        self._busy = False
        self._life.post(0, self._life.member.audit.on_durable, self.store.tree.size)

    def close(self, timeout_s: float) -> bool:
        return True
