"""The thread that writes the history behind the serving loop (write-behind, Q2).

The loop submits what apply did and goes on; this thread gathers it into transactions and moves the
durable index by checkpoints. Anything that goes wrong in SQL ends the process: nothing is skipped,
nothing is retried, the log replays it.

Always true:
  * Entries are written in the order submitted, each exactly once.
  * A batch that is too small waits ``SQL_LINGER_S`` for company, never longer, and not at all when
    somebody waits for it (``hurry``).
  * An idle thread sleeps without a time-out, unless a checkpoint is still due.

Not here: holding apply back at the lag bounds (the runtime asks ``has_room``), the transaction
itself (``store``).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from configsvc.apply.commands import Effects
from configsvc.errors import (
    ConfigServiceError,
    ExitCode,
    FatalError,
    OverloadedError,
    ensure,
)
from configsvc.limits import (
    HISTORY_TASKS_MAX,
    READY_ENTRIES_MAX,
    SQL_BATCH_ENTRIES_MAX,
    SQL_BATCH_ENTRIES_MIN,
    SQL_CHECKPOINT_BYTES,
    SQL_CHECKPOINT_ENTRIES,
    SQL_CHECKPOINT_S,
    SQL_LAG_BYTES_MAX,
    SQL_LAG_ENTRIES_MAX,
    SQL_LAG_S_MAX,
    SQL_LINGER_S,
    SQL_READERS_WAIT_S,
    SQL_SIDE_LOG_BYTES_MAX,
)
from configsvc.storage.history.messages import Lag
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile

T = TypeVar("T")

_ENTRY_OVERHEAD: Final = 256  # bytes counted per entry besides its rows and leaf


class _Run(NamedTuple):
    """Entries that came together, at most one transaction's."""

    effects: Sequence[Effects]
    conf_state: bytes | None  # as of the last of them; None: unchanged
    size: int
    since: float


class _Task(NamedTuple):
    work: Callable[[], Any]
    done: Callable[[Any], None]


