"""The plan's rules as a table: what happened, then what is next (agent.md 4.4)."""

from __future__ import annotations

import pytest
from configagent.plan import NOTIFY_AGAIN_S, Plan, Result, Step, backoff_s
from hypothesis import given
from hypothesis import strategies as st

from configsvc import limits
from configsvc.errors import InvariantViolationError


def new_plan(**facts: object) -> Plan:
    plan = Plan(settle_min_s=0.2, settle_max_s=5.0, drift_interval_s=60.0)
    for name, value in facts.items():
        setattr(plan, name, value)
    return plan


def applied(plan: Plan, result: Result, now: float = 10.0, **more: object) -> Plan:
    """Bring a plan through one APPLY with a result."""
    plan.data_changed(now - 1.0)
    assert plan.next(now) is Step.APPLY
    plan.done(result, now, 0.0, **more)  # type: ignore[arg-type]
    return plan


def test_nothing_happens_without_an_event() -> None:
    plan = new_plan()
    assert plan.next(1e9) is None
    assert plan.wake_at() is None


def test_a_thousand_writes_in_two_seconds_make_few_commits() -> None:
    plan, applies = new_plan(), 0
    times = [n * 0.002 for n in range(1000)] + [2.0 + n * 0.05 for n in range(200)]
    for place, now in enumerate(times):
        if place < 1000:
            plan.data_changed(now)
        if plan.next(now) is Step.APPLY:
            applies += 1
            plan.done(Result.COMMITTED, now, 0.0, notify_at=None)
    assert 1 <= applies <= 11
    assert plan.wake_at() is None  # the last value is in


def test_settling_waits_for_quiet_but_not_for_ever() -> None:
    plan = new_plan()
    plan.data_changed(0.0)
    assert plan.wake_at() == pytest.approx(0.2)
    plan.data_changed(0.1)
    assert plan.wake_at() == pytest.approx(0.3)
    plan.data_changed(4.95)
    assert plan.wake_at() == pytest.approx(5.0)
    assert plan.next(5.0) is Step.APPLY


@pytest.mark.parametrize(
    ("result", "outcome", "retried_by_time"),
    [
        (Result.RENDER_FAILED, "render_failed", False),
        (Result.WORKER_FAILED, "render_failed", True),
        (Result.HELD, "held", False),
        (Result.REFUSED, "refused", True),
        (Result.WRITE_FAILED, "write_failed", True),
        (Result.CHECK_FAILED, "check_failed", True),
    ],
)
def test_failures_before_the_commit(result: Result, outcome: str, retried_by_time: bool) -> None:
    plan = applied(new_plan(), result, reason="because")
    assert (plan.outcome, plan.reason) == (outcome, "because")
    assert (plan.wake_at() is not None) == retried_by_time
    if retried_by_time:
        assert plan.next(10.5) is None
        assert plan.next(10.0 + 100.0) is Step.APPLY


def test_newer_data_cuts_a_wait_short() -> None:
    plan = new_plan()
    for _ in range(8):
        applied(plan, Result.CHECK_FAILED, plan.wake_at() or 10.0)
    wake = plan.wake_at()
    assert wake is not None
    plan.data_changed(wake - 20.0)
    assert plan.wake_at() == pytest.approx(wake - 19.8)


def test_commit_without_services_converges() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=None)
    assert plan.outcome == "converged"
    assert plan.wake_at() is None


def test_a_deferred_notification_waits_and_is_not_dropped() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=25.0)
    assert plan.outcome == "pending"
    assert plan.next(20.0) is None
    plan.data_changed(21.0)
    assert plan.next(22.0) is Step.APPLY  # newest content wins
    plan.done(Result.COMMITTED, 22.0, 0.0, notify_at=26.0)
    assert plan.next(25.5) is None
    assert plan.next(26.0) is Step.NOTIFY


