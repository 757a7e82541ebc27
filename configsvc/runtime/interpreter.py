"""How soon a thread that wants the interpreter gets it from one that works on.

The log's thread, SQL's threads and the loop take turns in one interpreter. Who wants it asks for it
after the switch interval, but only if nobody let go of it meanwhile: a loop that works in short
turns lets go at every socket call and has taken it back before the other thread is awake. With the
ordinary interval of a millisecond and turns of a tenth of one, the log's thread stood for seventy
milliseconds beside a range of a hundred thousand keys, with a put in its hands. An interval shorter
than such a turn is kept. It costs switches, so it holds only while long work is under way.

Always true: the ordinary interval is back when nobody does long work any more.

Not here: how long work is cut (``slices``, ``install_pace``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from configsvc.errors import ensure
from configsvc.limits import SWITCH_INTERVAL_LONG_WORK_S, SWITCH_INTERVAL_S


class Interpreter:
    """The switch interval of one process; every method is called on the loop."""

    def __init__(self, set_interval: Callable[[float], None] = sys.setswitchinterval) -> None:
        """``set_interval``: takes seconds."""
        self._set = set_interval
        self._long = 0  # pieces of long work that are under way

    def set_up(self) -> None:
        """The process begins."""
        self._set(SWITCH_INTERVAL_S)

    def long_work_begins(self) -> None:
        """Something will keep the loop, or a thread beside it, busy for a while."""
        self._long += 1
        if self._long == 1:
            self._set(SWITCH_INTERVAL_LONG_WORK_S)

    def long_work_ends(self) -> None:
        """It does no more."""
        ensure(self._long > 0, "long work that ends has begun")
        self._long -= 1
        if not self._long:
            self._set(SWITCH_INTERVAL_S)


INTERPRETER: Final = Interpreter()  # the setting is the process's, and so is this
