"""Coverage as a guide: inputs that reach new lines are kept, and later ones grow out of them.

A sample of the inputs runs under the interpreter's trace hook, which costs several times the plain
run; the others run at full speed. What is counted is the step from one line to the next within a
function, so that a loop or a branch taken anew shows, too. Only lines of ``configsvc`` count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from types import CodeType, FrameType
from typing import Any, Final

from tests.fuzz.inputs import damaged

SAMPLE: Final = 16  # one input of so many is traced
KEPT_MAX: Final = 512
KEPT_BYTES_MAX: Final = 4_096  # a longer one is not kept, however new its way is
_OURS: Final = "/configsvc/"

Step = tuple[CodeType, int, int]


class Guide:
    """Inputs worth growing, and the steps that they were the first to take."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.seen: set[Step] = set()
        self.kept: list[bytes] = []
        self._last: dict[FrameType, int] = {}
        self._fresh = False

    def next(self, make: Callable[[], bytes]) -> bytes:
        """A new input; one of three grows out of a kept one, or of two."""
        random = self._random
        if not self.kept or random.randrange(3):
            return make()
        one = random.choice(self.kept)
        if random.randrange(4) == 0:
            other = random.choice(self.kept)
            one = one[: random.randrange(len(one) + 1)] + other[random.randrange(len(other) + 1) :]
        return damaged(random, one)

    def run(self, check: Callable[[bytes], None], data: bytes) -> None:
        """Run one input, sometimes traced. Raises what ``check`` raises."""
        if self._random.randrange(SAMPLE):
            check(data)
            return
        self._fresh = False
        before = sys.gettrace()
        sys.settrace(self._entered)
        try:
            check(data)
        finally:
            sys.settrace(before)
            self._last.clear()
        if self._fresh and len(data) <= KEPT_BYTES_MAX:
            if len(self.kept) == KEPT_MAX:
                self.kept[self._random.randrange(KEPT_MAX)] = data
            else:
                self.kept.append(data)

    def _entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._stepped if _OURS in frame.f_code.co_filename else None

    def _stepped(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            step = (frame.f_code, self._last.get(frame, 0), frame.f_lineno)
            self._last[frame] = frame.f_lineno
            if step not in self.seen:
                self.seen.add(step)
                self._fresh = True
        elif event == "return":
            self._last.pop(frame, None)
        return self._stepped