def test_notify_twice_then_roll_back_then_quarantine() -> None:
    plan = applied(new_plan(has_good=True), Result.COMMITTED, notify_at=10.0)
    assert plan.next(10.0) is Step.NOTIFY
    assert not plan.restart
    plan.done(Result.RELOAD_FAILED, 11.0, 0.0, reason="exit 1")
    assert plan.next(11.5) is None
    assert plan.next(11.0 + NOTIFY_AGAIN_S) is Step.NOTIFY
    assert plan.restart
    plan.done(Result.UNHEALTHY, 13.0, 0.0, reason="not well")
    assert plan.next(13.0) is Step.ROLLBACK
    plan.done(Result.COMMITTED, 14.0, 0.0, notify_at=14.0)
    assert plan.next(14.0) is Step.NOTIFY
    plan.done(Result.CONVERGED, 15.0, 0.0)
    assert (plan.outcome, plan.reason) == ("rolled_back", "not well")
    assert plan.next(1e9) is None
    # The same output again changes nothing; a repair of it stays rolled back.
    applied(plan, Result.QUARANTINED, 20.0)
    assert plan.outcome == "rolled_back"
    plan.drifted(30.0, "edited", repair=True)
    assert plan.next(30.0) is Step.REPAIR
    plan.done(Result.COMMITTED, 31.0, 0.0, notify_at=None)
    assert plan.outcome == "rolled_back"
    # Newer content does.
    applied(plan, Result.COMMITTED, 40.0, notify_at=None)
    assert (plan.outcome, plan.reason) == ("converged", "")


def test_a_notification_does_not_hide_that_newer_content_is_held() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=12.0)
    applied(plan, Result.HELD, 11.0, reason="shrinks")
    assert plan.next(12.0) is Step.NOTIFY
    plan.done(Result.CONVERGED, 12.5, 0.0)
    assert (plan.outcome, plan.reason) == ("held", "shrinks")
    plan.drifted(13.0, "edited", repair=True)
    assert plan.next(13.0) is Step.REPAIR
    plan.done(Result.COMMITTED, 14.0, 0.0, notify_at=None)
    assert (plan.outcome, plan.reason) == ("held", "shrinks")
    applied(plan, Result.COMMITTED, 20.0, notify_at=None)
    assert plan.outcome == "converged"


def test_failed_rollback_stops_everything_until_a_person_acts() -> None:
    plan = applied(new_plan(has_good=True), Result.COMMITTED, notify_at=10.0)
    for now in (10.0, 12.0):
        assert plan.next(now) is Step.NOTIFY
        plan.done(Result.RELOAD_FAILED, now, 0.0)
    assert plan.next(12.0) is Step.ROLLBACK
    plan.done(Result.COMMITTED, 13.0, 0.0, notify_at=13.0)
    for now in (13.0, 15.0):
        assert plan.next(now) is Step.NOTIFY
        plan.done(Result.RELOAD_FAILED, now, 0.0, reason="still bad")
    assert (plan.outcome, plan.reason) == ("rollback_failed", "still bad")
    plan.data_changed(16.0)
    plan.drifted(16.0, "edited", repair=True)
    assert plan.next(1e9) is None
    plan.retry(20.0)
    assert plan.next(20.0) is Step.APPLY


def test_without_a_good_generation_notifying_goes_on() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=10.0)
    now, waits = 10.0, []
    for _ in range(5):
        assert plan.next(now) is Step.NOTIFY
        plan.done(Result.RELOAD_FAILED, now, 0.0)
        wake = plan.wake_at()
        assert wake is not None
        waits.append(wake - now)
        now = wake
    assert plan.outcome == "reload_failed"
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] > waits[1]


def test_a_fought_repair_ends_as_contended() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=None)
    for now in (20.0, 30.0, 40.0):
        plan.drifted(now, "edited", repair=True)
        assert plan.outcome == "drifted"
        assert plan.next(now) is Step.REPAIR
        plan.done(Result.COMMITTED, now, 0.0, notify_at=None)
    plan.drifted(50.0, "edited", repair=True)
    assert plan.outcome == "contended"
    assert plan.next(60.0) is None
    plan.retry(70.0)
    assert plan.next(70.0) is Step.APPLY


