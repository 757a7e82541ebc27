"""Whether a peer that owes something gets on with it (LIM-18).

Not a deadline for the whole: a slow line may take as long as it needs, a line that stands still
may not. Kept by sweeps, so it costs nothing per byte.
"""

from __future__ import annotations


class Progress:
    """What a peer had done when it was last seen to get on."""

    __slots__ = ("_done", "_since")

    def __init__(self) -> None:
        self._since: float | None = None  # None: it owes nothing
        self._done = 0

    def restart(self) -> None:
        """Count from the next look: it could not have got on."""
        self._since = None

    def stuck(self, done: int, now: float, *, least: int, within_s: float) -> bool:
        """Look at a peer that owes something.

        ``done`` counts its bytes and never falls; ``least`` more of them are due every
        ``within_s`` seconds.
        """
        if self._since is None or done - self._done >= least:
            self._since, self._done = now, done
            return False
        return now - self._since >= within_s
