"""An install is read in short slices, and less often while writes suffer from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc import limits
from configsvc.runtime.install_pace import Breath, Pace, urgency

TICK = 0.05
QUIET_S = 0.001
BUSY, LOW, HIGH = limits.INSTALL_SHARE_BUSY, limits.INSTALL_SHARE_MIN, limits.INSTALL_SHARE_MAX
MORE = limits.INSTALL_SUFFER_MAX * QUIET_S + limits.INSTALL_SUFFER_S


class Ticks:
    """A member's ticks; ``run`` says what each of them finds."""

    def __init__(self) -> None:
        self.pace = Pace(TICK)
        self.now = 100.0
        self.frames = 0

    def run(
        self, seconds: float, *, reading: bool, sync_s: float = QUIET_S, late_s: float = 0.0,
        writes: bool = True,
    ) -> float:  # fmt: skip
        end = self.now + seconds
        while self.now < end:
            self.now += TICK + late_s
            self.frames += writes
            self.pace.note(self.now, self.frames, sync_s, reading=reading)
        return self.pace.share


@pytest.fixture
def ticks() -> Ticks:
    made = Ticks()
    made.run(10.0, reading=False)
    return made


@pytest.mark.parametrize(
    ("seen", "bound"),
    [
        pytest.param({}, BUSY, id="as-before"),
        pytest.param({"sync_s": 0.95 * MORE}, BUSY, id="hardly-slower"),
        pytest.param({"sync_s": 1.05 * MORE}, LOW, id="slower-syncs"),
        pytest.param({"late_s": 1.05 * (MORE - QUIET_S)}, LOW, id="late-timers"),
        pytest.param({"writes": False, "sync_s": 1.0}, HIGH, id="nobody-writes"),
        pytest.param({"sync_s": 0.0}, BUSY, id="faster-than-before"),
    ],
)
def test_where_the_share_ends(ticks: Ticks, seen: dict[str, float], bound: float) -> None:
    assert ticks.run(60.0, reading=True, **seen) == bound  # type: ignore[arg-type]


def test_the_share_moves_a_step_at_each_look(ticks: Ticks) -> None:
    look = limits.INSTALL_LOOK_S + 2 * TICK
    first = ticks.run(look, reading=True, sync_s=2 * MORE)
    second = ticks.run(look, reading=True, sync_s=2 * MORE)
    assert BUSY > first > second > LOW
    assert ticks.run(look, reading=True) > second


def test_a_writer_who_comes_late_finds_the_share_of_writers(ticks: Ticks) -> None:
    assert ticks.run(60.0, reading=True, writes=False) == HIGH
    assert ticks.run(limits.INSTALL_LOOK_S + 2 * TICK, reading=True) == BUSY


def test_each_install_begins_alike(ticks: Ticks) -> None:
    assert ticks.run(60.0, reading=True, sync_s=2 * MORE) == LOW
    ticks.run(5.0, reading=False)
    assert ticks.run(TICK, reading=True) == BUSY


def test_quiet_times_are_learnt_without_an_install_alone(ticks: Ticks) -> None:
    known = ticks.pace.quiet_s
    assert known == pytest.approx(QUIET_S)
    ticks.run(30.0, reading=True, sync_s=1.0)
    assert ticks.pace.quiet_s == known
    ticks.run(60.0, reading=False, sync_s=5 * QUIET_S)
    assert ticks.pace.quiet_s == pytest.approx(5 * QUIET_S, rel=0.01)


def test_who_knows_no_quiet_time_keeps_the_first_share() -> None:
    fresh = Ticks()
    assert fresh.run(30.0, reading=True, sync_s=1.0) == BUSY


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.booleans(), st.booleans())))
def test_the_share_stays_within_its_bounds(seen: list[tuple[float, float, bool, bool]]) -> None:
    ticks = Ticks()
    for sync_s, late_s, writes, reading in seen:
        share = ticks.run(1.2, reading=reading, sync_s=sync_s, late_s=late_s, writes=writes)
        assert LOW <= share <= HIGH


CALM, URGENT = limits.INSTALL_LOG_CALM_BYTES, limits.INSTALL_LOG_URGENT_BYTES


@pytest.mark.parametrize(
    ("log_bytes", "share"),
    [
        pytest.param(0, LOW, id="none"),
        pytest.param(CALM, LOW, id="what-is-always-kept"),
        pytest.param((CALM + URGENT) // 2, 0.5, id="half-way"),
        pytest.param(URGENT, 1.0, id="all-the-time"),
        pytest.param(2 * URGENT, 1.0, id="too-late"),
    ],
)
def test_S1_a_log_that_grows_too_long_outweighs_what_writes_suffer(
    ticks: Ticks, log_bytes: int, share: float
) -> None:
    ticks.run(60.0, reading=True, sync_s=1.0)
    ticks.pace.note(ticks.now, ticks.frames, 1.0, reading=True, log_bytes=log_bytes)
    assert ticks.pace.share == share
    assert urgency(log_bytes) <= share
    assert ticks.run(TICK, reading=True, sync_s=1.0) == LOW, "for as long as it is so"


class Thread:
    """A reading thread: works when told, and notes its rests."""

    def __init__(self, share: float) -> None:
        self.cpu = 5.0
        self.rests: list[float] = []
        pace = Pace(TICK)
        pace.share = share
        self.breath = Breath(pace, worked=lambda: self.cpu, sleep=self.rests.append)
        self.breath()

    def work(self, seconds: float) -> None:
        self.cpu += seconds
        self.breath()


SLICE = limits.INSTALL_SLICE_S


@pytest.mark.parametrize(
    ("share", "worked", "rest"),
    [
        (0.5, SLICE, SLICE),
        (0.25, SLICE, 3 * SLICE),
        (0.1, 2 * SLICE, 18 * SLICE),
        (0.1, 1.0, limits.INSTALL_REST_S_MAX),
        (1.0, SLICE, 0.0),
    ],
)
def test_how_long_it_rests(share: float, worked: float, rest: float) -> None:
    thread = Thread(share)
    thread.work(worked * 1.0001)
    assert thread.rests == [pytest.approx(rest, rel=0.001)]


def test_short_work_adds_up_to_a_slice() -> None:
    thread = Thread(0.5)
    for _ in range(30):
        thread.work(0.4 * SLICE)
    assert len(thread.rests) == 10
    assert sum(thread.rests) == pytest.approx(12 * SLICE)


def test_what_the_thread_did_before_is_not_counted() -> None:
    thread = Thread(0.5)
    assert thread.rests == [], "five seconds, of the install before"


def test_the_bounds_fit_each_other() -> None:
    assert 0 < LOW <= BUSY <= HIGH < 1
    assert limits.INSTALL_SLICE_S * (1 / LOW - 1) < limits.INSTALL_REST_S_MAX
    assert limits.INSTALL_LOOK_S >= 10 * TICK
    assert limits.APPLY_LAG_BYTES_MAX < CALM < URGENT < limits.LOG_RETAINED_BYTES_MAX
