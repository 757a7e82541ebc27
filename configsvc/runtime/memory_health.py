"""Memory of this process: reads and watches are shed, and it ends before it is killed (O8).

A member that the system kills leaves its followers an election; one that sees it coming hands its
leadership over. The bound is the smaller of what the container and the machine allow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from configsvc.errors import ExitCode, FatalError

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

SOFT: Final = 0.80  # of the bound
CALM: Final = 0.75  # what was shed is let in again below it
HARD: Final = 0.95
LOOK_S: Final = 0.5


class MemoryHealth:
    """``tick`` looks; ``tight`` says whether to shed."""

    def __init__(self, member: Member, used: Callable[[], int], bound: int) -> None:
        """``used``: resident bytes now. ``bound``: bytes this process may have; 0: not known."""
        self._member = member
        self._used = used
        self._bound = bound
        self._next_look = 0.0
        self._leaving_since: float | None = None
        self.tight = False  # new streams and linearizable reads are refused

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        if not self._bound or now < self._next_look:
            return
        self._next_look = now + LOOK_S
        share = self._used() / self._bound
        if share >= HARD:
            self._leave(now)
        tight = share >= (CALM if self.tight else SOFT)
        if tight != self.tight:
            self.tight = self._member.reads.shedding = tight
            say = self._member.report.error if tight else self._member.report.info
            say(
                "memory",
                "memory is short" if tight else "memory is enough",
                percent=int(share * 100),
            )

    def _leave(self, now: float) -> None:
        """Hand over, wait for that no longer than an election timeout, end."""
        member = self._member
        if self._leaving_since is None:
            self._leaving_since = now
            member.handover.set_fit("memory", fit=False)
            if member.is_leader and member.handover.begin():
                return
        elif member.is_leader and now - self._leaving_since < (
            member.config.election_timeout_ms / 1000
        ):
            return
        member.die(
            FatalError(
                ExitCode.MEMORY,
                f"memory: {self._used()} of {self._bound} bytes are in use",
                "give the member more memory, or its clients less to hold",
            )
        )