class HistoryWriter:
    """Owns a ``History`` from ``start`` to the end of ``close``. Callbacks come from its thread."""

    def __init__(
        self,
        history: History,
        *,
        on_written: Callable[[int, int], None],
        on_durable: Callable[[int], None],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up; ``start`` starts.

        Args:
            history: Used by nobody else from ``start`` on.
            on_written: (applied index, revision) after each transaction.
            on_durable: Applied index after each complete checkpoint.
            on_fatal: Ends the process; should not return. The thread ends after it in any case.
            clock: Seconds, monotonic.
        """
        self._history = history
        self._on_written = on_written
        self._on_durable = on_durable
        self._on_fatal = on_fatal
        self._clock = clock
        self._pending: deque[_Run] = deque()
        self._entries = self._bytes = 0  # in them
        self._wake = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._closing = False
        self._checkpoint_asked = False
        self._hurried = False
        meta = history.meta()
        self.written_index = meta.applied  # newest entry, and revision, that SQL holds
        self.written_revision = meta.visible_revision
        self.durable_index = history.durable  # in this incarnation; 0: nothing known yet
        self._dirty_since: float | None = None  # first write after the last complete checkpoint
        self._dirty_entries = 0
        self._dirty_bytes = 0
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, effects: Sequence[Effects], conf_state: bytes | None = None) -> None:
        """Queue a run of entries; returns at once.

        Args:
            effects: What apply did, without a gap to the last submission.
            conf_state: Encoded configuration as of the last of them; None: unchanged.
        """
        if not effects:
            return
        now = self._clock()
        runs = [
            _Run(run, None, _size(run), now)
            for run in (
                effects[at : at + SQL_BATCH_ENTRIES_MAX]
                for at in range(0, len(effects), SQL_BATCH_ENTRIES_MAX)
            )
        ]
        if conf_state is not None:
            runs[-1] = runs[-1]._replace(conf_state=conf_state)
        with self._wake:
            ensure(not self._closing, "nothing is submitted to a closing history")
            before = self._entries
            after = before + len(effects)
            # The runtime stops applying at the lag bound; one pass may have been under way.
            ensure(
                after <= SQL_LAG_ENTRIES_MAX + READY_ENTRIES_MAX,
                "apply waits when the history lags",
            )
            self._pending.extend(runs)
            self._entries = after
            self._bytes += sum(run.size for run in runs)
            # While the thread lingers, waking it for every entry would cost more than writing.
            if before == 0 or before < SQL_BATCH_ENTRIES_MIN <= after:
                self._wake.notify()

    def has_room(self) -> bool:
        """Whether apply may go on (Q2): entries, bytes and age of the oldest are below bounds."""
        entries, size = self.lag()
        return (
            entries < SQL_LAG_ENTRIES_MAX
            and size < SQL_LAG_BYTES_MAX
            and self.lag_seconds() < SQL_LAG_S_MAX
        )

    def lag(self) -> Lag:
        """What has been submitted and not yet written."""
        # Each is read whole without the lock, which the loop would ask for in every pass.
        return Lag(self._entries, self._bytes)

    def lag_seconds(self) -> float:
        """Age of the oldest entry that is not written; 0 when none is."""
        try:
            return self._clock() - self._pending[0].since
        except IndexError:
            return 0.0

    def task(self, work: Callable[[], T], done: Callable[[T | ConfigServiceError], None]) -> None:
        """Run ``work`` on the writer's thread between two transactions; ``done`` is called there.

        A ``ConfigServiceError`` is handed to ``done``; any other failure ends the process.

        Raises:
            OverloadedError: ``HISTORY_TASKS_MAX`` tasks wait already, or the history is closing.
        """
        with self._wake:
            if self._closing or len(self._tasks) >= HISTORY_TASKS_MAX:
                raise OverloadedError
            self._tasks.append(_Task(work, done))
            self._wake.notify()

    def vacuum(self) -> None:
        """``History.vacuum``; call it in a ``task``."""
        self._history.vacuum()

    def rewrap(self, key_file: KeyFile) -> int:
        """``History.rewrap``; call it in a ``task``. It is on disk after a checkpoint."""
        return self._history.rewrap(key_file)

    def checkpoint_now(self) -> int:
        """The index that is durable now, 0: a reader keeps it from that. Call it in a ``task``."""
        return self._checkpoint()

    def hurry(self) -> None:
        """Somebody waits for what is queued now: write it without lingering."""
        with self._wake:
            if self._pending and not self._hurried:
                self._hurried = True
                self._wake.notify()

    def request_checkpoint(self) -> None:
        """Ask for a checkpoint once what is queued has been written; ``on_durable`` follows."""
        with self._wake:
            self._checkpoint_asked = True
            self._wake.notify()

    def close(self, timeout_s: float | None = None) -> bool:
        """Write everything queued, checkpoint, close the database.

        Returns:
            False when that did not happen within ``timeout_s``; the log replays the rest.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._history.close()
            self.durable_index = self._history.meta().applied
            self._on_durable(self.durable_index)
        except FatalError as error:
            self._on_fatal(error)
        except (sqlite3.Error, SQLAlchemyError, OSError, ConfigServiceError) as error:
            # The driver's text may quote parameters: only its kind is told.
            kind = type(getattr(error, "orig", None) or error).__name__
            self._on_fatal(
                FatalError(
                    ExitCode.STORAGE,
                    f"history {self._history.path} cannot be written ({kind})",
                    "check disk space, permissions and disk health, then start again",
                )
            )
        except BaseException as error:  # noqa: BLE001 - a bug: the supervisor ends the process
            self._on_fatal(error)

    def _step(self) -> bool:
        """Wait for work and do one piece of it; False when everything is done and closing."""
        with self._wake:
            self._gather()
            batch = self._take()
            task = self._tasks.popleft() if self._tasks else None
            finished = self._closing and not batch and not task
        if task:
            self._perform(task)
        if batch:
            self._write(batch)
        if self._checkpoint_due():
            self._checkpoint()
        return not finished

    def _gather(self) -> None:
        """Wait until there is enough, or the oldest has waited long enough. Holds the lock."""
        while not self._closing and not self._checkpoint_asked and not self._tasks:
            if self._entries >= SQL_BATCH_ENTRIES_MIN or self._hurried:
                return
            now = self._clock()
            if self._pending:
                rest = self._pending[0].since + SQL_LINGER_S - now
                if rest <= 0:
                    return
                self._wake.wait(rest)
            elif self._dirty_since is None:
                self._wake.wait()
            else:
                rest = self._dirty_since + SQL_CHECKPOINT_S - now
                if rest <= 0:
                    return
                self._wake.wait(rest)

    def _take(self) -> list[_Run]:
        """The next transaction's entries; they count as lag until written. Holds the lock."""
        taken: list[_Run] = []
        count = 0
        for run in self._pending:
            count += len(run.effects)
            if count > SQL_BATCH_ENTRIES_MAX:
                return taken
            taken.append(run)
        self._hurried = False
        return taken

    def _write(self, batch: list[_Run]) -> None:
        conf_state = None
        effects: list[Effects] = []
        for run in batch:
            effects += run.effects
            if run.conf_state is not None:
                conf_state = run.conf_state
        self._history.write(effects, conf_state)
        size = sum(run.size for run in batch)
        with self._wake:
            for _ in batch:
                self._pending.popleft()
            self._entries -= len(effects)
            self._bytes -= size
        self._dirty_entries += len(effects)
        self._dirty_bytes += size
        if self._dirty_since is None:
            self._dirty_since = self._clock()
        meta = self._history.meta()
        self.written_index, self.written_revision = meta.applied, meta.visible_revision
        self._on_written(meta.applied, meta.visible_revision)

    def _checkpoint_due(self) -> bool:
        if self._checkpoint_asked and not self._pending:
            return True
        if self._dirty_since is None:
            return False
        return self._much_written() or self._clock() - self._dirty_since >= SQL_CHECKPOINT_S

    def _much_written(self) -> bool:
        return (
            self._dirty_entries >= SQL_CHECKPOINT_ENTRIES
            or self._dirty_bytes >= SQL_CHECKPOINT_BYTES
        )

    def _checkpoint(self) -> int:
        self._checkpoint_asked = False
        too_long = self._history.side_log_bytes() > SQL_SIDE_LOG_BYTES_MAX
        wait_s = SQL_READERS_WAIT_S if too_long else 0.0
        durable = self._history.checkpoint(wait_s=wait_s, quiet=not self._much_written())
        # An incomplete one is tried again when as much has gathered again.
        self._dirty_entries = self._dirty_bytes = 0
        self._dirty_since = None if durable else self._clock()
        if durable:
            self.durable_index = durable
            self._on_durable(durable)
        return durable

    def _perform(self, task: _Task) -> None:
        try:
            result = task.work()
        except FatalError:
            raise
        except ConfigServiceError as error:
            task.done(error)
        else:
            task.done(result)


def _size(effects: Sequence[Effects]) -> int:
    """Memory that ``effects`` take, roughly. On the loop, for every entry."""
    size = _ENTRY_OVERHEAD * len(effects)
    for effect in effects:
        size += len(effect.leaf)
        for row in effect.rows:
            size += len(row[2]) + len(row[3])
    return size
