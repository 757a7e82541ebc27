"""One JSON line per event on stderr: stable names, no values, repeated lines thinned out."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final, TextIO

_LEVELS: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_REPEAT_S: Final = 30.0  # an equal event of one set is written once in that time
_REMEMBERED_MAX: Final = 1_000


class Log:
    """Where events go."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self._level = _LEVELS[level]
        self._stream = stream or sys.stderr
        self._last: dict[tuple[str, str, str], float] = {}

    def event(self, event: str, *, level: str = "info", **facts: Any) -> None:
        """Write one line, unless the same one was written a moment ago."""
        if _LEVELS[level] < self._level:
            return
        now = time.monotonic()
        same = (event, str(facts.get("set", "")), str(facts.get("why", "")))
        if facts.get("why") is not None:
            if now - self._last.get(same, -_REPEAT_S) < _REPEAT_S:
                return
            if len(self._last) >= _REMEMBERED_MAX:
                self._last.clear()
            self._last[same] = now
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            + f".{time.time_ns() // 10**6 % 1000:03}Z"
        )
        line = {"time": stamp, "level": level, "event": event} | facts
        self._stream.write(json.dumps(line, default=str) + "\n")
        self._stream.flush()
