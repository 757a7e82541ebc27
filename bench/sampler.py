"""Where a member's event loop spends its time: a sampling profiler outside of the product.

    python -m bench.sampler OUT.json <flags of configsvc>

A timer fires per millisecond of the main thread's own CPU; each time, what it used since the last
one is credited to the functions on its stack. The process's own timer would not do: it also fires
for other threads, and then finds the main thread where it woke up. SIGUSR2 writes what was
gathered to OUT.json and begins anew. Nothing in the product knows of this.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any, Final

INTERVAL_NS: Final = 1_000_000
_CLOCK_THREAD_CPUTIME: Final = 3
_ROOT: Final = str(Path(__file__).resolve().parent.parent) + os.sep


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename.removeprefix(_ROOT)}:{code.co_qualname}"


def _room(frame: FrameType | None) -> str:
    """The package whose code is innermost; libraries count for whoever called them."""
    while frame is not None:
        name = frame.f_code.co_filename.removeprefix(_ROOT)
        if name.startswith("configsvc/"):
            room = "/".join(name.split("/")[1:-1])
            return "event loop, sockets, callbacks" if room in ("", "server", "cli") else room
        frame = frame.f_back
    return "event loop, sockets, callbacks"


class Sampler:
    """Gathers until asked; everything happens in the main thread."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._reset()

    def _reset(self) -> None:
        self._own: dict[str, float] = defaultdict(float)
        self._whole: dict[str, float] = defaultdict(float)
        self._rooms: dict[str, float] = defaultdict(float)
        self._lines: dict[str, float] = defaultdict(float)
        self._calls: dict[str, float] = defaultdict(float)  # "caller > callee"
        self._last = time.thread_time()
        self._threads = threads_cpu()
        self._process = time.process_time()

    def start(self) -> None:
        """Arm the timer and the signal that asks for results."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._dump)
        _arm(signal.SIGPROF, INTERVAL_NS)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        weight, self._last = now - self._last, now
        if frame is None:
            return
        place = _place(frame)
        self._own[place] += weight
        self._lines[f"{place}:{frame.f_lineno}"] += weight
        self._rooms[_room(frame)] += weight
        seen = set()
        at: FrameType | None = frame
        while at is not None:
            here = _place(at)
            if here not in seen:
                seen.add(here)
                self._whole[here] += weight
                if at.f_back is not None:
                    self._calls[f"{_place(at.f_back)} > {here}"] += weight
            at = at.f_back

    def _dump(self, number: int, frame: FrameType | None) -> None:
        before, after = self._threads, threads_cpu()
        content: dict[str, Any] = {
            "main_s": sum(self._own.values()),
            "process_s": time.process_time() - self._process,
            "threads": {name: round(cpu - before.get(name, 0.0), 3) for name, cpu in after.items()},
            "own": self._own,
            "whole": self._whole,
            "rooms": self._rooms,
            "lines": self._lines,
            "calls": self._calls,
        }
        unfinished = self._out.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content))
        unfinished.replace(self._out)
        self._reset()


def _arm(number: int, interval_ns: int) -> None:
    """A timer on the calling thread's CPU clock; the standard library has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_int64 * 8)(0, number)  # sigevent: no value, this signal, SIGEV_SIGNAL (0)
    timer = ctypes.c_void_p()
    spec = (ctypes.c_int64 * 4)(0, interval_ns, 0, interval_ns)
    if libc.timer_create(_CLOCK_THREAD_CPUTIME, event, ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    if libc.timer_settime(timer, 0, spec, None):
        raise OSError(ctypes.get_errno(), "timer_settime")


def threads_cpu() -> dict[str, float]:
    """CPU seconds of each thread of this process, by id."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[task.name] = (int(fields[11]) + int(fields[12])) / tick
    return found


def main() -> None:
    """Become a member that is sampled."""
    Sampler(Path(sys.argv[1])).start()
    sys.argv = ["configsvc", *sys.argv[2:]]
    from configsvc.cli.configsvc import main as configsvc

    if "SAMPLER_GC" in os.environ:
        import gc

        gc.set_threshold(*(int(n) for n in os.environ["SAMPLER_GC"].split(",")))
    result: Any = configsvc()
    sys.exit(result)


if __name__ == "__main__":
    main()
