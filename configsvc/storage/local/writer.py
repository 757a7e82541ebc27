"""The thread that commits stream L in groups: whoever waits shares one sync (FC-2).

Nothing lingers: while one group is being synced the next one gathers. A group that cannot be
written is kept and tried again; until it is on disk no further record is taken, so the stream has
no gaps and nobody is answered on a promise.

Not here: the transaction (``store``), who waits for which record (the runtime).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from configsvc.errors import ConfigServiceError, FatalError, ensure
from configsvc.limits import LOCAL_GROUP_RECORDS_MAX, LOCAL_QUEUE_RECORDS_MAX, LOCAL_RETRY_S
from configsvc.storage.local.messages import LocalActor, LocalRecord
from configsvc.storage.local.store import LocalStore


class LocalItem(NamedTuple):
    """One record with the actor that it names for the first time, if it does."""

    record: LocalRecord
    actor: LocalActor | None
    time_ns: int


_Task = tuple[Callable[[LocalStore], object], Callable[[BaseException | None], None]]


class LocalWriter:
    """Owns a ``LocalStore`` from ``start`` to ``close``. Callbacks come from its thread."""

    def __init__(
        self,
        store: LocalStore,
        *,
        on_durable: Callable[[int], None],
        on_failed: Callable[[str], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """Set up; ``start`` starts.

        Args:
            store: Written by nobody else from ``start`` on.
            on_durable: Size of the stream on disk, after each group.
            on_failed: Why a group could not be written; it will be tried again.
            on_fatal: A bug of ours, or a file that is no longer ours.
        """
        self.store = store
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._on_fatal = on_fatal
        self._queue: deque[LocalItem] = deque()
        self._tasks: deque[_Task] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failing = False
        self._given_up = False  # records were queued that the disk would not take before the end
        self._thread = threading.Thread(target=self._run, name="local-audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def takes(self) -> bool:
        """Whether a record submitted now can be expected to reach the disk."""
        return (
            not self._failing and not self._closing and len(self._queue) < LOCAL_QUEUE_RECORDS_MAX
        )

    def submit(self, item: LocalItem) -> None:
        """Queue one record; only while ``takes``. Returns at once."""
        with self._wake:
            ensure(not self._closing, "nothing is submitted to a closing stream")
            ensure(
                len(self._queue) <= 2 * LOCAL_QUEUE_RECORDS_MAX,
                "records are taken while there is room",
            )
            self._queue.append(item)
            self._wake.notify()

    def task(
        self, work: Callable[[LocalStore], object], done: Callable[[BaseException | None], None]
    ) -> None:
        """Run ``work`` on the thread between two groups; ``done`` is called there, with its error.

        A stream that closes before its turn comes calls neither.
        """
        with self._wake:
            self._tasks.append((work, done))
            self._wake.notify()

    def close(self, timeout_s: float) -> bool:
        """Write what is queued and let go of the file; False: not everything in time."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not (self._thread.is_alive() or self._queue or self._given_up)

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._write(group)
                self._run_tasks()
            self.store.close()
        except BaseException as error:  # noqa: BLE001 - handed to whoever ends the process
            self._on_fatal(error)

    def _next_group(self) -> list[LocalItem] | None:
        with self._wake:
            while not self._queue and not self._tasks:
                if self._closing:
                    return None
                self._wake.wait()
            count = min(len(self._queue), LOCAL_GROUP_RECORDS_MAX)
            return [self._queue[at] for at in range(count)]

    def _run_tasks(self) -> None:
        while self._tasks and not self._closing:
            work, done = self._tasks.popleft()
            try:
                work(self.store)
            except (sqlite3.Error, SQLAlchemyError, OSError, ConfigServiceError) as error:
                done(error)
            else:
                done(None)

    def _write(self, group: list[LocalItem]) -> None:
        """Write a group, however long it takes; given up only when the member stops."""
        while True:
            try:
                self._attempt(group)
                break
            except (sqlite3.Error, SQLAlchemyError, OSError) as error:
                self._failing = True
                cause = getattr(error, "orig", None) or error
                self._on_failed(type(cause).__name__)
            except FatalError as error:  # the file cannot be opened again: it may come back
                self._failing = True
                self._on_failed(str(error))
            with self._wake:
                if self._closing:
                    self._given_up = True
                    self._queue.clear()
                    return
                self._wake.wait(LOCAL_RETRY_S)
        with self._wake:
            for _ in group:
                self._queue.popleft()
            self._failing = False
        self._on_durable(self.store.head.size)

    def _attempt(self, group: list[LocalItem]) -> None:
        first, last = group[0].record.seq, group[-1].record.seq
        if self._failing:
            self.store.connect()
            if self.store.head.size == last + 1:
                return  # the commit that reported an error had reached the disk
        ensure(self.store.head.size == first, "the file holds what was reported durable")
        self.store.append(
            [item.record for item in group],
            [item.actor for item in group if item.actor is not None],
            group[-1].time_ns,
        )