def test_drift_that_is_only_reported_is_not_repaired_and_can_pass() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=None)
    plan.drifted(20.0, "edited", repair=False)
    assert plan.outcome == "drifted"
    assert plan.next(1e6) is None
    plan.undrifted()
    assert plan.outcome == "converged"


def test_pending_notification_survives_a_restart() -> None:
    plan = new_plan(to_notify=True)
    plan.remember("pending", "", 5.0, undoing=False)
    assert plan.next(5.0) is Step.NOTIFY


def test_stopped_survives_a_restart() -> None:
    plan = new_plan()
    plan.remember("rollback_failed", "why", 5.0, undoing=False)
    plan.data_changed(6.0)
    assert plan.next(100.0) is None


def test_done_without_a_step_is_a_bug() -> None:
    with pytest.raises(InvariantViolationError):
        new_plan().done(Result.COMMITTED, 1.0, 0.0)


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 0.999))
def test_backoff_stays_within_its_bounds(attempt: int, jitter: float) -> None:
    wait = backoff_s(attempt, jitter)
    assert 0.75 * limits.AGENT_RETRY_S_MIN <= wait <= limits.AGENT_RETRY_S_MAX


EVENTS = st.sampled_from(["data", "retry", "drift", "undrift", "step", "back"])


@given(st.lists(st.tuples(EVENTS, st.sampled_from(list(Result)), st.booleans()), max_size=60))
def test_any_story_leaves_a_plan_that_can_go_on(
    story: list[tuple[str, Result, bool]],
) -> None:
    """One step at a time; every outcome has a name; data always leads to a step, but if stopped."""
    plan, now = new_plan(), 0.0
    for event, result, flag in story:
        now += 1.0
        plan.has_good = flag
        if event == "data":
            plan.data_changed(now)
        elif event == "retry":
            plan.retry(now)
        elif event == "drift":
            plan.drifted(now, "edited", repair=flag)
        elif event == "undrift":
            plan.undrifted()
        elif event == "back":
            plan.roll_back(now)
        step = plan.next(now)
        if step is None:
            continue
        assert plan.next(now) is None
        if step is Step.NOTIFY:
            result = Result.CONVERGED if flag else Result.RELOAD_FAILED
        elif result in (Result.CONVERGED, Result.RELOAD_FAILED, Result.UNHEALTHY):
            result = Result.COMMITTED
        plan.done(result, now, 0.5, reason="why", notify_at=now if flag else None)
        assert plan.outcome != "rendering"
    plan.data_changed(now)
    assert plan.stopped or plan.next(now + 1e6) in (Step.APPLY, Step.ROLLBACK)


def test_a_destination_in_the_way_stays_refused_and_is_tried_each_interval() -> None:
    """Neither the scan nor the repair makes another outcome of it: every change is recorded."""
    plan = applied(new_plan(), Result.REFUSED, reason="a symlink is in the way")
    seen, tries, now = set(), 0, 10.0
    while now < 1000.0:
        now += 1.0
        plan.drifted(now, "a part of the path is a symlink", repair=True)
        seen.add(plan.outcome)
        step = plan.next(now)
        if step is not None:
            tries += 1
            plan.done(Result.REFUSED, now, 0.5, reason="a symlink is in the way")
            seen.add(plan.outcome)
    assert seen == {"refused"}
    assert 16 <= tries <= 35  # an apply and a repair each minute


def test_a_repair_that_is_refused_is_not_called_well_by_an_apply() -> None:
    plan = applied(new_plan(), Result.COMMITTED, notify_at=None)
    plan.drifted(20.0, "is gone", repair=True)
    assert plan.next(20.0) is Step.REPAIR
    plan.done(Result.REFUSED, 20.0, 0.5, reason="a symlink is in the way")
    assert plan.outcome == "refused"
    assert plan.next(79.0) is None
    assert plan.next(80.0) is Step.REPAIR
    plan.done(Result.COMMITTED, 80.0, 0.5)
    assert plan.outcome == "converged"
