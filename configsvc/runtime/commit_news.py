"""Appends that tell a commit index and nothing else wait a moment for one that says more.

After a commit the core tells every follower with an empty append, and each answers it. Under load
the next entries leave within a millisecond and carry the same index; so such an append is held
for ``COMMIT_NEWS_HOLD_S``, and dropped when another append to that peer goes out.

Always true:
  * Raft may lose or delay any message, so holding one is safe; liveness rests on the timer.
  * A peer whose own forwarded write was applied here is told at once (``release``): its client
    waits for it. Read rounds carry the index in their heartbeats and are never held.

Not here: which appends the core makes (``raft.sending``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from configsvc.limits import COMMIT_NEWS_HOLD_S
from configsvc.raft.messages import Message, MessageType
from configsvc.types import NodeId

_APP = MessageType.APP


class Net(Protocol):
    """Where messages go from here."""

    def send(self, messages: Sequence[Message]) -> None: ...

    def flush(self) -> None: ...


class Loop(Protocol):
    """The part of an event loop that is used."""

    def call_later(self, delay: float, fn: Callable[[], None]) -> asyncio.TimerHandle: ...


class CommitNews:
    """The machine's network: holds what can wait, hands everything else on in order."""

    def __init__(self, net: Net, loop: Loop, now: Callable[[], float]) -> None:
        self._net = net
        self._loop = loop
        self._now = now
        self._held: dict[NodeId, tuple[Message, float]] = {}  # with the time it began to wait
        self._timer: asyncio.TimerHandle | None = None
        self.spared = 0  # appends that never had to leave

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages on, but for the news of a commit."""
        held = self._held
        out: list[Message] = []
        for message in messages:
            if message.type is _APP:
                if not message.entries:
                    self._hold(message)
                    continue
                if held and held.pop(message.to, None) is not None:
                    self.spared += 1
            out.append(message)
        if held and self._timer is None:
            self._timer = self._loop.call_later(COMMIT_NEWS_HOLD_S, self._ring)
        if out:
            self._net.send(out)

    def flush(self) -> None:
        """What was handed on may be written now."""
        self._net.flush()

    def release(self, peer: NodeId) -> None:
        """``peer`` has a caller that waits for the news."""
        held = self._held.pop(peer, None)
        if held is not None:
            self._net.send((held[0],))

    def _hold(self, message: Message) -> None:
        before = self._held.get(message.to)
        since = self._now() if before is None else before[1]
        if before is not None:
            self.spared += 1
        self._held[message.to] = message, since

    def _ring(self) -> None:
        """Send what has waited long enough; the rest gets a timer of its own."""
        self._timer = None
        late = self._now() - COMMIT_NEWS_HOLD_S / 2  # one timer for all: half is long enough
        due = [peer for peer, (_, since) in self._held.items() if since <= late]
        for peer in due:
            self.release(peer)
        if self._held:
            self._timer = self._loop.call_later(COMMIT_NEWS_HOLD_S, self._ring)
