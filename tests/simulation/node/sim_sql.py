"""A model of the history database: a transactional log of batches, committed and durable apart.

One ``SqlFile`` is one generation. A batch is one transaction: all of it is there, or nothing. A
process crash keeps what was committed; a power loss may take back any number of the newest batches
that no checkpoint made durable, never one from the middle. Readers see what is committed.

Here too: the writer that gathers batches, the reader, and both ends of an install, each with the
face that ``runtime`` knows. Not here: SQL. The real tables have their own tests.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from configsvc import limits
from configsvc.apply.commands import Effects
from configsvc.apply.digest import GENESIS
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.merkle import Frontier, leaf_hash, node_hash
from configsvc.audit.proofs import NodeReader
from configsvc.errors import ConfigServiceError, DecodeError, ensure
from configsvc.mvcc.messages import Event, KeyValue, Row
from configsvc.storage.history.messages import Actor, EventPage, Lag, Meta, StoreIdentity
from configsvc.storage.local.heads import Head
from configsvc.storage.snapshot.sink import Installed
from configsvc.types import KeySpan

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node


class Batch(NamedTuple):
    effects: tuple[Effects, ...]
    conf_state: bytes | None  # None: unchanged


class SqlState:
    """What a sequence of batches amounts to."""

    def __init__(self) -> None:
        self.applied = 0
        self.term = 0
        self.revision = 1
        self.digest = GENESIS
        self.conf_state = b""
        self.time_ns = 0
        self.live: dict[bytes, Row] = {}
        self.rows: list[tuple[Row, KeyValue | None]] = []
        self.revisions: list[int] = []  # of ``rows``, for searching
        self.tables: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {}
        self.tree = Frontier()
        self.leaves: list[bytes] = []  # their hashes
        self._nodes: dict[tuple[int, int], bytes] = {}
        self.actors: list[Actor] = []

    def take(self, batch: Batch) -> None:
        first = batch.effects[0].index
        assert first == self.applied + 1, f"I9 batch {first} behind {self.applied}"
        for effect in batch.effects:
            self._one(effect)
        last = batch.effects[-1]
        self.applied, self.term, self.digest = last.index, last.term, last.digest
        self.revision = last.revision
        if batch.conf_state is not None:
            self.conf_state = batch.conf_state

    def _one(self, effect: Effects) -> None:
        for row, prev in zip(effect.rows, effect.prevs, strict=True):
            self.rows.append((row, prev))
            self.revisions.append(row.revision)
            if row.tombstone:
                self.live.pop(row.key, None)
            else:
                self.live[row.key] = row
        for change in effect.tables:
            table = self.tables.setdefault(change.table, {})
            if change.row is None:
                table.pop(change.key, None)
            else:
                table[change.key] = change.row
        commit = effect.commit
        if commit is not None:
            assert commit.seq == self.tree.size, "leaves follow each other"
            self.tree.append(effect.leaf)
            self.leaves.append(leaf_hash(effect.leaf))
            self.time_ns = max(self.time_ns, commit.time_ns)
            if commit.actor_record:
                self.actors.append(
                    Actor(commit.actor, commit.actor_record, commit.actor_salt, commit.seq)
                )

    def node(self, level: int, number: int) -> bytes:
        """Hash of a complete subtree of the audit tree."""
        if not level:
            return self.leaves[number]
        found = self._nodes.get((level, number))
        if found is None:
            left, right = self.node(level - 1, 2 * number), self.node(level - 1, 2 * number + 1)
            found = self._nodes[level, number] = node_hash(left, right)
        return found


class SqlFile:
    """One generation's file. Also the face of ``storage.history.History`` for a start."""

    def __init__(self, generation: int, identity: StoreIdentity) -> None:
        self.generation = generation
        self.identity = identity
        self.batches: list[Batch] = []
        self.durable_batches = 0
        self.state = SqlState()
        self.complete = True  # False while an install fills it

    @property
    def path(self) -> SqlFile:
        return self

    def commit(self, batch: Batch) -> None:
        self.state.take(batch)
        self.batches.append(batch)

    def checkpoint(self) -> int:
        """Everything committed is durable now; the applied index of it."""
        self.durable_batches = len(self.batches)
        return self.state.applied

    @property
    def durable(self) -> int:
        """Applied index that a power loss leaves at the least."""
        if not self.durable_batches:
            return 0
        return self.batches[self.durable_batches - 1].effects[-1].index

    def lose(self, keep: int) -> None:
        """A power loss: only the first ``keep`` batches are still there."""
        ensure(keep >= self.durable_batches, "a checkpoint is durable")
        if keep == len(self.batches):
            self.durable_batches = keep
            return
        del self.batches[keep:]
        self.durable_batches = keep
        self.state = SqlState()
        for batch in self.batches:
            self.state.take(batch)

    # --- what a start and an install read ---------------------------------------------------------

    def meta(self) -> Meta:
        s = self.state
        return Meta(
            s.applied,
            s.term,
            s.revision,
            s.conf_state,
            s.digest,
            s.tree.size,
            1,
            self.generation,
            self.identity,
        )

    def load_live(self) -> Iterator[Row]:
        return iter([self.state.live[key] for key in sorted(self.state.live)])

    def load_live_slices(self) -> Iterator[list[Row]]:
        rows = list(self.load_live())
        return (rows[at : at + 64] for at in range(0, len(rows), 64))

    def load_tables(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            name: [(*key, *row) for key, row in sorted(table.items())]
            for name, table in self.state.tables.items()
        }

    def load_tree(self) -> tuple[int, tuple[bytes, ...]]:
        return self.state.tree.state()

    def load_actors(self) -> list[Actor]:
        return list(self.state.actors)

    def last_time_ns(self) -> int:
        return self.state.time_ns

    def window_bytes(self, floor: int, row_bytes: int) -> int:
        return sum(
            row_bytes + len(row.key) + len(row.value)
            for row, _ in self.state.rows[bisect_right(self.state.revisions, floor) :]
        )


