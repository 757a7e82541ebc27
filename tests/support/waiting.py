"""Waiting for what other processes and threads do in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str = "", limit_s: float = 20.0) -> None:
    """Wait until something holds; fails, with ``what`` it was, after ``limit_s`` seconds."""
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"did not happen: {what}"
        time.sleep(0.01)
