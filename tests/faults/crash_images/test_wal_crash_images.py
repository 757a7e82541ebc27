"""Every crash image of the log's protocols opens, and holds what was promised.

The story covers first start, append, vote, superseding, seal, rotation, making and recycling of
spares, compaction, install, change of keys, clean and unclean restarts with copy-forward. After
each operation all (small) or sampled images are built and recovered. A power loss is never an
excuse to refuse: the log must open, hold exactly the acknowledged state or that plus the write
under way, and open again to the same.

``CRASH_IMAGES=all`` takes every operation and many more samples (``-o timeout=3600``); the count is
printed with -s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random

import pytest

from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.segments import segment_numbers
from configsvc.storage.wal.wal import Wal
from tests.support.simdisk import Op, SimDisk, State, crash_images
from tests.support.wal_cases import (
    KEY,
    OTHER_KEY,
    Model,
    Story,
    entry,
    hard,
    open_image,
    options,
    random_step,
    run_of,
    same_log,
    same_promise,
)

ALL = os.environ.get("CRASH_IMAGES") == "all"
BUDGET_S = 3.0  # per test of the default run
SAMPLES = 400 if ALL else 20
EXHAUSTIVE = 12 if ALL else 6
STORIES = 300 if ALL else 60


class Promise:
    """What may be recovered after an operation."""

    def __init__(self, story: Story) -> None:
        self.acked: Model = story.acked
        self.target: Model = story.target
        self.between: tuple[Model, ...] = story.between
        self.compacted = story.compacted
        self.created = story.created
        self.incarnation = story.incarnation

    def sql_applied(self, installed: Installed | None) -> int:
        """What the history of the installed generation holds."""
        generation = installed.generation if installed else 0
        of = self.target if generation == self.target.generation else self.acked
        return max(self.compacted, of.base)


def the_story(story: Story) -> None:
    """Everything that touches the directory, in small."""
    story.create()
    story.prepare()
    story.append(hard(1, 0xA1))  # a vote: frame and twin
    story.append(hard(1, 0xA1), run_of(1, 3, 1))
    story.seal()
    story.append(hard(2, 0xA2, 2), run_of(3, 4, 2, size=900))  # supersedes 3; rotates
    story.append(hard(2, 0xA2, 3), run_of(7, 2, 2, size=3000))
    story.prepare()
    story.append(hard(2, 0xA2, 8), [entry(9, 2, size=5000)])
    story.compact(6)  # gives segments up; the first becomes the spare
    story.append(hard(3, 0, 8), run_of(10, 2, 3, size=2000))  # in a recycled file
    story.append(hard(3, 0xA3, 9))
    story.reopen(clean=False)  # copies forward
    story.append(hard(3, 0xA3, 11), run_of(12, 1, 3))
    story.append(hard(3, 0xA3, 11), [entry(13, 3, size=20_000)])  # more than a segment holds
    story.reopen(clean=True)
    story.append(hard(4, 0xA2, 11), run_of(12, 2, 4))  # supersedes across segments
    story.compact(11)
    story.install(hard(5, 0, 100), Installed(100, 4, b"conf", 2))
    story.compact(100)
    story.append(hard(5, 0, 100), run_of(101, 2, 5, size=4000))
    story.append(hard(5, 0, 101), run_of(103, 2, 5, size=4000))
    story.compact(102)
    story.rewrap()
    story.seal()
    story.reopen(clean=False)
    story.append(hard(6, 0xA1, 104))


def recorded(tell: Callable[[Story], None]) -> tuple[list[Op], list[Promise]]:
    disk = SimDisk()
    story = Story(disk)
    promises: list[Promise] = []
    disk.note = lambda: promises.append(Promise(story))
    tell(story)
    promises.append(Promise(story))
    return disk.trace, promises


def check(image: dict[str, bytes], promise: Promise) -> None:
    if not segment_numbers(SimDisk(image, record=False)):
        assert not promise.created, "an acknowledged log is gone"
        return
    disk, first = open_image(image, promise.sql_applied)
    acked, target = promise.acked, promise.target
    took_target = any(same_log(first, m, promise.compacted) for m in (target, *promise.between))
    assert took_target or same_log(first, acked, promise.compacted), "entries were lost or made up"
    if not same_promise(first.hard_state, target.hard_state):
        assert same_promise(first.hard_state, acked.hard_state), "term or vote went back"
        assert not took_target or acked.entries == target.entries, "entries without their term"
    assert first.incarnation > promise.incarnation or not promise.created
    _, again = open_image(disk.image(), promise.sql_applied)
    assert again.entries == first.entries
    assert again.hard_state == first.hard_state
    assert again.incarnation == first.incarnation + 1
    assert (again.first_index, again.generation) == (first.first_index, first.generation)


def check_all(
    trace: list[Op], promises: list[Promise], random: Random, deadline: float
) -> tuple[int, int]:
    """Every image at every point, points in random order until ``deadline``: (images, points)."""
    order = list(range(len(trace) + 1))
    random.shuffle(order)
    images = points = 0
    for at in order:
        if time.monotonic() > deadline:
            break
        state = State()
        for op in trace[:at]:
            state.apply(op)
        points += 1
        # What is left after operation ``at - 1`` is bound by what was promised before the next.
        for image in crash_images(state, random, SAMPLES, EXHAUSTIVE):
            check(image, promises[at])
            images += 1
    return images, points


def deadline() -> float:
    return time.monotonic() + (3_600 if ALL else BUDGET_S)


def test_every_crash_image_recovers() -> None:
    trace, promises = recorded(the_story)
    images, points = check_all(trace, promises, Random(7), deadline())
    print(f"crash images: {images} at {points} of {len(trace) + 1} points")
    assert images > 300


def test_crash_images_of_random_stories_recover() -> None:
    until = deadline()
    images = stories = 0
    for seed in range(STORIES):
        if time.monotonic() > until:
            break
        random = Random(seed)

        def tell(story: Story, random: Random = random) -> None:
            story.create()
            for _ in range(12):
                random_step(story, random)

        trace, promises = recorded(tell)
        try:
            images += check_all(trace, promises, random, until)[0]
        except BaseException:
            print(f"seed {seed}")
            raise
        stories += 1
    print(f"crash images: {images} of {stories} random stories")
    assert images > 300


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
    story = Story(disk)
    story.create()
    story.prepare()
    story.append(hard(1, 1))
    promises: list[Promise] = []
    start = disk.durable_image()
    real = disk.do
    monkeypatch.setattr(disk, "do", lambda op: None if op.kind == "sync" else real(op))
    story.append(hard(1, 1), run_of(1, 3, 1))
    promises.append(Promise(story))
    with pytest.raises(AssertionError, match="entries were lost"):
        check(start, promises[-1])


@pytest.mark.parametrize("later_loss", [False, True])
def test_a_failed_sync_is_never_trusted(later_loss: bool) -> None:
    """After a failed sync the pages read back well and are on no disk (W7)."""
    trace, _ = recorded(the_story)
    syncs = [n for n, op in enumerate(trace) if op.kind == "sync"]
    for at in syncs:
        disk = SimDisk()
        story = Story(disk)
        disk.fail_at = at
        with pytest.raises(OSError, match="error"):
            the_story(story)
        promise = Promise(story)
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
