"""The log's writer thread on a simulated disk: the real ``Wal`` in virtual time.

One frame is under way at a time; it is written at once and synced when the disk is done, so that a
crash in between finds it in the page cache and a power loss finds any part of it. What is durable
is written down here, apart from the product, so that promises can be checked against it when they
leave (I8) and against what a restart finds.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from configsvc import limits
from configsvc.errors import ExitCode, FatalError
from configsvc.raft.messages import HardState
from configsvc.raft.storage import MemoryLog
from configsvc.storage.wal.format import FrameKind, Installed, encode_installed
from configsvc.storage.wal.wal import Wal
from configsvc.storage.wal.writer import Submission
from tests.simulation.node.sim_disk_checks import check_names, check_step
from tests.simulation.node.sim_kernel import MS, S
from tests.support.simdisk import Image, Op, SimDisk, State, name_op

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node

FRAME_AT_ONCE = 2_000  # larger writes are made whole when the disk is done, in as many frames
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class NodeDisk(SimDisk):
    """A disk that can be full: what exists can be overwritten, nothing new can be made; or
    read-only, where nothing can be done at all.
    """

    def __init__(self, image: Image | None = None) -> None:
        super().__init__(image, record=False)
        self.full = False
        self.read_only = False

    def do(self, op: Op) -> None:
        if self.read_only:
            self.done += 1
            raise OSError(errno.EROFS, "the simulated file system is read-only")
        if self.full and self._needs_space(op):
            self.done += 1
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        check_step(self.state, op)
        super().do(op)
        if op.kind not in ("write", "sync"):
            check_names(self.state)

    def _needs_space(self, op: Op) -> bool:
        if op.kind == "write":
            return op.offset + len(op.data) > len(self.state.inodes[op.inode].live)
        return op.kind == "create"

    def free_bytes(self) -> int:
        return 0 if self.full else self.free


class Durable:
    """What the log surely holds after a power loss, as its own syncs say."""

    def __init__(self) -> None:
        self.hard = HardState()
        self.base = 0  # everything up to here is in the state machine's checkpoint
        self.terms: dict[int, int] = {}  # index -> term
        self.last = 0

    def frame(self, hard: HardState, first: int, terms: list[int]) -> None:
        self.hard = hard
        if not terms:
            return
        for gone in range(first + len(terms), self.last + 1):
            self.terms.pop(gone, None)
        for offset, term in enumerate(terms):
            self.terms[first + offset] = term
        self.last = first + len(terms) - 1

    def recovered(self, hard: HardState, log: MemoryLog) -> None:
        """A start copies what it found into a fresh segment before it promises anything."""
        first, last = log.first_index(), log.last_index()
        self.hard = hard
        self.base = max(self.base, first - 1)
        self.terms = {index: log.term(index) for index in range(first, last + 1)}
        if first > 1:
            self.terms[first - 1] = log.term(first - 1)
        self.last = last

    def holds(self, index: int, term: int) -> bool:
        return index < self.base or self.terms.get(index) == term

    def installed(self, hard: HardState, installed: Installed) -> None:
        self.hard = hard
        self.terms.clear()
        self.base = self.last = installed.index
        self.terms[installed.index] = installed.term


class SimLogWriter:
    """The face of ``WalWriter``."""

    def __init__(self, node: Node, life: Life, wal: Wal) -> None:
        self._node = node
        self._life = life
        self._wal = wal
        self._waiting: deque[Submission] = deque()
        self._terms: deque[list[int]] = deque()
        self._current: Submission | None = None
        self._written = False
        self._compact_to = 0
        self._jobs: deque[Callable[[Wal], object]] = deque()
        self._seal_planned = False
        self._began = 0
        self._space = True
        self.frames_total = 0
        self.sync_seconds_last = 0.0

    # --- the loop's side --------------------------------------------------------------------------

    def submit(self, hard: HardState, first: int, count: int, records: bytes, token: int) -> None:
        log = self._life.log
        terms = [log.term(i) for i in range(first, first + count)] if count else []
        if count:
            entries = log.entries(first, first + count, 2**63)
            self._life.checks.logged(entries, log.term(first - 1))
        self._put(Submission(hard, first, count, records, token, None, self._now()), terms)

    def submit_installed(self, hard: HardState, installed: Installed, token: int) -> None:
        self._put(Submission(hard, 0, 0, b"", token, installed, self._now()), [])

    def compact(self, up_to: int) -> None:
        self._compact_to = max(self._compact_to, up_to)
        if self._current is None:
            self._life.thread(MS, self._idle)

    def run_job(self, job: Callable[[Wal], object]) -> bool:
        """Between frames; as often as not right before the next one."""
        self._jobs.append(job)
        self._life.thread(MS, self._idle)
        return True

    def oldest_unsynced_age(self, now: float) -> float:
        waiting = self._current or (self._waiting[0] if self._waiting else None)
        return max(0.0, now - waiting.since) if waiting is not None else 0.0

    def _now(self) -> float:
        return float(self._life.clock.monotonic())

    def _put(self, asked: Submission, terms: list[int]) -> None:
        self._life.crash_point()
        self._waiting.append(asked)
        self._terms.append(terms)
        if self._current is None:
            self._begin()

    # --- the thread's side ------------------------------------------------------------------------

    def _begin(self) -> None:
        asked = self._current = self._waiting.popleft()
        self._began = self._node.kernel.now
        self._written = False
        if len(asked.records) <= FRAME_AT_ONCE:
            self._written = True
            self._guarded(self._write, asked)
        self._life.disk(self._node.disk_latency(), self._finish)

    def _write(self, asked: Submission) -> None:
        if asked.installed is not None:
            payload = encode_installed(asked.installed)
            self._wal.write_frame(FrameKind.INSTALLED, asked.hard_state, 0, 0, payload)
        else:
            self._wal.write_frame(
                FrameKind.ENTRIES, asked.hard_state, asked.first_index, asked.count, asked.records
            )

    def _finish(self) -> None:
        asked = self._current
        assert asked is not None
        if self._written:
            self._guarded(self._wal.sync)
        else:
            self._guarded(
                self._wal.append, asked.hard_state, asked.first_index, asked.count, asked.records
            )
        self._current = None
        terms = self._terms.popleft()
        durable = self._node.durable
        if asked.installed is not None:
            durable.installed(asked.hard_state, asked.installed)
        else:
            durable.frame(asked.hard_state, asked.first_index, terms)
        self.frames_total += 1
        self.sync_seconds_last = (self._node.kernel.now - self._began) / S
        self._life.post(0, self._life.on_durable, asked.token)
        if self._waiting:
            self._begin()
        else:
            self._idle()

    def _idle(self) -> None:
        """What the thread does while nobody waits: removal, the next segment, the seal."""
        if self._current is not None:
            return
        if self._compact_to:
            up_to, self._compact_to = self._compact_to, 0
            self._life.checks.let_go(self._life, up_to)
            self._guarded(self._wal.compact, up_to)
        elif self._jobs:
            self._guarded(self._jobs.popleft(), self._wal)
        if not (self._wal.spare_ready and self._space):
            self._guarded(self._prepare)
        if not self._seal_planned:
            self._seal_planned = True
            self._life.disk(int(limits.WAL_SEAL_IDLE_S * 1000) * MS, self._seal)

    def _prepare(self) -> None:
        try:
            while self._wal.prepare_step():
                pass
            self._tell_space(True)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._tell_space(False)

    def _tell_space(self, ok: bool) -> None:
        if ok is not self._space:
            self._space = ok
            self._life.post(0, self._life.member.disk.log_space, ok)
            if not ok:
                self._node.world.count("no space for a segment")
        if not ok:
            self._life.thread(int(limits.WAL_SPACE_RETRY_S * S), self._idle)

    def _seal(self) -> None:
        self._seal_planned = False
        if self._current is None:
            self._guarded(self._wal.seal_idle)

    def _guarded(self, work: Any, *args: Any) -> None:
        try:
            work(*args)
        except OSError as error:
            self._life.end(
                FatalError(ExitCode.STORAGE, f"storage error: {error}", "repair the disk")
            )


def power_loss(state: State, rng: Random) -> Image:
    """One of the directories that a power loss in ``state`` may leave."""
    names = dict(state.durable)
    pending = state.pending
    if pending:
        keep = rng.choice(("none", "all", "prefix", "some"))
        if keep == "prefix":
            pending = pending[: rng.randrange(len(pending) + 1)]
        elif keep == "some":
            pending = [op for op in pending if rng.random() < 0.5]
        elif keep == "none":
            pending = []
        for op in pending:
            name_op(names, op)
    content: dict[int, bytes] = {}
    for number in sorted(set(names.values())):
        inode = state.inodes[number]
        dirty = sorted(inode.dirty)
        how = rng.choice(("none", "all", "some", "torn"))
        if not dirty or how == "none":
            content[number] = inode.durable
        elif how == "all":
            content[number] = inode.with_sectors(dirty)
        elif how == "torn":
            content[number] = inode.with_sectors(dirty[: rng.randrange(len(dirty) + 1)])
        else:
            content[number] = inode.with_sectors([s for s in dirty if rng.random() < 0.5])
    return {name: content[number] for name, number in names.items()}


def after_power_loss(disk: NodeDisk, rng: Random) -> NodeDisk:
    """The disk that the next start finds."""
    fresh = NodeDisk(power_loss(disk.state, rng))
    fresh.full, fresh.read_only = disk.full, disk.read_only
    return fresh
