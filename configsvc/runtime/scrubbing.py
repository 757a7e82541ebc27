"""What lies still is read again: sealed segments of the log and the rows of history (W10).

Once a day, and first some time after the start, a pass reads every sealed segment and every page of
history, with a pause after each, so that nobody notices. What is bad is told once per pass and
raises the CORRUPT alarm of this member: the copy is replaced while the others still have theirs.

Always true:
  * A segment that compaction gave up while it was read is no finding.
  * A pass ends, whatever it finds or fails at; the next one begins a day later.

Not here: what a bad frame or row is (``storage.wal.inspect``, ``storage.history``), the audit tree
(``configctl audit verify``), rows of the small tables, which every transaction seals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from configsvc.apply.state import CORRUPT
from configsvc.errors import ConfigServiceError
from configsvc.limits import SCRUB_EVERY_S, SCRUB_FIRST_S, SCRUB_PAGE_REVISIONS
from configsvc.storage.disk import Disk
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.wal.inspect import Scrubbed, scrub
from configsvc.storage.wal.segments import segment_numbers

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

SEGMENT_PAUSE_S: Final = 2.0  # of 16 MiB: at most 8 MiB a second
PAGE_PAUSE_S: Final = 0.1

T = TypeVar("T")


class Scrubber:
    """Reads one running member's stores again and again."""

    def __init__(
        self, member: Member, log: Disk, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """``log``: the log's directory, only read here. ``pause``: waits for so many seconds."""
        self._member = member
        self._log = log
        self._pause = pause
        self.passes_total = 0  # that came to their end
        self.bad_total = 0  # segments and pages of rows that were not as they were written

    async def run(self) -> None:
        """Until it is cancelled."""
        # Members that were started together do not all read at the same time.
        await self._pause(SCRUB_FIRST_S * (1 + self._member.self_id % 97 / 97))
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001  # nobody awaits us: the next pass must come
                reason = type(error).__name__
                self._member.report.error("runtime", "stored data was not read", reason=reason)
            await self._pause(SCRUB_EVERY_S)

    async def run_once(self) -> None:
        """One pass over everything."""
        bad = self.bad_total
        segments = await self._scrub_log()
        revisions = await self._scrub_rows()
        self.passes_total += 1
        self._member.report.info(
            "runtime",
            "stored data was read again",
            segments=segments,
            revisions=revisions,
            bad=self.bad_total - bad,
        )

    async def _scrub_log(self) -> int:
        steps = scrub(self._log)
        count = 0
        while (found := await self._aside(lambda: _next(steps))) is not None:
            count += 1
            still_there = found.segment in await self._aside(lambda: segment_numbers(self._log))
            if found.problem and still_there:
                self._found(found.problem)
            await self._pause(SEGMENT_PAUSE_S)
        return count

    async def _scrub_rows(self) -> int:
        """Values are opened as they are read: a seal that does not open is a finding."""
        first, last = 2, self._member.written_revision
        for at in range(first, last + 1, SCRUB_PAGE_REVISIONS):
            end = min(last, at + SCRUB_PAGE_REVISIONS - 1)
            try:
                await self._aside(partial(self._read_page, at, end))
            except SealBroken as error:
                self._found(str(error))
            except ConfigServiceError:
                return at - first  # the history is being closed or replaced
            await self._pause(PAGE_PAUSE_S)
        return max(0, last + 1 - first)

    def _read_page(self, at: int, end: int) -> None:
        """A page that is long in bytes comes in pieces."""
        while at <= end:
            page = self._member.reader.events(None, at, end, end, with_previous=False)
            if page.through < at:
                return  # not there yet, or no longer
            at = page.through + 1

    def _found(self, problem: str) -> None:
        self.bad_total += 1
        self._member.report.error("runtime", "stored data is damaged", reason=problem)
        with contextlib.suppress(ConfigServiceError):  # the next finding tries again
            self._member.raise_alarm(CORRUPT)

    async def _aside(self, work: Callable[[], T]) -> T:
        return await self._member.loop.run_in_executor(None, work)


def _next(steps: Iterator[Scrubbed]) -> Scrubbed | None:
    return next(steps, None)
