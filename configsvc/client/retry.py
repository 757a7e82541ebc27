"""When a failed call is tried again: pure rules for the sync and the async client alike.

Always true:
  * A write that was sent is never sent again, unless its caller said that repeating is harmless.
  * A request that certainly never left may go to another endpoint, whatever it was.
  * A refused token is renewed once per call: the member judged it before doing anything.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from configsvc import limits
from configsvc.client.errors import BY_TEXT, Failure
from configsvc.errors import (
    AuthOldRevisionError,
    InvalidAuthTokenError,
    NotSupportedForLearnerError,
)

_STALE_TOKEN: Final = (InvalidAuthTokenError, AuthOldRevisionError)


class Effect(Enum):
    """What repeating a call would do."""

    READ = "read"  # nothing
    REPEATABLE = "repeatable"  # changes state, but twice is the same as once
    ONCE = "once"  # must not happen twice

    @property
    def idempotent(self) -> bool:
        """Whether the call may be sent again after its outcome got lost."""
        return self is not Effect.ONCE

    @property
    def writes(self) -> bool:
        """Whether a lost answer leaves a doubt."""
        return self is not Effect.READ


class Step(NamedTuple):
    """What to do after a failure."""

    again: bool
    move: bool  # to another endpoint first
    login: bool  # get a new token first
    pause_s: float


_LOST: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


def backoff_s(round_: int, jitter: float) -> float:
    """Pause before round ``round_`` (0 is the first repetition); ``jitter`` is in [0, 1)."""
    pause = limits.CLIENT_BACKOFF_MIN_S * 2 ** min(round_, 16)
    return min(limits.CLIENT_BACKOFF_MAX_S, float(pause)) * (0.5 + jitter / 2)


class Attempts:
    """The life of one call over several attempts. Times are seconds on one monotonic clock."""

    def __init__(self, effect: Effect, *, endpoints: int, deadline: float, can_login: bool) -> None:
        self._effect = effect
        self._endpoints = endpoints
        self._deadline = deadline
        self._can_login = can_login
        self._tried = 0
        self._unsent_rounds = 0

    def allowance_s(self, now: float) -> float:
        """How long the next attempt may take: what can be repeated leaves time for others."""
        left = max(self._deadline - now, limits.CLIENT_ATTEMPT_MIN_S)
        if self._effect.idempotent and self._endpoints > 1 and left != float("inf"):
            return max(left / 2, min(left, limits.CLIENT_CONNECT_TIMEOUT_S))
        return left

    def after(self, failure: Failure, now: float, jitter: float) -> Step:
        """Judge a failed attempt."""
        if self._can_login and BY_TEXT.get(failure.text) in _STALE_TOKEN:
            self._can_login = False
            return Step(True, False, True, 0.0)
        if BY_TEXT.get(failure.text) is NotSupportedForLearnerError:
            self._tried += 1  # it did nothing: another member may, each is asked once
            again = self._tried % self._endpoints != 0 and now < self._deadline
            return Step(again, True, False, 0.0)
        if failure.code not in _LOST:
            return Step(False, False, False, 0.0)
        give_up = Step(False, True, False, 0.0)  # the next call starts elsewhere
        if failure.sent and not self._effect.idempotent:
            return give_up
        self._tried += 1
        round_, place = divmod(self._tried, self._endpoints)
        if place:
            return Step(now < self._deadline, True, False, 0.0)
        self._unsent_rounds = 0 if failure.sent else self._unsent_rounds + 1
        pause = backoff_s(round_ - 1, jitter)
        if self._unsent_rounds >= limits.CLIENT_UNREACHABLE_ROUNDS_MAX:
            return give_up
        return Step(True, True, False, pause) if now + pause < self._deadline else give_up
