"""A seal that does not open at run time: an error for who asked, an alarm for everybody (ENC-3)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

from configsvc.apply.state import CORRUPT
from configsvc.codec import command as codec
from configsvc.errors import CorruptError
from configsvc.runtime.history_gate import HistoryGate
from configsvc.runtime.keeping import Keeping
from configsvc.storage.seal.errors import SealBroken


class World:
    """A member of which the alarm needs little."""

    self_id = 7

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.lines: list[str] = []
        self.state = SimpleNamespace(alarms=set())
        self.report = SimpleNamespace(error=lambda *_a, **fields: self.lines.append(str(fields)))
        self.proposals = SimpleNamespace(submit=self.submit)

    def submit(self, actor: object, op: int, raw: bytes, answer: object, *, urgent: bool) -> None:
        assert urgent
        self.asked.append(op)


def test_a_broken_row_is_an_error_never_a_value_and_raises_the_alarm() -> None:
    world = World()
    keeping = Keeping(cast(Any, world))

    def broken() -> bytes:
        raise SealBroken("row 5.0 of the history cannot be opened")

    async def ask() -> object:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[object] = loop.create_future()
        with ThreadPoolExecutor(1) as threads:
            gate = HistoryGate(loop, threads, lambda _error: "id", keeping.damaged)
            gate.ask(0, broken, lambda raw: raw).bind(got.set_result)
            return await got

    assert isinstance(asyncio.run(ask()), CorruptError)
    assert world.asked == [codec.OP_ALARM]
    assert "row 5.0" in world.lines[0]


def test_an_alarm_that_stands_is_not_raised_again() -> None:
    world = World()
    world.state.alarms.add((world.self_id, CORRUPT))
    Keeping(cast(Any, world)).damaged(SealBroken("row 5.0"))
    assert not world.asked
