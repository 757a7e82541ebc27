"""The one thread that writes and syncs the log (P1).

Always true:
  * Frames go out in the order of ``submit``, the next only after the sync of the one before (W3).
  * What was submitted while a frame was under way becomes one frame: the batch grows as the disk
    slows down, and no timer is added.
  * ``on_durable`` is called once per frame, in this thread, with the newest token of the frame.
  * An error never returns to the loop: the process ends within 100 ms, with one line (P2, W8).

While nothing waits, the thread seals the last data frame (W6), does queued jobs (compaction,
change of keys) and makes the next segment in advance. Where something always waits, a piece of that
comes between two frames once in ``PUT_OFF_S``: a log that is never idle must not grow for ever.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from configsvc import limits
from configsvc.errors import ConfigServiceError, ExitCode, FatalError, ensure
from configsvc.raft.messages import HardState
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.start import NO_SPACE
from configsvc.storage.wal.wal import Wal

REST_S: Final = 0.005  # after a frame, before the thread looks for work that nobody waits for
PUT_OFF_S: Final = 1.0  # that work waits no longer for a rest
_STDERR: Final = 2


class Submission(NamedTuple):
    """One write that the machine asked for, or several merged into one."""

    hard_state: HardState
    first_index: int  # 0 without records
    count: int  # type: ignore[assignment]
    records: bytes
    token: int
    installed: Installed | None
    since: float  # when the oldest of them was submitted


def end_process(error: FatalError) -> None:
    """Say why in one line, and end the process without waiting for anybody."""
    line = f"configsvc: {error}; {error.remedy} (exit {int(error.code)})\n"
    with suppress(OSError):
        os.write(_STDERR, line.encode("utf-8", "replace"))
    os._exit(int(error.code))


class WalWriter:
    """Owns a ``Wal`` from ``start`` to the return of ``stop``.

    Args:
        wal: Opened; used by nobody else from now on.
        on_durable: Takes the newest durable token. Called in the writer's thread: hand it to the
            loop with ``call_soon_threadsafe``.
        on_space: Told False when the next segment cannot be made (O7: local NOSPACE while there
            is still room to stop in order), True when it could be again.
        die: Ends the process with the error's code; must not come back in the product.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        wal: Wal,
        *,
        on_durable: Callable[[int], None],
        on_space: Callable[[bool], None] = lambda _: None,
        die: Callable[[FatalError], None] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wal = wal
        self._on_durable = on_durable
        self._on_space = on_space
        self._die = die
        self._clock = clock
        # Only the loop appends and only the thread pops: a deque needs no lock for that. The bell
        # is a lock that is free when the thread has something to look at.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._aside = threading.Lock()  # for what is not a frame
        self._waiting: deque[Submission] = deque()
        self._jobs: deque[Callable[[Wal], object]] = deque()
        self._compact_to = 0
        self._stopping = False
        self._clean = True
        self._in_flight_since: float | None = None
        self._seal_at: float | None = None
        self._idle_at = clock()  # the last look for work that nobody waits for
        self._space = True
        self._space_retry_at = 0.0
        self.frames_total = 0
        self.bytes_total = 0
        self.sync_seconds_total = 0.0  # from the start of each write to the end of its sync
        self.sync_seconds_last = 0.0
        self.segments = wal.segment_count  # the following three are as of the last frame or job
        self.bytes_on_disk = wal.bytes_on_disk
        self.retained_first_index = wal.retained_first_index
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    # --- called by the loop ----------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def submit(
        self, hard_state: HardState, first_index: int, count: int, records: bytes, token: int
    ) -> None:
        """Queue a write; returns at once. ``on_durable`` follows with ``token`` or a later one.

        Args:
            hard_state: The newest one.
            first_index: Index of the first record; 0 without records.
            count: Records.
            records: As ``encode_entries`` made them.
            token: Grows with every submission; above 0.
        """
        self._put(hard_state, first_index, count, records, token, None)

    def submit_installed(self, hard_state: HardState, installed: Installed, token: int) -> None:
        """Queue an INSTALLED frame; the log before it is void once it is durable.

        The next submission may begin at ``installed.index + 1``.
        """
        self._put(hard_state, 0, 0, b"", token, installed)

    def compact(self, up_to: int) -> None:
        """Give up what holds nothing above ``up_to``, when the thread has time for it."""
        with self._aside:
            self._compact_to = max(self._compact_to, up_to)
        self._ring()

    def run_job(self, job: Callable[[Wal], object]) -> bool:
        """Run ``job`` with the log in the writer's thread, between frames; False: too many wait."""
        with self._aside:
            if len(self._jobs) >= limits.WAL_JOBS_MAX:
                return False
            self._jobs.append(job)
        self._ring()
        return True

    def oldest_unsynced_age(self, now: float) -> float:
        """Seconds since the oldest submission that is not durable yet; 0: there is none (D1)."""
        since = self._in_flight_since
        if since is None:
            with suppress(IndexError):  # the thread may take it at this moment
                since = self._waiting[0].since
        return max(0.0, now - since) if since is not None else 0.0

    def stop(self, *, clean: bool = True, timeout: float = 5.0) -> bool:
        """Write what is queued, note a clean stop unless told otherwise, close the log.

        Returns:
            False: the disk hangs, the thread did not end in ``timeout`` seconds.
        """
        self._clean = clean
        self._stopping = True
        self._ring()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _put(
        self,
        hard_state: HardState,
        first_index: int,
        count: int,
        records: bytes,
        token: int,
        installed: Installed | None,
    ) -> None:
        ensure(len(self._waiting) < limits.WAL_SUBMISSIONS_MAX, "the machine waits for its log")
        ensure(not self._stopping, "nothing is written while the log is closed")
        now = self._clock()
        self._waiting.append(
            Submission(hard_state, first_index, count, records, token, installed, now)
        )
        self._ring()

    def _ring(self) -> None:
        """Make the thread look; what it is to see is in place already."""
        if self._bell.locked():
            with suppress(RuntimeError):  # somebody else rang
                self._bell.release()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._pass():
                pass
            if self._clean:
                self._wal.close_clean()
            else:
                self._wal.close()
        except BaseException as error:  # noqa: BLE001  # nothing may be promised after any of them
            self._fatal(error)

    def _pass(self) -> bool:
        """One frame, or one piece of work for which nobody waits; False: time to stop."""
        work = self._take()
        if work is not None:
            self._write(work)
            if not self._wal.spare_ready and self._wal.half_full:
                self._prepare()  # under steady load there is no idle time
            if self._clock() - self._idle_at >= PUT_OFF_S:
                self._idle()
            # To wait is to give the interpreter to the loop, which has just been told to go on.
            self._bell.acquire(timeout=REST_S)
            return True
        if self._stopping:
            return False
        if self._idle():
            return True
        self._bell.acquire(timeout=self._patience())
        return True

    def _take(self) -> Submission | None:
        """The submissions that fit into one frame."""
        waiting = self._waiting
        if not waiting:
            return None
        first = waiting[0]
        self._in_flight_since = first.since  # before it is taken: it is under way all the time
        waiting.popleft()
        parts = [first]
        size = len(first.records)
        while waiting and may_merge(parts[-1], waiting[0], size):
            parts.append(waiting.popleft())
            size += len(parts[-1].records)
        return first if len(parts) == 1 else merge(parts)

    def _write(self, work: Submission) -> None:
        began = self._clock()
        if work.installed is not None:
            self._wal.install(work.hard_state, work.installed)
        else:
            self._wal.append(work.hard_state, work.first_index, work.count, work.records)
        ended = self._clock()
        self._in_flight_since = None
        self.frames_total += 1
        self.sync_seconds_last = ended - began
        self._on_durable(work.token)
        # The loop is on its way already.
        self._seal_at = ended + limits.WAL_SEAL_IDLE_S
        self.bytes_total += len(work.records)
        self.sync_seconds_total += ended - began

    def _idle(self) -> bool:
        """Do some of what nobody waits for; False when there is nothing to be done now."""
        self._idle_at = self._clock()
        with self._aside:
            up_to, self._compact_to = self._compact_to, 0
            job = self._jobs.popleft() if self._jobs else None
        if self._seal_at is not None and self._clock() >= self._seal_at:
            self._wal.seal_idle()
            self._seal_at = None
        if up_to:
            self._wal.compact(up_to)
        if job is not None:
            job(self._wal)
        if not up_to and job is None:
            ready = self._wal.spare_ready and self._space
            if ready or not self._prepare():
                return False
        self._note()
        return True

    def _prepare(self) -> bool:
        """A step of the next segment; no space is told, not fatal: the current one has room."""
        if self._clock() < self._space_retry_at:
            return False
        try:
            more = self._wal.prepare_step()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._space_retry_at = self._clock() + limits.WAL_SPACE_RETRY_S
            if self._space:
                self._space = False
                self._on_space(False)
            return False
        if not self._space and not more:
            self._space = True
            self._on_space(True)
        return True

    def _patience(self) -> float:
        """Seconds to wait for work; -1: for ever."""
        now = self._clock()
        ends = [] if self._seal_at is None else [self._seal_at - now]
        if not (self._wal.spare_ready and self._space):
            ends.append(self._space_retry_at - now)
        return max(0.0, min(ends)) if ends else -1

    def _note(self) -> None:
        self.segments = self._wal.segment_count
        self.bytes_on_disk = self._wal.bytes_on_disk
        self.retained_first_index = self._wal.retained_first_index

    def _fatal(self, error: BaseException) -> None:
        if isinstance(error, FatalError):
            self._die(error)
        elif isinstance(error, OSError):
            what = errno.errorcode.get(error.errno or 0, "unknown error")
            self._die(
                FatalError(
                    ExitCode.STORAGE,
                    f"storage error: the log could not be written: {what}, {self._wal.position}",
                    "repair or replace the disk, then start again",
                )
            )
        else:
            told = str(error) if isinstance(error, ConfigServiceError) else type(error).__name__
            self._die(
                FatalError(
                    ExitCode.INVARIANT,
                    f"invariant broken in the log writer: {told}",
                    "report it with the log",
                )
            )


def may_merge(last: Submission, following: Submission, size: int) -> bool:
    """Whether ``following`` can share the frame of ``last``, which has ``size`` bytes so far.

    Its records must follow directly; superseding ones need a frame of their own.
    """
    if last.installed is not None or following.installed is not None:
        return False
    if size + len(following.records) > limits.WAL_FRAME_BYTES_MAX:
        return False
    contiguous = following.first_index == last.first_index + last.count
    return not following.count or (last.count > 0 and contiguous)


def merge(parts: list[Submission]) -> Submission:
    """One write for all of ``parts``: their records in order, the newest hard state and token."""
    first = next((part for part in parts if part.count), parts[0])
    return Submission(
        parts[-1].hard_state,
        first.first_index,
        sum(part.count for part in parts),
        b"".join(part.records for part in parts),
        parts[-1].token,
        None,
        parts[0].since,
    )
