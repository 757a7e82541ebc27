"""Tasks of the history's thread: answered on the loop, and nobody's once that is closed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from configsvc.errors import ConfigServiceError, OverloadedError
from configsvc.runtime.keeping import Keeping


def keeping_on(loop: asyncio.AbstractEventLoop, result: Any) -> Keeping:
    """Of a member whose history has done every task at once."""
    history = SimpleNamespace(task=lambda work, done: done(result))
    return Keeping(cast(Any, SimpleNamespace(loop=loop, history=history)))


def test_the_answer_comes_on_the_loop() -> None:
    async def ask(result: Any) -> list[bytes | ConfigServiceError]:
        told: list[bytes | ConfigServiceError] = []
        keeping = keeping_on(asyncio.get_running_loop(), result)
        keeping.task(lambda: None, lambda found: b"%d" % found).bind(told.append)
        assert told == []
        await asyncio.sleep(0)
        return told

    assert asyncio.run(ask(7)) == [b"7"]
    refused = OverloadedError()
    assert asyncio.run(ask(refused)) == [refused]


def test_one_that_ends_after_the_loop_fails_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    keeping_on(loop, 7).task(lambda: None, lambda _: b"")
