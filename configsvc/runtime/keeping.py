"""The member's history as it comes and goes: what SQL holds, tasks of its thread, and damage.

Always true: a seal that does not open anywhere in the history raises the CORRUPT alarm, so that
everybody learns of it (ENC-4); the rows around it stay readable.

Not here: the writer and reader (``storage.history``), answers that wait for SQL (``history_gate``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from configsvc.apply.state import CORRUPT
from configsvc.codec import command as codec
from configsvc.codec.publishing import alarm_op
from configsvc.errors import ConfigServiceError
from configsvc.runtime.waiting import Waiting
from configsvc.storage.seal.errors import SealBroken

if TYPE_CHECKING:
    from configsvc.runtime.member import Member


class Keeping:
    """Between the loop and the history writer's thread."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def on_written(self, applied: int, revision: int) -> None:
        """SQL holds everything up to ``applied`` (called on the loop)."""
        member = self._member
        member.written_revision = revision
        member.gate.on_written(applied)
        member.wake()

    def on_durable(self, applied: int) -> None:
        """SQL holds everything up to ``applied`` on disk (called on the loop)."""
        self._member.history_durable = applied
        self._member.housekeeping.begin_above_one()

    def task(self, work: Callable[[], Any], answer: Callable[[Any], bytes]) -> Waiting:
        """Run a task of the history writer's thread; answered on the loop."""
        waiting = Waiting()
        loop = self._member.loop

        def done(result: Any) -> None:
            if isinstance(result, ConfigServiceError):
                waiting.complete(result)
            else:
                waiting.complete(answer(result))

        def ended(result: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, result)

        self._member.history.task(work, ended)
        return waiting

    def damaged(self, error: SealBroken) -> None:
        """A row of this member's history is not what was written: everybody must know."""
        self._member.report.error("history", "stored data is damaged", reason=str(error))
        with contextlib.suppress(ConfigServiceError):  # asked again, it is told again
            self.raise_alarm(CORRUPT)

    def raise_alarm(self, alarm: int) -> None:
        """Propose an alarm for this member, unless it stands already."""
        member = self._member
        if (member.self_id, alarm) in member.state.alarms:
            return
        op = alarm_op(member.self_id, alarm)
        member.proposals.submit(codec.SYSTEM_ACTOR, codec.OP_ALARM, op, lambda _: b"", urgent=True)
