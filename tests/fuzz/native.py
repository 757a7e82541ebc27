"""``make fuzz ENGINE=atheris``: the same targets and oracles, driven by libFuzzer.

Atheris instruments the bytecode of ``configsvc`` as it is imported, so this module runs one target
and is a process of its own (libFuzzer ends it). It starts from inputs of ``inputs.make`` and mixes
libFuzzer's mutations with made ones. Atheris itself (``requirements/fuzz.lock``) is unpacked below
``.dev`` and never part of an environment; the loop of ``guide`` stays the default, for it needs
nothing.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.results import FINDINGS, Tally

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements" / "fuzz.lock"
UNPACKED: Final = ROOT / ".dev" / "atheris"
LOG: Final = "libfuzzer"  # its words, in the scratch directory
SEEDS: Final = 400  # inputs to begin with
INPUT_BYTES_MAX: Final = 4_096
MADE_ONE_IN: Final = 4  # mutations that are a new input of ``make`` or a wound of ``damaged``
SLOW_SECONDS_MAX: Final = 20  # one input; libFuzzer reports it beyond


def install() -> bool:
    """Unpack what the lock names, unless it is there; False with a line when it cannot be had."""
    stamp = UNPACKED / "lock"
    if stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes():
        return True
    argv = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"),
        *("--quiet", "--upgrade", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--target", str(UNPACKED), "-r", str(LOCK)),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["pip failed"]
        print(f"atheris cannot be installed: {said[0]}", file=sys.stderr)
        return False
    stamp.write_bytes(LOCK.read_bytes())
    return True


def run(
    target: str, count: int, seed: int, findings: Path = FINDINGS, engine: Path = UNPACKED
) -> int:
    """Drive one target in a process; the number of findings, 0 or 1."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / LOG
        argv = [
            *(sys.executable, "-m", "tests.fuzz.native", "--target", target),
            *("--inputs", str(count), "--seed", str(seed), "--scratch", scratch),
            *("--findings", str(findings), "--engine", str(engine)),
        ]
        with log.open("wb") as stream:
            done = subprocess.run(argv, cwd=ROOT, stderr=stream, check=False)
        if done.returncode:
            lines = log.read_text(errors="replace").splitlines()[-12:]
            print(*lines, f"{target}: ended with {done.returncode}", sep="\n", flush=True)
    return 1 if done.returncode else 0


def reached(log: str, kept: int) -> str:
    """libFuzzer's last word on coverage: points of the bytecode, and how often by magnitude."""
    told = re.findall(r"cov: (\d+) ft: (\d+)", log) or [("0", "0")]
    points, features = map(int, told[-1])
    return f"{points:,} points and {features:,} features reached, {kept} kept"


def _mutator(
    atheris: Any, make: Callable[[Random], bytes], damaged: Callable[[Random, bytes], bytes]
) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        random = Random(seed)
        chance = random.randrange(2 * MADE_ONE_IN)
        if chance == 0:
            return make(random)[:size_max]
        if chance == 1:
            return damaged(random, data)[:size_max]
        mutated: bytes = atheris.Mutate(data, size_max)
        return mutated

    return mutate


def _drive(asked: argparse.Namespace) -> None:
    """Hand this process to libFuzzer, which ends it."""
    target, count, seed, scratch = asked.target, asked.inputs, asked.seed, asked.scratch
    sys.path.append(str(asked.engine))
    atheris: Any = importlib.import_module("atheris")

    with atheris.instrument_imports(include=["configsvc"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.inputs import damaged, make

    check, random = TARGETS[target], Random(f"{target} {seed}")
    tally = Tally(target, count, seed, asked.findings)
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number in range(SEEDS):
        (corpus / str(number)).write_bytes(make(target, random))

    def one(data: bytes) -> None:
        tally.begin()
        try:
            check(data)
        except Exception as error:
            tally.found(error, data)
            os._exit(1)  # what was found is written; libFuzzer would only say it again
        if tally.done == count:
            kept = sum(1 for _ in corpus.iterdir()) - SEEDS
            os._exit(tally.close(reached((scratch / LOG).read_text(errors="replace"), kept)))

    options = {
        "runs": count + SEEDS,  # a net; the count above comes first
        "seed": seed % (1 << 32) or 1,  # 0 would be a random one
        "max_len": INPUT_BYTES_MAX,
        "timeout": SLOW_SECONDS_MAX,
        "rss_limit_mb": 1_024,
        "artifact_prefix": f"{tally.prefix()}-",
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    mutator = _mutator(atheris, lambda random: make(target, random), damaged)
    atheris.Setup([target, str(corpus), *flags], one, custom_mutator=mutator)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description="one target under libFuzzer")
    parser.add_argument("--target", required=True)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    for name in ("--scratch", "--findings", "--engine"):
        parser.add_argument(name, type=Path, required=True)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    _drive(asked)


if __name__ == "__main__":
    main()
