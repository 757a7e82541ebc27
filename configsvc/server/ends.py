"""How a member ends itself: at once, with the error's exit code, from any thread (W8)."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from configsvc.errors import ExitCode, FatalError, InvariantViolationError
from configsvc.server.logs import Log

_FRAMES_TOLD: Final = 8  # innermost frames of a failure that a log line names


class Ends:
    """The only ways out of a running member besides a signal."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._dying = threading.Lock()

    def die(self, error: FatalError) -> None:
        """End the process with the error's code, now; callable from any thread (W8)."""
        if not self._dying.acquire(blocking=False):
            return
        self._log.line("fatal", "server", str(error), exit=int(error.code), remedy=error.remedy)
        print(f"configsvc: {error}: {error.remedy}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(int(error.code))

    def storage_failed(self, error: BaseException) -> None:
        """A store's thread cannot go on."""
        if isinstance(error, FatalError):
            self.die(error)
        if isinstance(error, InvariantViolationError):
            self.die(FatalError(ExitCode.INVARIANT, f"invariant: {error}", "report this"))
        reason = getattr(error, "strerror", None) or type(error).__name__
        self.die(
            FatalError(
                ExitCode.STORAGE, f"storage failed: {reason}", "repair the disk, then start again"
            )
        )

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback of the loop raised: fatal if it says so, else a line in the log."""
        error = context.get("exception")
        if isinstance(error, FatalError):
            self.die(error)
        if isinstance(error, InvariantViolationError):
            self.die(
                FatalError(ExitCode.INVARIANT, f"invariant: {error}", "report this with the log")
            )
        self._log.error(
            "server",
            str(context.get("message", "unexpected failure")),
            error_class=type(error).__name__ if error is not None else "",
            stack=where(error),
        )


def where(error: BaseException | None) -> str:
    """File and line of the innermost frames, without any value."""
    if error is None or error.__traceback__ is None:
        return ""
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-_FRAMES_TOLD:]))
