"""``make fuzz``: as many inputs as asked for, shared out over all targets by their price.

The engine is the coverage-guided loop of ``guide``; there is no native one behind it. Prints a
line per target: inputs, inputs per second, steps of ours that were reached, inputs kept for
reaching one first, growth of memory after the first tenth.
What breaks an oracle is written beside its seed to ``.dev/fuzz`` and ends the run with 1.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from pathlib import Path
from random import Random

from tests.fuzz.guide import Guide
from tests.fuzz.inputs import make
from tests.fuzz.targets import TARGETS

FINDINGS = Path(__file__).resolve().parents[2] / ".dev" / "fuzz"
SHARES = {"http2": 3, "grpc": 3, "json": 3, "http2-session": 1, "http1-session": 1}
GROWTH_KIB_MAX = 64 * 1024  # of the process, once it is warm


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(target: str, count: int, seed: int) -> int:
    """Drive one target; the number of findings, 0 or 1."""
    check = TARGETS[target]
    random = Random(f"{target} {seed}")
    guide = Guide(random)
    started, warm = time.monotonic(), peak_kib()
    for number in range(count):
        if number == count // 10:
            warm = peak_kib()
        data = guide.next(lambda: make(target, random))
        try:
            guide.run(check, data)
        except Exception as error:
            FINDINGS.mkdir(parents=True, exist_ok=True)
            path = FINDINGS / f"{target}-{seed}-{number}"
            path.write_bytes(data)
            print(f"{target}: {type(error).__name__}: {error}; input in {path}", flush=True)
            return 1
    seconds = time.monotonic() - started
    grown = peak_kib() - warm
    rate = count / max(seconds, 1e-9)
    reached = f"{len(guide.seen):,} steps reached, {len(guide.kept)} kept"
    text = f"{target:14} {count:9,} inputs  {rate:7,.0f}/s  {reached}  memory +{grown} KiB"
    print(text, flush=True)
    if grown > GROWTH_KIB_MAX:
        print(f"{target}: memory grew by {grown} KiB", flush=True)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz what reads bytes of strangers")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--replay", type=Path, help="one input of one --target")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = asked.target or list(TARGETS)
    if asked.replay is not None:
        TARGETS[chosen[0]](asked.replay.read_bytes())
        return 0
    print(f"seed {asked.seed}", flush=True)
    parts = sum(SHARES[target] for target in chosen)
    counts = {target: -(-asked.inputs * SHARES[target] // parts) for target in chosen}
    found = sum(run(target, count, asked.seed) for target, count in counts.items())
    print(f"{sum(counts.values()):,} inputs, {found} targets with findings", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
