"""SIGTERM and SIGHUP for commands that hold something: they must let go of it first.

Always true: inside ``orderly`` these signals interrupt the main thread as Ctrl-C does, so that
``finally`` gives leases back; the exit code is 128 + the signal's number, as a shell reports it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Asked to end by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def signal_of(interrupt: KeyboardInterrupt) -> int:
    """Which signal an interrupt came from."""
    return interrupt.signum if isinstance(interrupt, Stopped) else signal.SIGINT


def _raise(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


@contextmanager
def orderly() -> Iterator[None]:
    """Turn the signals into ``Stopped``; one that is ignored (``nohup``) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in _SIGNALS}
    for one, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(one, _raise)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
