"""What can go wrong on a node, and the exit codes of ``configagent``.

Everything derives from ``ConfigServiceError``. A ``StepError`` ends one attempt of one set and
becomes its outcome; nothing of it ends the daemon. ``SettingsError`` ends a command before it
touched anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar, Final

from configsvc.errors import ConfigServiceError


class Exit(IntEnum):
    """Exit codes (agent.md 7); stable."""

    CONVERGED = 0
    CHANGED = 2
    WOULD_CHANGE = 3
    TIMEOUT = 4
    RENDER = 10
    CHECK = 11
    ROLLED_BACK = 12
    ROLLBACK_FAILED = 13
    OFFLINE = 14
    REFUSED = 15
    HELD = 16
    DRIFT = 17
    DISK = 18
    USAGE = 20


_EXITS: Final = {
    "converged": Exit.CONVERGED,
    "render_failed": Exit.RENDER,
    "write_failed": Exit.DISK,
    "check_failed": Exit.CHECK,
    "reload_failed": Exit.ROLLED_BACK,
    "unhealthy": Exit.ROLLED_BACK,
    "rolled_back": Exit.ROLLED_BACK,
    "rollback_failed": Exit.ROLLBACK_FAILED,
    "held": Exit.HELD,
    "frozen": Exit.HELD,
    "refused": Exit.REFUSED,
    "drifted": Exit.DRIFT,
    "contended": Exit.DRIFT,
}


def exit_of(outcome: str) -> Exit:
    """The code of a set's outcome; an unsettled one is a timeout of whoever waited for it."""
    return _EXITS.get(outcome, Exit.TIMEOUT)


# Several sets: the worst speaks.
WORST_FIRST: Final = (20, 13, 12, 15, 18, 11, 10, 16, 17, 4, 14, 2, 3, 0)


def worst(codes: Iterable[int]) -> Exit:
    """The one exit code for several sets; 0 for none."""
    return Exit(min(codes, key=WORST_FIRST.index, default=0))


class SettingsError(ConfigServiceError):
    """The agent's own configuration or command line; every problem found, one line each."""

    exit: ClassVar[Exit] = Exit.USAGE

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InsecureError(SettingsError):
    """A setting, owner or mode that would weaken the node; nothing was read or written."""

    exit: ClassVar[Exit] = Exit.REFUSED


class StepError(ConfigServiceError):
    """One attempt of one set ended. ``str()`` is its reason: no values in it."""

    outcome: ClassVar[str]
    exit: ClassVar[Exit]

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.path = path  # the file that it is about, or ""


class RenderError(StepError):
    """Template, scope, size or format: a function of its input, so only new input helps."""

    outcome = "render_failed"
    exit = Exit.RENDER


class WorkerError(RenderError):
    """The render worker was killed or lost: may heal by itself."""


class HeldError(StepError):
    """A guard: the output looks wrong, somebody has to approve it."""

    outcome = "held"
    exit = Exit.HELD


class RefusedError(StepError):
    """A destination that must not be written to."""

    outcome = "refused"
    exit = Exit.REFUSED


class WriteError(StepError):
    """The disk: full, read-only, broken."""

    outcome = "write_failed"
    exit = Exit.DISK


class CheckError(StepError):
    """The check command did not accept the staged files."""

    outcome = "check_failed"
    exit = Exit.CHECK


class NotifyError(StepError):
    """Reload, restart or health failed after the commit."""

    outcome = "reload_failed"
    exit = Exit.ROLLED_BACK


class HealthError(NotifyError):
    """The service took the change and is not well."""

    outcome = "unhealthy"
