"""``make damage``: a small history database with a bit turned or a page zeroed, by the thousand.

Every page is zeroed once; of the bits a sample of ``--bits`` is taken. 0 turns every single bit of
a still smaller file (small pages, few changes): about forty minutes of CPU. Prints what became of
the images, and fails when a key, a value or a revision was served wrong without being told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

from tests.faults.history_images.history_damage import (
    SMALL,
    Case,
    Damage,
    Found,
    Size,
    damages,
    one_query_cache,
)

SLICE = 500  # images judged by a process before it tells


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make damage", description=__doc__)
    parser.add_argument("--bits", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(argv)
    images: Counter[Found] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as folder, one_query_cache():
        case = Case(Path(folder), Size() if asked.bits else SMALL)
        every = list(damages(case, Random(asked.seed), asked.bits))
        began = time.monotonic()
        for judged in _judged(case, every, Path(folder), asked.jobs):
            for damage, found in judged:
                images[found] += 1
                if found.outcome in ("wrong", "surprise"):
                    bad += 1
                    print(f"{damage}: {found.outcome}, {found.why}", flush=True)
            _progress(images.total(), len(every), began)
    for (outcome, why), count in sorted(images.items()):
        print(f"{count:>9} {outcome:9} {why}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{images.total()} images of {len(case.whole) // case.page} pages, {bad} bad;"
        f" {used.ru_utime + used.ru_stime:.0f} CPU-s"
    )
    return 1 if bad or images.total() != len(every) else 0


def _judged(
    case: Case, every: list[Damage], folder: Path, jobs: int
) -> Iterator[list[tuple[Damage, Found]]]:
    """Slices of images with what became of them, from ``jobs`` processes, in any order."""
    slices = iter(every)
    work = iter(lambda: list(islice(slices, SLICE)), [])
    fork = multiprocessing.get_context("fork")  # the case is handed down as it is
    with fork.Pool(jobs, _begin, (case, folder)) as pool:
        yield from pool.imap_unordered(_judge, work)
        pool.close()
        pool.join()


_mine: list[Case] = []


def _begin(case: Case, folder: Path) -> None:
    _mine.append(case.at(folder / str(os.getpid())))


def _judge(some: Iterable[Damage]) -> list[tuple[Damage, Found]]:
    judged = []
    for damage in some:
        try:
            found = _mine[0].judge(damage)
        except Exception as error:
            found = Found("surprise", type(error).__name__)
        judged.append((damage, found))
    return judged


def _progress(done: int, total: int, began: float) -> None:
    if sys.stderr.isatty():
        left = (time.monotonic() - began) * (total - done) / done
        print(f"\r{done} of {total}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
