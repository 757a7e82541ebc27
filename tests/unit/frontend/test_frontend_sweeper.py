"""Whose connections go when answers that nobody reads take too much memory (LIM-18)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from configsvc.frontend import sweeper as sweeper_module
from configsvc.frontend.sweeper import Sweeper
from tests.support import http2_frames as h2
from tests.support.frontend_world import Loop, World, read_frames, until
from tests.support.http2_frames import Client


class Reader:
    """A connection that was asked how much waits for it."""

    peer_ip = ""
    deadline = None

    def __init__(self, sweeper: Sweeper, key: str, unsent: int) -> None:
        self._sweeper = sweeper
        self.key = key
        self.unsent = 0  # the sweeper's
        self._waiting = unsent
        self.gone = False

    def sweep(self, now: float) -> bool:
        if not self.gone:
            self._sweeper.count_unsent(cast("Any", self), self._waiting)
        return not self.gone

    def sacrifice(self) -> None:
        self.gone = True
        self._sweeper.forget(cast("Any", self))


class Patient:
    """A loop whose timers never go off."""

    def call_later(self, *_: object) -> None:
        return None


def swept(*rows: tuple[str, int]) -> list[int]:
    """Which of the connections, key and unsent bytes, one sweep gives up."""
    sweeper = Sweeper(cast("asyncio.AbstractEventLoop", Patient()))
    crowd = [Reader(sweeper, key, unsent) for key, unsent in rows]
    for each in crowd:
        sweeper.watch(cast("Any", each))
    for now in range(3):
        sweeper.sweep(now)  # what was counted is not counted again
    assert sweeper._unsent == sum(each.unsent for each in crowd)
    return [number for number, each in enumerate(crowd) if each.gone]


@pytest.mark.parametrize(
    ("rows", "gone"),
    [
        pytest.param([("a", 60), ("b", 40)], [], id="it-fits"),
        pytest.param([("a", 60), ("b", 41)], [0], id="one-too-many"),
        pytest.param([("a", 30)] + [("m", 40)] * 9, [2, 3, 4, 5, 6, 7, 8, 9], id="many-of-one"),
        pytest.param([("a", 10), ("m", 30), ("m", 80), ("m", 20)], [2], id="the-largest-of-one"),
        pytest.param([("a", 150), ("b", 150), ("c", 150)], [0, 1, 2], id="all-of-them"),
        pytest.param([("", 70), ("", 60), ("a", 50)], [0, 1], id="nobody-is-one-too"),
    ],
)
def test_who_has_most_loses_most(
    rows: list[tuple[str, int]], gone: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "MEMBER_OUT_BYTES_MAX", 100)
    assert swept(*rows) == gone


def test_unread_answers_are_given_up_over_real_sockets(
    run: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "MEMBER_OUT_BYTES_MAX", 30_000_000)
    monkeypatch.setattr(sweeper_module, "SWEEP_SECONDS", 0.01)

    async def scenario() -> None:
        async with World() as world:
            wide = Client.hello(initial_window_size=2**31 - 1) + h2.window_update(0, 2**30)
            for _ in range(3):
                _reader, writer = await world.connect()
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(wide + Client().call(1, b"20000000", "/test.Echo/Big"))
            await until(lambda: len(world.listener.connections) == 1)
            assert world.refused == ["too many unread answers"] * 2
            assert world.counts == {"crowded": 2}
            reader, writer = await world.connect()
            writer.write(wide + Client().call(1, b"10", "/test.Echo/Big"))
            data = await read_frames(reader, h2.DATA, 1)
            assert data.payload[5:] == b"B" * 10

    run(scenario())
