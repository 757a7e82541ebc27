"""What a set does next: pure rules over events and time (agent.md 4.2 to 4.5).

``Plan`` is told what happened and answers which one ``Step`` to carry out now, or when to ask
again. It does no I/O and reads no clock: ``now`` is seconds on one monotonic scale, ``jitter`` a
number in [0, 1).

The rule behind all others: what can heal by itself is retried by time; what is a function of its
input is retried when the input changes; what hurt a running service is not repeated without a
person or a newer revision.

Always true:
  * One step at a time; the next one is chosen when ``done`` was called for it.
  * Newer data cuts every wait short but the settling of that data itself.
  * After ``rollback_failed`` nothing happens to the set until a person says so.

Not here: carrying steps out (``pipeline``), what a revision contains (``render``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from configsvc import limits
from configsvc.errors import ensure

NOTIFY_AGAIN_S: Final = 1.0
DRIFT_OUTCOMES: Final = ("drifted", "contended")


class Step(Enum):
    """One thing to carry out."""

    APPLY = "apply"  # read, render, guard, stage, check, commit
    NOTIFY = "notify"  # tell services, then health
    ROLLBACK = "rollback"  # the last good generation becomes a new one
    REPAIR = "repair"  # the present generation again, over what somebody changed


class Result(Enum):
    """How a step ended."""

    UNCHANGED = "unchanged"  # the output is what is there already
    COMMITTED = "committed"  # a new generation; services may have to hear of it
    QUARANTINED = "quarantined"  # the same output was rolled back here
    CONVERGED = "converged"  # notified and healthy
    RENDER_FAILED = "render_failed"
    WORKER_FAILED = "worker_failed"
    HELD = "held"
    REFUSED = "refused"
    WRITE_FAILED = "write_failed"
    CHECK_FAILED = "check_failed"
    RELOAD_FAILED = "reload_failed"
    UNHEALTHY = "unhealthy"
    ROLLBACK_IMPOSSIBLE = "rollback_impossible"  # the good generation cannot be put back


_OUTCOME: Final = {
    Result.RENDER_FAILED: "render_failed",
    Result.WORKER_FAILED: "render_failed",
    Result.HELD: "held",
    Result.REFUSED: "refused",
    Result.WRITE_FAILED: "write_failed",
    Result.CHECK_FAILED: "check_failed",
    Result.RELOAD_FAILED: "reload_failed",
    Result.UNHEALTHY: "unhealthy",
}
_BY_TIME: Final = frozenset({Result.WORKER_FAILED, Result.WRITE_FAILED, Result.CHECK_FAILED})
_NOTIFY_RESULTS: Final = frozenset({Result.RELOAD_FAILED, Result.UNHEALTHY})


def backoff_s(attempt: int, jitter: float) -> float:
    """Wait before attempt ``attempt`` + 1; 1 s doubling to 5 min, shortened by up to a quarter."""
    pause = limits.AGENT_RETRY_S_MIN * 2 ** min(attempt - 1, 16)
    return float(min(limits.AGENT_RETRY_S_MAX, pause)) * (1 - jitter / 4)


@dataclass(slots=True)
class Plan:
    """Where one set stands. Times are None when nothing is scheduled."""

    settle_min_s: float
    settle_max_s: float
    drift_interval_s: float
    outcome: str = "pending"
    reason: str = ""
    attempts: int = 0  # of the present kind of failure
    busy: Step | None = None
    has_good: bool = False  # a good generation other than the present one is there
    to_notify: bool = False
    stopped: bool = False  # rollback_failed
    undecided: bool = True  # no APPLY was done yet since the start
    blocked: tuple[str, str] | None = None  # outcome and reason of newer content that failed
    quarantined: str | None = None  # why newer content was rolled back here, while it still is
    _dirty_first: float | None = None  # data newer than the last APPLY: first and newest sighting
    _dirty_last: float = 0.0
    _apply_at: float | None = None
    _notify_at: float | None = None
    _repair_at: float | None = None
    _undoing: bool = False  # the present generation is a rollback
    _restart: bool = False
    _fights: list[float] = field(default_factory=list)

    def remember(self, outcome: str, reason: str, now: float, *, undoing: bool) -> None:
        """Go on after a restart with what the record says."""
        self._undoing = undoing and self.to_notify
        self.outcome, self.reason = outcome, reason
        self.stopped = outcome == "rollback_failed"
        if outcome == "rolled_back":
            self.quarantined = reason
        if self.to_notify:
            self._notify_at = now

    # --- events -----------------------------------------------------------------------------------

    def data_changed(self, now: float) -> None:
        """Keys of the set, a template or the configuration changed."""
        if self._dirty_first is None:
            self._dirty_first = now
        self._dirty_last = now

    def retry(self, now: float) -> None:
        """A person wants it tried again, whatever stopped it."""
        self.stopped = False
        self.attempts = 0
        self._fights.clear()
        self._restart = False
        self._undoing = False
        if self.to_notify:
            self._notify_at = now
        self._apply_at = now

    def roll_back(self, now: float) -> None:
        """A person wants the last good generation back."""
        ensure(self.busy is None, "one step at a time")
        self.stopped = False
        self._undoing = True
        self._apply_at = now
        self._dirty_first = None
        self._settle("pending", "rolled back by hand")

    def drifted(self, now: float, reason: str, *, repair: bool) -> None:
        """Files are not as they were committed; ``repair`` False only says so."""
        if self.stopped or self.busy is not None or self.outcome == "contended":
            return
        if not repair:
            self._settle("drifted", reason)
            return
        window = limits.AGENT_DRIFT_FIGHT_WINDOW_S
        self._fights = [at for at in self._fights if now - at < window]
        if self.outcome == "refused":  # what is in the way is named already, and stays named
            if self._repair_at is None and len(self._fights) < limits.AGENT_DRIFT_FIGHTS_MAX:
                self._repair_at = now
        elif len(self._fights) >= limits.AGENT_DRIFT_FIGHTS_MAX:
            self._settle("contended", reason)
            self._repair_at = None
        elif self._repair_at is None:
            self._settle("drifted", reason)
            self._repair_at = now

    def undrifted(self) -> None:
        """Files are as they were committed, without our doing."""
        if self.busy is None and self._repair_at is None and self.outcome in DRIFT_OUTCOMES:
            self._all_well()

    # --- decisions --------------------------------------------------------------------------------

    def next(self, now: float) -> Step | None:
        """The step to start now; None: nothing yet (see ``wake_at``)."""
        if self.busy is not None or self.stopped:
            return None
        step = self._choose(now)
        if step is not None:
            self.busy = step
        return step

    def _choose(self, now: float) -> Step | None:
        if self._undoing and self._apply_at is not None and self._apply_at <= now:
            self._apply_at = None
            return Step.ROLLBACK
        due = self._data_due()
        retry = self._apply_at is not None and self._apply_at <= now and not self._undoing
        if due is not None and due <= now:
            self.attempts = 0
            retry = True
        if retry:
            self._apply_at = None
            self._dirty_first = None
            return Step.APPLY
        if self._repair_at is not None and self._repair_at <= now:
            self._repair_at = None
            self._fights.append(now)
            return Step.REPAIR
        if self.to_notify and self._notify_at is not None and self._notify_at <= now:
            self._notify_at = None
            return Step.NOTIFY
        return None

    @property
    def behind(self) -> bool:
        """Whether data came that no APPLY has looked at yet."""
        return self._dirty_first is not None

    @property
    def restart(self) -> bool:
        """Whether the next NOTIFY is a second try, for which a service may want a restart."""
        return self._restart

    @property
    def undoing(self) -> bool:
        """Whether the present generation is there because a newer one hurt."""
        return self._undoing

    def _data_due(self) -> float | None:
        if self._dirty_first is None:
            return None
        return min(self._dirty_last + self.settle_min_s, self._dirty_first + self.settle_max_s)

    def wake_at(self) -> float | None:
        """When to ask ``next`` again at the latest; None: after the next event."""
        if self.busy is not None or self.stopped:
            return None
        times = [self._data_due(), self._apply_at, self._repair_at]
        times.append(self._notify_at if self.to_notify else None)
        return min((at for at in times if at is not None), default=None)

    # --- results ----------------------------------------------------------------------------------

    def done(
        self,
        result: Result,
        now: float,
        jitter: float,
        *,
        reason: str = "",
        notify_at: float | None = None,
    ) -> None:
        """The busy step ended.

        Args:
            result: How.
            now: When.
            jitter: For the next wait.
            reason: Why, for people; no values.
            notify_at: With COMMITTED: when services may be told; None: nobody has to be.
        """
        step, self.busy = self.busy, None
        ensure(step is not None, "no step is busy")
        if step is not Step.NOTIFY and step is not Step.REPAIR:
            self.blocked = None
        if result is Result.ROLLBACK_IMPOSSIBLE:
            self._give_up(reason)
        elif step is Step.NOTIFY:
            self._notified(result, now, jitter, reason)
        elif result is Result.COMMITTED:
            self._committed(step, notify_at)
        elif step is Step.ROLLBACK:
            self._rollback_failed(result, now, jitter, reason)
        elif result is Result.UNCHANGED:
            self.quarantined = None
            self._unchanged(now)
        elif result is Result.QUARANTINED:
            self._unchanged(now)
        else:
            self._failed(step, result, now, jitter, reason)

    def _committed(self, step: Step | None, notify_at: float | None) -> None:
        self.attempts = 0
        self._restart = False
        self._undoing = step is Step.ROLLBACK
        if step is Step.APPLY:
            self.quarantined = None
        elif step is Step.ROLLBACK:
            self.quarantined = self.reason
        self.to_notify = notify_at is not None
        self._notify_at = notify_at
        if self.to_notify:
            self._settle("pending", self.quarantined or "")
        else:
            self._all_well()

    def _unchanged(self, now: float) -> None:
        if self.to_notify:
            self._notify_at = now if self._notify_at is None else self._notify_at
            self._settle("pending", self.reason)
        else:
            self._all_well()

    def _all_well(self) -> None:
        self._undoing = False
        if self.blocked is not None:
            self._settle(*self.blocked)
            return
        self.attempts = 0
        if self.quarantined is None:
            self._settle("converged", "")
        else:
            self._settle("rolled_back", self.quarantined)

    def _failed(
        self, step: Step | None, result: Result, now: float, jitter: float, reason: str
    ) -> None:
        self.attempts += 1
        self._settle(_OUTCOME[result], reason)
        if step is Step.APPLY:
            self.blocked = (self.outcome, self.reason)
        if result in _BY_TIME:
            self._apply_at = now + backoff_s(self.attempts, jitter)
        elif result is Result.REFUSED:
            again = now + self.drift_interval_s * (0.8 + 0.4 * jitter)
            if step is Step.REPAIR:  # an APPLY of what is there already would find all well
                self._repair_at = again
            else:
                self._apply_at = again
        if self.to_notify and self._notify_at is None:
            self._notify_at = now  # the committed generation still has to be told of

    def _notified(self, result: Result, now: float, jitter: float, reason: str) -> None:
        if result is Result.CONVERGED:
            self.to_notify = False
            self._restart = False
            self._all_well()
            return
        ensure(result in _NOTIFY_RESULTS, "a notification ends well, or with a failure of its own")
        self.attempts += 1
        if self.attempts == 1:
            self._restart = True
            self._settle("pending", reason)
            self._notify_at = now + NOTIFY_AGAIN_S
        elif self._undoing:
            self._give_up(reason)
        elif self.has_good:
            self._settle("pending", reason)
            self.to_notify = False
            self._undoing = True
            self._apply_at = now
        else:
            self._settle(_OUTCOME[result], reason)
            self._notify_at = now + backoff_s(self.attempts, jitter)

    def _rollback_failed(self, result: Result, now: float, jitter: float, reason: str) -> None:
        self.attempts += 1
        if result is Result.WRITE_FAILED:
            self._settle("write_failed", reason)
            self._apply_at = now + backoff_s(self.attempts, jitter)
        else:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        self.stopped = True
        self.to_notify = False
        self._undoing = False
        self._settle("rollback_failed", reason)

    def _settle(self, outcome: str, reason: str) -> None:
        self.outcome = outcome
        self.reason = reason[: limits.AGENT_REASON_CHARS_MAX]
