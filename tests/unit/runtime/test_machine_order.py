"""What comes first: appends and the log's write of one ``Ready``, and what is applied after it."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.apply.commands import Effects
from configsvc.codec.records import RecordCache
from configsvc.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Ready,
)
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.machine import FEW_ENTRIES_MAX, PASSES_MAX, Machine
from configsvc.types import LogIndex, NodeId, Term

HARD = HardState(Term(1), NodeId(1), LogIndex(0))


class Core:
    """A core with one ``Ready``, and everything around it that the machine calls."""

    def __init__(self, count: int) -> None:
        entries = tuple(
            Entry(Term(1), LogIndex(n), EntryKind.NORMAL, b"") for n in range(1, count + 1)
        )
        append = Message(MessageType.APP, NodeId(2), NodeId(1), Term(1), entries=entries)
        self._readys = [Ready(None, HARD, (), entries, None, (), (append,), True)]
        self.did: list[str] = []
        self.waiting = 0

    def has_ready(self) -> bool:
        return bool(self._readys)

    def ready(self) -> Ready:
        return self._readys.pop()

    def send(self, messages: Any) -> None:
        self.waiting += len(messages)

    def flush(self) -> None:
        if self.waiting:
            self.did.append("appends leave")
        self.waiting = 0

    def submit(self, *_: Any) -> None:
        self.did.append("log is woken")


def machine(core: Core, **more: Any) -> Machine:
    around: Any = core
    return Machine(
        raft=around,
        log=MemoryLog(),
        applier=around,
        writer=around,
        net=around,
        listener=around,
        conf_state=ConfState((NodeId(1), NodeId(2)), (), (), (), False),
        hard_state=HARD,
        applied=0,
        records=RecordCache(),
        **{"durable": 0, **more},
    )


def test_P5_a_run_ends_after_its_time() -> None:
    """Committed entries without a write, as a restart has them: page after page."""
    readys, seconds = 0, iter(range(100))

    class Pages(Core):
        def has_ready(self) -> bool:
            return True

        def ready(self) -> Ready:
            nonlocal readys
            readys += 1
            return Ready(None, None, (), (), None, (), (), False)

        def advance(self) -> None:
            """The next page."""

    made = machine(Pages(0), monotonic=lambda: 0.006 * next(seconds))
    assert made.run(), "there is more for another pass"
    assert readys == 4
    readys, made = 0, machine(Pages(0))
    assert made.run()
    assert readys == PASSES_MAX


@pytest.mark.parametrize(
    ("count", "order"),
    [
        (1, ["appends leave", "log is woken"]),
        (FEW_ENTRIES_MAX, ["appends leave", "log is woken"]),
        (FEW_ENTRIES_MAX + 1, ["log is woken", "appends leave"]),
    ],
)
def test_few_entries_leave_before_the_log_is_woken(count: int, order: list[str]) -> None:
    core = Core(count)
    machine(core).run()
    assert core.did == order


def test_what_was_written_waits_for_the_room_that_others_took_meanwhile() -> None:
    """Entries that waited fill the history while a write is in flight: its own are held (Q2)."""
    first, second, third = (Entry(Term(1), LogIndex(n), EntryKind.NORMAL, b"") for n in (1, 2, 3))
    applied: list[int] = []

    class History(Core):
        def advance(self) -> None:
            """What was handed out is on its way through apply."""

        def begin(self, index: int, *_: Any) -> Effects:
            return Effects(index, 1, 0, None, index, (), (), (), b"", None, b"", b"")

        def on_applied(self, effects: list[Effects], _: Any) -> None:
            applied.extend(each.index for each in effects)

    core = History(0)
    write = Ready(None, HARD, (), (third,), None, (third,), (), True)
    core._readys = [write, Ready(None, None, (), (), None, (first, second), (), False)]
    made = machine(core, durable=2)
    made.log.append([first, second])
    made.run(lambda: False)
    assert (made.writing, made.apply_lag_bytes > 0, applied) == (True, True, [])
    made.run(lambda: len(applied) < 2)
    assert applied == [1, 2]
    made.durable_up_to(1)
    assert applied == [1, 2]
    made.run(lambda: True)
    assert applied == [1, 2, 3]
