"""The one thread that writes and syncs the log (P1).

Frames go out in the order they were submitted, the next only after the sync of the one before
returned. The loop is woken once per frame. A write or sync error never comes back: the process
ends (P2, W8).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from configsvc.raft.messages import HardState
from configsvc.storage.wal import format as fmt
from configsvc.storage.wal.recovery import Installed
from configsvc.storage.wal.wal import Wal

IDLE_SEAL_S: Final = 0.05
JOIN_S: Final = 2.0


class WalWriter:
    """Owns a ``Wal`` from ``start`` to the end of ``stop``. Callbacks come from its thread.

    Args:
        wal: Used by nobody else meanwhile.
        on_durable: Token of the newest durable submission.
        on_fatal: Ends the process; does not return.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        wal: Wal,
        *,
        on_durable: Callable[[int], None],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wal = wal
        self._on_durable = on_durable
        self._on_fatal = on_fatal
        self._clock = clock
        self._wake = threading.Condition()
        self._work: deque[Callable[[], int]] = deque()
        self._closing = False
        self._busy_since: float | None = None
        self.syncs_total = 0
        self.sync_seconds_total = 0.0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(
        self,
        hard_state: HardState,
        first_index: int,
        count: int,
        last_term: int,
        records: bytes,
        token: int,
    ) -> None:
        """Queue one frame; returns at once. ``on_durable(token)`` follows its sync."""

        def write() -> int:
            wal = self._wal
            wal.write_frame(fmt.KIND_ENTRIES, hard_state, first_index, count, last_term, records)
            wal.sync()
            return token

        self._queue(write)

    def submit_installed(self, hard_state: HardState, installed: Installed, token: int) -> None:
        """Queue an INSTALLED frame."""

        def write() -> int:
            self._wal.write_installed(hard_state, installed)
            self._wal.sync()
            return token

        self._queue(write)

    def compact(self, up_to: int) -> None:
        """Remove segments at or below ``up_to`` when their turn comes."""

        def remove() -> int:
            self._wal.compact(up_to)
            return 0

        self._queue(remove)

    def oldest_unsynced_age(self) -> float:
        """Seconds that the write under way has taken; 0 when none is (D1)."""
        since = self._busy_since
        return self._clock() - since if since is not None else 0.0

    def stop(self) -> None:
        """Finish what is queued, note a clean stop, close."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _queue(self, work: Callable[[], int]) -> None:
        with self._wake:
            self._work.append(work)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._wal.close_clean()
        except BaseException as error:  # noqa: BLE001  # whatever it is, nothing was promised for it
            self._on_fatal(error)

    def _step(self) -> bool:
        with self._wake:
            if not self._work and not self._closing:
                self._wake.wait(IDLE_SEAL_S)
            if not self._work:
                if self._closing:
                    return False
                work = None
            else:
                work = self._work.popleft()
        if work is None:
            self._idle()
            return True
        began = self._clock()
        self._busy_since = began
        token = work()
        self._busy_since = None
        if token:
            self.syncs_total += 1
            self.sync_seconds_total += self._clock() - began
            self._on_durable(token)
        return True

    def _idle(self) -> None:
        if self._wal.seal_idle() or self._wal.prepare_next():
            return
        with self._wake:
            while not self._work and not self._closing:
                self._wake.wait()
