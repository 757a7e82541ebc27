"""``make fuzz``: as many inputs as asked for, shared out over all targets by their price.

The engine is the coverage-guided loop of ``guide``, or libFuzzer (``native``). Prints a line per
target: inputs, inputs per second, steps of ours that were reached, inputs kept for reaching
something first, growth of memory after the first tenth.
What breaks an oracle is written beside its seed to ``.dev/fuzz`` and ends the run with 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from random import Random

from tests.fuzz import native
from tests.fuzz.guide import Guide
from tests.fuzz.inputs import make
from tests.fuzz.results import FINDINGS, Tally
from tests.fuzz.targets import TARGETS

SHARES = {"http2": 3, "grpc": 3, "json": 3, "http2-session": 1, "http1-session": 1}


def run(target: str, count: int, seed: int, findings: Path = FINDINGS) -> int:
    """Drive one target with our own loop; the number of findings, 0 or 1."""
    check = TARGETS[target]
    random = Random(f"{target} {seed}")
    guide, tally = Guide(random), Tally(target, count, seed, findings)
    while tally.done < count:
        data = guide.next(lambda: make(target, random))
        tally.begin()
        try:
            guide.run(check, data)
        except Exception as error:
            tally.found(error, data)
            return 1
    return tally.close(f"{len(guide.seen):,} steps reached, {len(guide.kept)} kept")


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz what reads bytes of strangers")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--replay", type=Path, help="one input of one --target")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = asked.target or list(TARGETS)
    if asked.replay is not None:
        TARGETS[chosen[0]](asked.replay.read_bytes())
        return 0
    drive = run
    if asked.engine == "atheris":
        if not native.install():
            return 2
        drive = native.run
    print(f"seed {asked.seed}", flush=True)
    parts = sum(SHARES[target] for target in chosen)
    counts = {target: -(-asked.inputs * SHARES[target] // parts) for target in chosen}
    found = sum(drive(target, count, asked.seed) for target, count in counts.items())
    print(f"{sum(counts.values()):,} inputs, {found} targets with findings", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
