"""A commit index waits a moment for entries that carry it to the followers.

Told at once, every commit would cost each follower an empty append and the leader its answer;
under load the next entries leave within a millisecond anyway. So the core does not tell commits
by itself (``RaftConfig.tell_commits``), and what no entries carried for ``COMMIT_NEWS_HOLD_S`` is
told from here. While entries carry everything, the look for what they did not is less frequent.

Always true:
  * A follower whose own forwarded write was committed is told at once (``expects``): a caller of
    that member waits for it. Read rounds carry the index in their heartbeats.
  * At most one timer runs, and only after a commit: a silent cluster costs nothing.
  * Nothing is told later than two looks after it was committed: 2 to 4 ms when a load ends.

Not here: which appends the core makes (``raft.sending``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from configsvc.limits import COMMIT_NEWS_HOLD_S
from configsvc.types import NodeId

BUSY_HOLDS: Final = 2  # times as long between looks while entries follow each other


class Core(Protocol):
    """The part of a ``RawNode`` that is used."""

    @property
    def commit_untold(self) -> bool: ...

    @property
    def commit_index(self) -> int: ...

    def tell_commit(self, up_to: int, *, to: NodeId = ...) -> bool: ...


class Loop(Protocol):
    """The part of an event loop that is used."""

    def call_later(self, delay: float, fn: Callable[[], None]) -> Any: ...


class CommitNews:
    """When the followers of a leader are told what is committed."""

    def __init__(self, core: Core, loop: Loop, wake: Callable[[], None]) -> None:
        self._core = core
        self._loop = loop
        self._wake = wake
        self._waits_for: int | None = None  # the index to be told when the timer rings
        self._expected: dict[
            NodeId, tuple[int, int]
        ] = {}  # first and last index that a peer awaits

    def look(self) -> None:
        """Called after a pass that left ``commit_untold``: somebody will tell it."""
        if self._waits_for is None:
            self._set(COMMIT_NEWS_HOLD_S)

    def _set(self, delay: float) -> None:
        self._waits_for = self._core.commit_index
        self._loop.call_later(delay, self._ring)

    @property
    def expected(self) -> bool:
        """Whether some peer awaits a commit."""
        return bool(self._expected)

    def expects(self, peer: NodeId, index: int) -> None:
        """A caller of ``peer`` waits for the entry at ``index``, which was just proposed."""
        first, _ = self._expected.get(peer, (index, 0))
        self._expected[peer] = first, index

    def deliver(self) -> None:
        """Before the machine runs: what was committed for a peer leaves with this pass."""
        commit = self._core.commit_index
        for peer, (first, last) in list(self._expected.items()):
            if first <= commit:
                self._core.tell_commit(commit, to=peer)
                if last <= commit:
                    del self._expected[peer]
                else:
                    self._expected[peer] = commit + 1, last

    def forget(self) -> None:
        """Leadership moved: whoever leads now tells."""
        self._expected.clear()

    def _ring(self) -> None:
        """Tell what was committed when the timer was set; what came since waits its own time."""
        index, self._waits_for = self._waits_for, None
        if index is not None and self._core.tell_commit(index):
            self._wake()
        elif self._core.commit_untold:
            self._set(COMMIT_NEWS_HOLD_S * BUSY_HOLDS)
