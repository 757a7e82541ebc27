"""``make crash``: crash images of the log's protocols, by the million.

First the story that touches everything, then random stories from seed 0 on, until so many images
were recovered. A wrong outcome prints the one command that replays it. A run of 100,000 images or
more in which one of the protocols was never under way fails too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from random import Random
from typing import NamedTuple

from tests.faults.crash_images.crash_cases import (
    STEPS,
    check_all,
    check_starts_after_kills,
    random_story,
    recorded,
    the_story,
)

THE_STORY = -1
ENOUGH = 100_000
SAMPLES, EXHAUSTIVE = 60, 8
STARTS = 10  # after kills, in each story: each of them gives a hundred images


class Found(NamedTuple):
    """What one story gave; ``problem`` is empty when all was well."""

    story: int
    images: Counter[str]
    cpu_s: float
    problem: str


def one(story: int) -> Found:
    """All images of a story."""
    began = time.process_time()
    images: Counter[str] = Counter()
    problem = ""
    try:
        trace, promises = recorded(the_story if story == THE_STORY else random_story(story))
        random = Random(story)
        images = check_all(trace, promises, random, samples=SAMPLES, exhaustive=EXHAUSTIVE)
        images += check_starts_after_kills(
            trace, promises, random, samples=4, exhaustive=3, points=STARTS
        )
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    return Found(story, images, time.process_time() - began, problem)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--story", type=int, help="only this one; -1 is the one that has all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(argv)
    if asked.story is not None:
        found = one(asked.story)
        print(found.problem or f"{found.images.total()} images, 0 wrong")
        return 1 if found.problem else 0
    images: Counter[str] = Counter()
    cpu, stories, wrong = 0.0, 0, 0
    with ProcessPoolExecutor(asked.jobs) as pool:
        at = THE_STORY
        running: set[Future[Found]] = set()
        while running or images.total() < asked.images:
            while images.total() < asked.images and len(running) < 2 * asked.jobs:
                running.add(pool.submit(one, at))
                at += 1
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for found in (future.result() for future in done):
                images, cpu, stories = images + found.images, cpu + found.cpu_s, stories + 1
                if found.problem:
                    wrong += 1
                    print(f"story {found.story}: {found.problem}", flush=True)
                    print(f"  replay: make crash STORY={found.story}", flush=True)
    for step, count in sorted(images.items()):
        print(f"{count:>9} {step}")
    missing = [step for step in STEPS if not images[step]] if images.total() >= ENOUGH else []
    for step in missing:
        print(f"never under way: {step}")
    total = images.total()
    print(
        f"{total} crash images of {stories} stories, {wrong} wrong; "
        f"{cpu:.0f} CPU-s = {total / max(cpu, 1e-9) * 3600 / 1e6:.2f} M images per CPU-hour"
    )
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