class SimReader:
    """The face of ``HistoryReader``, as far as runtime asks."""

    def __init__(self, file: SqlFile, *_: Any) -> None:
        self.file = file

    def events(
        self, span: KeySpan | None, from_revision: int, to_revision: int, limit_revisions: int
    ) -> EventPage:
        state = self.file.state
        last = min(to_revision, state.revision)
        start = bisect_left(state.revisions, from_revision)
        groups: list[tuple[int, list[Event]]] = []
        for row, prev in state.rows[start:]:
            if row.revision > last:
                break
            if span is not None and not span.holds(row.key):
                continue
            if not groups or groups[-1][0] != row.revision:
                if len(groups) == limit_revisions:
                    return EventPage(groups, groups[-1][0])
                groups.append((row.revision, []))
            groups[-1][1].append(Event(row, prev))
        return EventPage(groups, last)

    @contextmanager
    def tree(self) -> Iterator[NodeReader]:
        yield self.file.state.node

    def close(self) -> None:
        return


class SimHistoryWriter:
    """The face of ``HistoryWriter``: gathers, commits after a while, checkpoints now and then."""

    def __init__(self, node: Node, life: Life, file: SqlFile) -> None:
        self._node = node
        self._life = life
        self.file = file
        self._pending: deque[tuple[Effects, bytes | None, float]] = deque()
        self._writing = 0  # entries in the transaction under way
        self._asked = False
        self._scheduled = False
        self._checkpoint_at = 0
        self.closed = False
        self.durable_index = file.durable

    def start(self) -> None:
        self._plan_checkpoint()

    def submit(self, effects: Sequence[Effects], conf_state: bytes | None = None) -> None:
        now = self._life.clock.monotonic()
        self._life.checks.applied(self._node, self._life, effects)
        for effect in effects[:-1]:
            self._pending.append((effect, None, now))
        self._pending.append((effects[-1], conf_state, now))
        assert len(self._pending) <= limits.SQL_LAG_ENTRIES_MAX + 512, "I14 history lag"
        self._schedule(self._node.sql_linger())

    def has_room(self) -> bool:
        lag = len(self._pending)
        return lag < limits.SQL_LAG_ENTRIES_MAX and self.lag_seconds() < limits.SQL_LAG_S_MAX

    def lag(self) -> Lag:
        return Lag(len(self._pending), 256 * len(self._pending))

    def lag_seconds(self) -> float:
        if not self._pending:
            return 0.0
        return float(self._life.clock.monotonic() - self._pending[0][2])

    def hurry(self) -> None:
        self._schedule(0)

    def request_checkpoint(self) -> None:
        self._asked = True
        self._schedule(0)

    def task(self, work: Any, done: Any) -> None:
        try:
            result: Any = work()
        except ConfigServiceError as error:
            result = error
        self._life.post(self._node.sql_latency(), done, result)

    def close(self, timeout_s: float | None = None) -> bool:
        self.closed = True
        return True

    def _schedule(self, delay: int) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._life.thread(delay, self._begin)

    def _begin(self) -> None:
        """The thread takes what waits; the transaction takes its time."""
        self._writing = min(len(self._pending), self._node.swarm.sql_batch)
        self._life.thread(self._node.sql_latency(), self._finish)

    def _finish(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        if self._writing:
            taken = [self._pending.popleft() for _ in range(self._writing)]
            conf = next((c for _, c, _ in reversed(taken) if c is not None), None)
            batch = Batch(tuple(e for e, _, _ in taken), conf)
            self._life.checks.written(self._node, self._life, batch.effects[-1].index)
            self.file.commit(batch)
            state = self.file.state
            self._life.post(0, self._told_written, state.applied, state.revision)
        if self._pending:
            self._schedule(0)
        elif self._asked or self._node.kernel.now >= self._checkpoint_at:
            self._checkpoint()

    def _told_written(self, applied: int, revision: int) -> None:
        if self._life.member.history is self:
            self._life.member.on_written(applied, revision)

    def _plan_checkpoint(self) -> None:
        self._checkpoint_at = self._node.kernel.now + self._node.swarm.sql_checkpoint

    def _checkpoint(self) -> None:
        self._asked = False
        self._plan_checkpoint()
        self.durable_index = self.file.checkpoint()
        if self.durable_index:
            self._life.post(0, self._told_durable, self.durable_index)

    def _told_durable(self, index: int) -> None:
        if self._life.member.history is self:
            self._life.member.on_history_durable(index)


# --- installs -------------------------------------------------------------------------------------

_CHUNKS: dict[bytes, Any] = {}  # chunk bytes -> what they stand for; emptied by each run


def forget_chunks() -> None:
    _CHUNKS.clear()


def _chunk(what: Any) -> bytes:
    name = b"%d" % len(_CHUNKS)
    _CHUNKS[name] = what
    return name


class SimSource:
    """The face of ``InstallSource``: the batches of a file, and at the end where that was."""

    def __init__(self, reader: Any, _breathe: Any) -> None:
        self._file: SqlFile = reader.file
        self.end: Any = None
        self.batches_per_chunk = 4

    def chunks(self) -> Iterator[bytes]:
        sent = 0
        while True:
            batches = self._file.batches
            if sent == len(batches):
                break
            part = tuple(batches[sent : sent + self.batches_per_chunk])
            sent += len(part)
            yield _chunk(part)
        meta = self._file.meta()
        self.end = _End(meta.applied, meta)
        yield _chunk(self.end)


class _End(NamedTuple):
    index: int  # type: ignore[assignment]
    meta: Meta


class SimSink:
    """The face of ``InstallSink``."""

    def __init__(
        self, directory: SimDir, identity: StoreIdentity, _key: Any, generation: int
    ) -> None:
        self._node = node = directory.node
        self._file = SqlFile(generation, identity)
        self._file.complete = False
        self._end: Meta | None = None
        node.files[generation] = self._file

    @property
    def history(self) -> SqlFile:
        ensure(self._file.complete, "an install is used after it was checked")
        return self._file

    def feed(self, data: bytes) -> bool:
        what = _CHUNKS.get(data)
        if what is None or self._end is not None:
            raise DecodeError("no such install chunk")
        if isinstance(what, _End):
            self._end = what.meta
            return True
        for batch in what:
            self._file.commit(batch)
        return False

    def finish(self) -> Installed:
        meta, state = self._end, self._file.state
        if meta is None or (meta.applied, meta.digest) != (state.applied, state.digest):
            raise DecodeError("install that is not what its sender read")
        self._file.complete = True
        self._file.checkpoint()
        return Installed(
            meta.applied,
            meta.term,
            meta.conf_state,
            meta.digest,
            meta.visible_revision,
            self._file.generation,
        )

    def discard(self) -> None:
        self._node.files.pop(self._file.generation, None)


class SimGenerations:
    """The face of ``storage.snapshot.generations`` as ``runtime.install`` uses it."""

    @staticmethod
    def next_number(directory: SimDir, live: int) -> int:
        return max([live, *directory.node.files]) + 1

    @staticmethod
    def remove(directory: SimDir, number: int) -> None:
        directory.node.files.pop(number, None)


class SimDir:
    """Stands for a member's data directory; every path below it leads to the node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __truediv__(self, name: str) -> SimDir:
        return self

    @property
    def parent(self) -> SimDir:
        return self


# --- the file of the last signed head -------------------------------------------------------------


def load_last(path: SimDir, origin: str) -> Head:
    return path.node.signed


def store_last(path: SimDir, checkpoint: Checkpoint) -> None:
    path.node.signed = Head(checkpoint.size, checkpoint.root)


def keep_evidence(path: SimDir, origin: str, what: str, *_: Any) -> None:
    raise AssertionError(f"I10 audit trees: {what}")
