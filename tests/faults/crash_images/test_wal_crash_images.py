"""Every crash image of the log's protocols opens, and holds what was promised.

The story covers first start, append, vote, superseding, seal, rotation, making and recycling of
spares, compaction, install, change of keys, clean and unclean restarts with copy-forward. After
each operation all (small) or sampled images are built and recovered. A power loss is never an
excuse to refuse: the log must open, hold exactly the acknowledged state or that plus the write
under way, and open again to the same.

A sample within a few seconds; ``make crash`` takes a million. The count is printed with -s.
"""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import pytest

from configsvc.storage.wal.segments import segment_numbers
from configsvc.storage.wal.wal import Wal
from tests.faults.crash_images.crash_cases import (
    Promise,
    Told,
    check,
    check_all,
    check_starts_after_kills,
    random_story,
    recorded,
    start_after_a_kill,
    the_story,
)
from tests.support.simdisk import SimDisk, State
from tests.support.wal_cases import (
    KEY,
    OTHER_KEY,
    hard,
    open_image,
    options,
    run_of,
    same_promise,
)

BUDGET_S = 3.0  # per test
SAMPLES, EXHAUSTIVE = 20, 6
STORIES = 60


def test_every_crash_image_recovers() -> None:
    trace, promises = recorded(the_story)
    until = time.monotonic() + BUDGET_S
    images = check_all(
        trace, promises, Random(7), samples=SAMPLES, exhaustive=EXHAUSTIVE, deadline=until
    )
    print(f"crash images: {images.total()} {dict(images)}")
    assert images.total() > 300


def test_crash_images_of_random_stories_recover() -> None:
    until = time.monotonic() + BUDGET_S
    images: Counter[str] = Counter()
    for seed in range(STORIES):
        if time.monotonic() > until:
            break
        trace, promises = recorded(random_story(seed))
        try:
            images += check_all(
                trace,
                promises,
                Random(seed),
                samples=SAMPLES,
                exhaustive=EXHAUSTIVE,
                deadline=until,
            )
        except BaseException:
            print(f"replay: make crash STORY={seed}")
            raise
    print(f"crash images: {images.total()} {dict(images)}")
    assert images.total() > 300


@pytest.mark.parametrize(
    ("kind", "name"), [("create", "making.tmp"), ("rename", "segment"), ("rename", "spare.tmp")]
)
def test_a_start_after_a_kill_trusts_no_name_that_is_on_no_disk(kind: str, name: str) -> None:
    """A segment became the spare, or a file was begun, and the process was killed before the
    directory's sync: the next start writes into files of such names, and the power goes (W4).
    """
    trace, promises = recorded(the_story)
    points = [
        at
        for at, op in enumerate(trace, start=1)
        if op.kind == kind and op.name.startswith(name) and at < len(trace)
    ]
    images = sum(
        start_after_a_kill(trace[:at], promises[at], Random(at), samples=2, exhaustive=2)
        for at in points[:: max(1, len(points) // 8)]
    )
    assert images > 100


def test_starts_after_kills_at_any_moment() -> None:
    trace, promises = recorded(the_story)
    until = time.monotonic() + BUDGET_S
    images = check_starts_after_kills(
        trace, promises, Random(7), samples=2, exhaustive=2, deadline=until
    )
    print(f"crash images: {images.total()}")
    assert images.total() > 50


def test_a_killed_process_leaves_the_page_cache() -> None:
    trace, promises = recorded(the_story)
    state = State()
    for at, op in enumerate(trace):
        state.apply(op)
        live = {n: bytes(state.inodes[i].live) for n, i in state.live.items()}
        check(live, promises[at + 1])


def test_a_log_that_acknowledges_before_its_sync_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: without syncs of frames the enumerator must find a lost promise."""
    disk = SimDisk()
    story = Told(disk)
    story.create()
    story.prepare()
    story.append(hard(1, 1))
    promises: list[Promise] = []
    start = disk.durable_image()
    real = disk.do
    monkeypatch.setattr(disk, "do", lambda op: None if op.kind == "sync" else real(op))
    story.append(hard(1, 1), run_of(1, 3, 1))
    promises.append(Promise(story, disk))
    with pytest.raises(AssertionError, match="entries were lost"):
        check(start, promises[-1])


@pytest.mark.parametrize("later_loss", [False, True])
def test_a_failed_sync_is_never_trusted(later_loss: bool) -> None:
    """After a failed sync the pages read back well and are on no disk (W7)."""
    trace, _ = recorded(the_story)
    syncs = [n for n, op in enumerate(trace) if op.kind == "sync"]
    for at in syncs:
        disk = SimDisk()
        story = Told(disk)
        disk.fail_at = at
        with pytest.raises(OSError, match="error"):
            the_story(story)
        promise = Promise(story, disk)
        disk.locked = False
        if not segment_numbers(disk):
            assert not story.created
            continue
        # The process restarts on the page cache and acknowledges what it recovered ...
        disk.fail_at = None
        check(disk.image(), promise)
        wal, first = Wal.open(
            disk,
            KEY,
            older_keys=[OTHER_KEY],
            sql_applied=promise.sql_applied,
            options=options(),
        )
        wal.close()
        if later_loss:  # ... and then the power goes: only what is durable stays.
            _, again = open_image(disk.durable_image(), promise.sql_applied)
            assert again.entries == first.entries
            assert same_promise(again.hard_state, first.hard_state)
