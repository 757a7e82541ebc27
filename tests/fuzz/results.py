"""What the run of a target comes to, whichever engine drives it: line, findings, memory."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Final

FINDINGS: Final = Path(__file__).resolve().parents[2] / ".dev" / "fuzz"
GROWTH_KIB_MAX: Final = 64 * 1024  # of the process, once it is warm


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Tally:
    """Counts the inputs of one target; the process is warm after the first tenth of them."""

    def __init__(self, target: str, count: int, seed: int, findings: Path = FINDINGS) -> None:
        self.done = 0
        self._target = target
        self._count = count
        self._seed = seed
        self._findings = findings
        self._warm = peak_kib()
        self._started = time.monotonic()

    def begin(self) -> None:
        """One more input."""
        if self.done == self._count // 10:
            self._warm = peak_kib()
        self.done += 1

    def prefix(self) -> Path:
        """Where findings of this run go, with a dash and more behind it."""
        self._findings.mkdir(parents=True, exist_ok=True)
        return self._findings / f"{self._target}-{self._seed}"

    def found(self, error: Exception, data: bytes) -> None:
        """Keep the input that broke an oracle, and say so."""
        path = Path(f"{self.prefix()}-{self.done - 1}")
        path.write_bytes(data)
        print(f"{self._target}: {type(error).__name__}: {error}; input in {path}", flush=True)

    def close(self, reached: str) -> int:
        """Print the line of a run that found nothing; 1 when memory grew all the same."""
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        grown = peak_kib() - self._warm
        print(
            f"{self._target:14} {self.done:9,} inputs  {rate:7,.0f}/s  {reached}"
            f"  memory +{grown} KiB",
            flush=True,
        )
        if grown > GROWTH_KIB_MAX:
            print(f"{self._target}: memory grew by {grown} KiB", flush=True)
            return 1
        return 0
