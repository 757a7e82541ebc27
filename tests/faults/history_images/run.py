"""``make damage``: a small history database with a bit turned or a page zeroed, by the thousand.

Every page is zeroed once; of the bits a sample of ``--bits`` is taken (0: every single one, which
takes hours). Prints what became of the images, and fails when a key, a value or a revision was
served wrong without anything telling so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.faults.history_images.history_damage import Case, Found, damages


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make damage", description=__doc__)
    parser.add_argument("--bits", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(argv)
    began = time.process_time()
    images: Counter[Found] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        for damage in damages(case, Random(asked.seed), asked.bits):
            try:
                found = case.judge(damage)
            except Exception as error:
                found = Found("surprise", type(error).__name__)
            images[found] += 1
            if found.outcome in ("wrong", "surprise"):
                bad += 1
                print(f"{damage}: {found.outcome}, {found.why}", flush=True)
    for (outcome, why), count in sorted(images.items()):
        print(f"{count:>9} {outcome:9} {why}")
    print(
        f"{images.total()} images of {len(case.whole) // case.page} pages, {bad} bad;"
        f" {time.process_time() - began:.0f} CPU-s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
