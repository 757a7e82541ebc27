"""The writer thread: order, merging, durability before the answer, idle work, death."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from configsvc.codec.records import encode_entries
from configsvc.errors import ExitCode, FatalError, InvariantViolationError
from configsvc.storage.disk import OsDisk
from configsvc.storage.wal.format import FrameKind, Installed
from configsvc.storage.wal.inspect import iterate_frames
from configsvc.storage.wal.wal import Wal, WalOptions
from configsvc.storage.wal.writer import PUT_OFF_S, Submission, WalWriter, may_merge, merge
from tests.support.simdisk import Op, SimDisk
from tests.support.wal_cases import IDENTITY, KEY, entry, hard, open_image, options, run_of

PATIENCE_S = 5.0


class GatedDisk(SimDisk):
    """Syncs wait for ``gate``; ``reached`` tells that one does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def do(self, op: Op) -> None:
        if op.kind == "sync" and not self.gate.is_set():
            self.reached.set()
            assert self.gate.wait(PATIENCE_S)
        super().do(op)


class Rig:
    """A writer on a gated disk, and what it reported."""

    def __init__(self, segment_bytes: int = 65_536) -> None:
        self.disk = GatedDisk()
        wal = Wal.create(self.disk, IDENTITY, KEY, options=options(segment_bytes))
        while wal.prepare_step():
            pass
        self.durable: list[int] = []
        self.deaths: list[FatalError] = []
        self.space: list[bool] = []
        self._news = threading.Condition()
        self.writer = WalWriter(
            wal,
            on_durable=lambda token: self._tell(self.durable, token),
            on_space=lambda there_is: self._tell(self.space, there_is),
            die=lambda error: self._tell(self.deaths, error),
        )
        self.writer.start()

    def _tell(self, to: list[Any], what: object) -> None:
        with self._news:
            to.append(what)
            self._news.notify_all()

    def until(self, happened: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(happened, PATIENCE_S)

    def submit(self, first: int, count: int, token: int, term: int = 1) -> None:
        blob = encode_entries(run_of(first, count, term))
        self.writer.submit(hard(term, 0, first - 1), first, count, blob, token)

    def hold_first(self) -> None:
        """Submit token 1 and hold its sync."""
        self.disk.gate.clear()
        self.disk.reached.clear()
        self.submit(1, 1, 1)
        assert self.disk.reached.wait(PATIENCE_S)

    def frames(self) -> list[tuple[int, int]]:
        views = iterate_frames(self.disk, [KEY])
        return [(v.entries[0].index, len(v.entries)) for v in views if v.entries]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_waits_behind_a_sync_becomes_one_frame(rig: Rig) -> None:
    rig.hold_first()
    for token in range(2, 10):
        rig.submit(token, 1, token)
    assert rig.durable == []
    rig.disk.gate.set()
    rig.until(lambda: 9 in rig.durable)
    assert rig.durable == [1, 9]
    assert rig.frames() == [(1, 1), (2, 8)]
    assert rig.writer.stop()
    _, recovered = open_image(rig.disk.image(), 0)
    assert recovered.entries == run_of(1, 9, 1)
    assert recovered.clean_stop


def test_superseding_records_and_installs_stay_frames_of_their_own(rig: Rig) -> None:
    rig.hold_first()
    rig.submit(2, 2, 2)
    rig.submit(3, 1, 3, term=2)
    rig.writer.submit_installed(hard(2, 0, 9), Installed(9, 2, b"c", 2), 4)
    rig.submit(10, 1, 5, term=2)
    rig.writer.submit(hard(3, 7, 10), 0, 0, b"", 6)
    rig.disk.gate.set()
    rig.until(lambda: 6 in rig.durable)
    assert rig.durable == [1, 2, 3, 4, 6]
    assert rig.writer.stop()
    _, recovered = open_image(rig.disk.image(), 9)
    assert recovered.entries == [entry(10, 2)]
    assert recovered.hard_state == hard(3, 7, 10)
    assert recovered.generation == 2


def test_nothing_is_reported_before_its_sync(rig: Rig) -> None:
    at_report: list[bool] = []

    def check(token: int) -> None:
        _, recovered = open_image(rig.disk.durable_image(), 0)
        at_report.append(recovered.last_index >= token)

    rig.writer._on_durable = check
    for token in range(1, 30):
        rig.submit(token, 1, token)
    assert rig.writer.stop()
    assert at_report
    assert all(at_report)


def test_the_age_of_the_oldest_write(rig: Rig) -> None:
    now = time.monotonic()
    assert rig.writer.oldest_unsynced_age(now + 9) == 0.0
    rig.hold_first()
    rig.submit(2, 1, 2)
    assert 2 < rig.writer.oldest_unsynced_age(now + 9) <= 9
    rig.disk.gate.set()
    rig.until(lambda: 2 in rig.durable)
    assert rig.writer.oldest_unsynced_age(now + 9) == 0.0
    assert rig.writer.stop()


def test_the_last_frame_is_sealed_when_nothing_follows(rig: Rig) -> None:
    rig.submit(1, 1, 1)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        kinds = [view.kind for view in iterate_frames(SimDisk(rig.disk.durable_image()), [KEY])]
        if kinds[-1] == FrameKind.SEAL:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("no seal")
    assert rig.writer.stop(clean=False)


def test_idle_time_makes_the_next_segment_and_compacts() -> None:
    rig = Rig(16_384)
    for token in range(1, 9):
        rig.submit(token, 1, token)
        rig.until(lambda token=token: token in rig.durable)  # type: ignore[misc]
    rig.writer.compact(6)
    done = threading.Event()
    assert rig.writer.run_job(lambda wal: done.set())
    assert done.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while "spare.tmp" not in rig.disk.names() and time.monotonic() < deadline:
        threading.Event().wait(0.01)  # a stop may come before idle time did
    assert "spare.tmp" in rig.disk.names()
    assert rig.writer.stop()
    assert rig.writer.retained_first_index > 1
    _, recovered = open_image(rig.disk.image(), 6)
    assert recovered.last_index == 8


def test_a_log_that_is_never_idle_is_compacted_and_does_its_jobs() -> None:
    """Each frame is submitted the moment the one before is durable."""
    disk = SimDisk()
    wal = Wal.create(disk, IDENTITY, KEY, options=options(16_384))
    last, ended, jobs, most = 200, threading.Event(), [], 0
    time_s = 0.0

    def clock() -> float:
        nonlocal time_s
        time_s += PUT_OFF_S / 50
        return time_s

    def go_on(token: int) -> None:
        nonlocal most
        most = max(most, wal.segment_count)
        if token == last:
            ended.set()
            return
        writer.compact(token - 1)
        following = token + 1
        blob = encode_entries(run_of(following, 1, 1))
        writer.submit(hard(1, 0, token), following, 1, blob, following)

    writer = WalWriter(wal, on_durable=go_on, clock=clock)
    assert writer.run_job(lambda _: jobs.append(ended.is_set()))
    writer.submit(hard(1), 1, 1, encode_entries(run_of(1, 1, 1)), 1)
    writer.start()
    assert ended.wait(PATIENCE_S)
    assert writer.stop()
    assert jobs == [False]  # not only when the load was over
    assert most < last // 4


def test_no_space_for_the_next_segment_is_told_and_not_fatal() -> None:
    rig = Rig(16_384)
    real = rig.disk.do
    full = threading.Event()
    full.set()

    def do(op: Op) -> None:
        if full.is_set() and op.kind == "create":
            raise OSError(errno.ENOSPC, "no space")
        real(op)

    rig.disk.do = do  # type: ignore[method-assign]
    rig.submit(1, 1, 1)  # takes the spare
    rig.until(lambda: rig.space == [False])
    assert rig.durable == [1]
    full.clear()
    rig.until(lambda: rig.space == [False, True])
    assert rig.deaths == []
    assert rig.writer.stop()


def test_space_that_a_compaction_gave_is_told() -> None:
    """The disk stays full, and yet the next segment is there: an old one was recycled."""
    rig = Rig(16_384)
    real = rig.disk.do
    full = threading.Event()

    def do(op: Op) -> None:
        if full.is_set() and op.kind == "create":
            raise OSError(errno.ENOSPC, "no space")
        real(op)

    rig.disk.do = do  # type: ignore[method-assign]
    for token in range(1, 9):
        rig.submit(token, 1, token)
        rig.until(lambda token=token: token in rig.durable)  # type: ignore[misc]
    full.set()
    last = 8
    while not rig.space:
        last += 1
        rig.submit(last, 1, last)
        rig.until(lambda last=last: last in rig.durable)  # type: ignore[misc]
    rig.until(lambda: rig.space == [False])
    rig.writer.compact(6)
    rig.until(lambda: rig.space == [False, True])
    assert rig.deaths == []
    assert rig.writer.stop()


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_failed_write_or_sync_ends_the_process(rig: Rig, kind: str) -> None:
    real = rig.disk.do

    def do(op: Op) -> None:
        if op.kind == kind:
            raise OSError(errno.EIO, "input/output error")
        real(op)

    rig.disk.do = do  # type: ignore[method-assign]
    rig.submit(1, 1, 1)
    rig.until(lambda: bool(rig.deaths))
    assert rig.durable == []
    assert rig.deaths[0].code is ExitCode.STORAGE
    assert "EIO" in str(rig.deaths[0])
    assert "segment-0000000000000001.wal, offset" in str(rig.deaths[0])


def test_a_bug_ends_the_process_without_its_text(rig: Rig) -> None:
    def job(_: Wal) -> None:
        raise ValueError("secret")

    assert rig.writer.run_job(job)
    rig.until(lambda: bool(rig.deaths))
    assert rig.deaths[0].code is ExitCode.INVARIANT
    assert "secret" not in str(rig.deaths[0])


def test_bounds(rig: Rig) -> None:
    rig.hold_first()
    assert [rig.writer.run_job(lambda _: None) for _ in range(65)] == [True] * 64 + [False]
    for token in range(2, 2 + 1_024):
        rig.submit(token, 1, token)
    with pytest.raises(InvariantViolationError, match="waits for its log"):
        rig.submit(2_000, 1, 2_000)
    rig.disk.gate.set()
    assert rig.writer.stop()
    with pytest.raises(InvariantViolationError, match="closed"):
        rig.submit(2_000, 1, 2_000)


def test_a_hanging_disk_does_not_hold_up_the_stop(rig: Rig) -> None:
    rig.hold_first()
    assert not rig.writer.stop(timeout=0.05)
    rig.disk.gate.set()


def work(first: int, count: int, *, installed: bool = False) -> Submission:
    what = Installed(1, 1, b"", 1) if installed else None
    return Submission(hard(1), first, count, b"r" * count, 1, what, 0.0)


@pytest.mark.parametrize(
    ("last", "following", "size", "expected"),
    [
        pytest.param(work(1, 2), work(3, 1), 2, True, id="contiguous"),
        pytest.param(work(1, 2), work(0, 0), 2, True, id="hard state behind records"),
        pytest.param(work(0, 0), work(0, 0), 0, True, id="two hard states"),
        pytest.param(work(0, 0), work(1, 1), 0, False, id="records behind a hard state"),
        pytest.param(work(1, 2), work(2, 1), 2, False, id="superseding"),
        pytest.param(work(1, 2), work(0, 0, installed=True), 2, False, id="install"),
        pytest.param(work(0, 0, installed=True), work(2, 1), 0, False, id="behind an install"),
        pytest.param(work(1, 2), work(3, 1), 4 << 20, False, id="too much"),
    ],
)
def test_what_may_share_a_frame(
    last: Submission, following: Submission, size: int, expected: bool
) -> None:
    assert may_merge(last, following, size) is expected


def test_merged_work_has_the_newest_state_and_the_oldest_time() -> None:
    one = Submission(hard(1), 5, 1, b"a", 3, None, 1.0)
    two = Submission(hard(2, 9), 0, 0, b"", 4, None, 2.0)
    assert merge([one, two]) == Submission(hard(2, 9), 5, 1, b"a", 4, None, 1.0)


DYING = """
import errno, sys
from configsvc.raft.messages import HardState
from configsvc.storage.disk import OsDisk, OsFile
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.wal import Wal, WalIdentity, WalOptions
from configsvc.storage.wal.writer import WalWriter
import threading
wal = Wal.create(OsDisk(sys.argv[1]), WalIdentity(1, 2, b"s" * 16), KeyFile(b"k" * 32),
                 options=WalOptions(16384))
def broken(self):
    raise OSError(errno.EIO, "bad")
OsFile.sync = broken
writer = WalWriter(wal, on_durable=lambda token: print("acknowledged", token))
writer.start()
writer.submit(HardState(1, 0, 0), 0, 0, b"", 1)
threading.Event().wait(5)
"""


def test_a_real_process_ends_with_80_and_one_line(tmp_path: object) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 80
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "storage error" in ended.stderr
    assert "repair" in ended.stderr


def test_on_a_real_disk(tmp_path: object) -> None:
    durable = threading.Event()
    wal = Wal.create(OsDisk(str(tmp_path)), IDENTITY, KEY, options=WalOptions(16_384))
    writer = WalWriter(wal, on_durable=lambda token: durable.set() if token == 50 else None)
    writer.start()
    for token in range(1, 51):
        blob = encode_entries(run_of(token, 1, 1))
        writer.submit(hard(1, 0, token - 1), token, 1, blob, token)
    assert durable.wait(PATIENCE_S)
    assert writer.stop()
    disk = OsDisk(str(tmp_path))
    wal, recovered = Wal.open(disk, KEY, expect=IDENTITY, options=WalOptions(16_384))
    assert recovered.entries == run_of(1, 50, 1)
    second = OsDisk(str(tmp_path))
    with pytest.raises(FatalError, match="lock"):
        Wal.open(second, KEY)
    second.close()
    wal.close()
