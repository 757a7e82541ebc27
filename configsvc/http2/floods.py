"""What a connection may cost without asking for anything: frame budget and ping policy.

Time is an argument (``now``, seconds on any monotonic scale). Limits: LIM-8 and LIM-17.
"""

from __future__ import annotations

from configsvc.http2.protocol import ENHANCE_YOUR_CALM, ConnectionFault
from configsvc.limits import (
    FRAME_BUDGET_BURST,
    FRAME_BUDGET_PER_S,
    PING_IDLE_INTERVAL_MIN_S,
    PING_INTERVAL_MIN_S,
    PING_STRIKES_MAX,
    WINDOW_CREDIT_MAX,
)


class FrameBudget:
    """A token bucket for frames that carry no request, and for resets of either side.

    WINDOW_UPDATE is different: a busy reader rightly sends many. They are paid for by credit that
    grows with what we send, and only beyond it by tokens.
    """

    __slots__ = ("_at", "_tokens", "credit")

    def __init__(self, now: float) -> None:
        self._tokens = float(FRAME_BUDGET_BURST)
        self._at = now
        self.credit = 0

    def charge(self, now: float) -> None:
        """Pay for one frame.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM, the budget is spent.
        """
        earned = (now - self._at) * FRAME_BUDGET_PER_S
        self._at = now
        self._tokens = min(float(FRAME_BUDGET_BURST), self._tokens + max(0.0, earned))
        if self._tokens < 1.0:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "frame flood")
        self._tokens -= 1.0

    def charge_window_update(self, now: float) -> None:
        """Pay for one WINDOW_UPDATE."""
        if self.credit > 0:
            self.credit = min(self.credit, WINDOW_CREDIT_MAX) - 1
        else:
            self.charge(now)


class PingPolicy:
    """Whether the peer pings too often.

    Pings closer than five seconds (two hours while no stream is open) are strikes. Whatever we
    sent as HEADERS or DATA since the last ping clears them: bandwidth probes ride on traffic.
    """

    __slots__ = ("_last", "_strikes", "cleared")

    def __init__(self) -> None:
        self._last: float | None = None
        self._strikes = 0
        self.cleared = False  # set by whoever queues HEADERS or DATA

    def ping(self, now: float, *, has_streams: bool) -> None:
        """Judge one ping.

        Raises:
            ConnectionFault: the third strike.
        """
        last, self._last = self._last, now
        if self.cleared:
            self.cleared = False
            self._strikes = 0
            return
        least = PING_INTERVAL_MIN_S if has_streams else PING_IDLE_INTERVAL_MIN_S
        if last is not None and now - last < least:
            self._strikes += 1
            if self._strikes > PING_STRIKES_MAX:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too_many_pings")
