"""What the log's crash images are made from, and how one is judged.

A story drives a log on a recording disk; before each file operation it notes what may be recovered
if the power goes then. ``test_wal_crash_images`` takes a sample of the images, ``run`` (``make
crash``) as many as asked for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from configsvc.raft.messages import Entry, HardState
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.segments import segment_numbers
from configsvc.storage.wal.wal import Recovered, Wal, WalOptions
from tests.support.simdisk import Op, SimDisk, State, crash_images
from tests.support.wal_cases import (
    KEY,
    OTHER_KEY,
    Model,
    Story,
    entry,
    hard,
    open_image,
    random_step,
    run_of,
    same_log,
    same_promise,
)

# What must have been under way in a run that claims to be complete.
STEPS = (
    "append", "append and rotate", "compact and recycle", "first start", "install",
    "key rotation", "making a spare", "seal", "start after a kill", "start with copy-forward",
)  # fmt: skip

# The same steps once they touch names.
MOVES = {"append": "append and rotate", "compact": "compact and recycle"}


class Told(Story):
    """A story that says which of its steps is under way."""

    step = ""

    def create(self) -> None:
        self.step = "first start"
        super().create()

    def reopen(self, *, clean: bool) -> Recovered:
        self.step = "clean stop and start" if clean else "start with copy-forward"
        return super().reopen(clean=clean)

    def append(self, hard_state: HardState, entries: Sequence[Entry] = ()) -> None:
        self.step = "append"
        super().append(hard_state, entries)

    def install(self, hard_state: HardState, installed: Installed) -> None:
        self.step = "install"
        super().install(hard_state, installed)

    def compact(self, up_to: int) -> None:
        self.step = "compact"
        super().compact(up_to)

    def rewrap(self, between: Callable[[int], None] = lambda step: None) -> None:
        def after(step: int) -> None:
            between(step)
            self.step = "key rotation"

        self.step = "key rotation"
        super().rewrap(after)

    def seal(self) -> None:
        self.step = "seal"
        super().seal()

    def prepare(self) -> None:
        self.step = "making a spare"
        super().prepare()


class Promise:
    """What may be recovered after an operation."""

    def __init__(self, story: Told, disk: SimDisk) -> None:
        self.step = story.step
        if disk.trace and disk.trace[-1].kind in ("rename", "sync_dir"):
            self.step = MOVES.get(story.step, story.step)
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


def the_story(story: Told) -> None:
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
    story.rewrap(lambda step: story.append(hard(5, 0, 102), [entry(105 + step, 5, size=9000)]))
    story.seal()
    story.reopen(clean=False)
    story.append(hard(6, 0xA1, 104))


def recorded(tell: Callable[[Told], None]) -> tuple[list[Op], list[Promise]]:
    """The operations of a story, and one promise more than those: before each, and at the end."""
    disk = SimDisk()
    story = Told(disk)
    promises: list[Promise] = []
    disk.note = lambda: promises.append(Promise(story, disk))
    tell(story)
    promises.append(Promise(story, disk))
    return disk.trace, promises


def random_story(seed: int) -> Callable[[Told], None]:
    def tell(story: Told) -> None:
        random = Random(seed)
        story.create()
        for _ in range(12):
            random_step(story, random)

    return tell


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
    trace: list[Op],
    promises: list[Promise],
    random: Random,
    *,
    samples: int,
    exhaustive: int,
    deadline: float = float("inf"),
) -> Counter[str]:
    """Every image at every point, points in random order until ``deadline``: images by step."""
    order = list(range(len(trace) + 1))
    random.shuffle(order)
    images: Counter[str] = Counter()
    for at in order:
        if time.monotonic() > deadline:
            break
        state = State()
        for op in trace[:at]:
            state.apply(op)
        # What is left after operation ``at - 1`` is bound by what was promised before the next.
        for image in crash_images(state, random, samples, exhaustive):
            check(image, promises[at])
            images[promises[at].step] += 1
    return images


def check_starts_after_kills(
    trace: list[Op],
    promises: list[Promise],
    random: Random,
    *,
    samples: int,
    exhaustive: int,
    points: int | None = None,
    deadline: float = float("inf"),
) -> Counter[str]:
    """The process is killed, the next start goes on with the page cache, and then the power goes.

    Names and pages of before the kill may still be on no disk while the start writes its own.
    ``points`` moments at most; None: all.
    """
    order = list(range(1, len(trace)))
    random.shuffle(order)
    order = order[:points]
    images: Counter[str] = Counter()
    for at in order:
        if time.monotonic() > deadline:
            break
        found = start_after_a_kill(
            trace[:at], promises[at], random, samples=samples, exhaustive=exhaustive
        )
        images["start after a kill"] += found
    return images


def start_after_a_kill(
    before: list[Op], promise: Promise, random: Random, *, samples: int, exhaustive: int
) -> int:
    """Images of a power loss during one start, and after it; 0: the kill left nothing unsynced."""
    disk = SimDisk()
    for op in before:
        disk.state.apply(op)
    cached = bool(disk.state.pending) or any(i.dirty for i in disk.state.inodes.values())
    if not cached or not segment_numbers(disk):
        return 0
    seen = 0

    def look() -> None:
        nonlocal seen
        for image in crash_images(disk.state, random, samples, exhaustive):
            check(image, promise)
            seen += 1

    disk.note = look
    wal, found = Wal.open(
        disk,
        KEY,
        older_keys=[OTHER_KEY],
        sql_applied=promise.sql_applied,
        options=WalOptions(16_384, random.randbytes),  # salts that no start before it had
    )
    wal.close()
    for image in crash_images(disk.state, random, samples, exhaustive):
        _, again = open_image(image, promise.sql_applied)
        assert again.entries == found.entries, "what a start found and may promise was lost"
        assert same_promise(again.hard_state, found.hard_state), "term or vote went back"
        seen += 1
    return seen
