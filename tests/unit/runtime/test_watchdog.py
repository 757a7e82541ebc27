"""What the watchdog says of a silent loop, and when it ends the process (H1)."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from configsvc.errors import ExitCode, FatalError
from configsvc.runtime.watchdog import WAKE_S, Watchdog

TIMEOUT_S = 1.0


class Wakes:
    """The thread's alarm clock: each wake-up at once, and what the loop did before it."""

    def __init__(self, dog: Watchdog, beats: str) -> None:
        """``beats``: one letter per wake-up, "b" the loop ran before it, "." it did not."""
        self._dog = dog
        self._beats = iter(beats)

    def wait(self, seconds: float) -> bool:
        assert seconds == WAKE_S
        beat = next(self._beats, None)
        if beat == "b":
            self._dog._beat += 1
        return beat is None


class World:
    def __init__(self, election_timeout: float = TIMEOUT_S) -> None:
        self.lines: list[tuple[str, str]] = []
        self.died: list[FatalError] = []
        loop: Any = None
        self.dog = Watchdog(loop, self, self.died.append, election_timeout)

    def warn(self, caller: str, msg: str, *, stack: str) -> None:
        self.lines.append((msg, stack))

    error = warn

    def see(self, beats: str) -> None:
        self.dog._stopped = cast(Any, Wakes(self.dog, "b" + beats))
        self.dog._watch()


@pytest.mark.parametrize(
    ("beats", "stalls", "said", "stalled"),
    [
        pytest.param("b" * 100, 0, [], False, id="well"),
        pytest.param(".b" * 50, 0, [], False, id="50-ms"),
        pytest.param("..b" * 3, 3, [], False, id="100-ms-are-counted"),
        pytest.param("....", 1, ["busy"], False, id="200-ms-are-told"),
        pytest.param("." * 10, 1, ["busy", "stalled"], True, id="half-a-timeout"),
        pytest.param("." * 199, 1, ["busy", "stalled"], True, id="not-yet"),
        pytest.param("." * 10 + "b", 1, ["busy", "stalled"], False, id="over"),
        pytest.param(
            "." * 10 + "b" + "." * 10, 2, ["busy", "stalled"] * 2, True, id="one-after-the-other"
        ),
    ],
)
def test_what_silence_means(beats: str, stalls: int, said: list[str], stalled: bool) -> None:
    world = World()
    world.see(beats)
    assert (world.dog.stalls_total, world.dog.stalled) == (stalls, stalled)
    assert world.dog.stalled_total == said.count("stalled")
    assert [msg.rpartition(" ")[2] for msg, _ in world.lines] == said
    assert not world.died


def test_ten_timeouts_of_silence_end_the_process() -> None:
    world = World()
    world.see("." * 200)
    assert [error.code for error in world.died] == [ExitCode.STALLED]
    assert all("test_watchdog.py" in stack for _, stack in world.lines)


def test_a_pause_of_the_whole_process_is_no_stall() -> None:
    """Counted are wake-ups: while nobody runs there are none."""
    world = World()
    world.see(".b")
    assert world.dog.stalls_total == 0


def test_short_timeouts_keep_the_order_of_what_is_said() -> None:
    world = World(election_timeout=0.01)
    world.see("." * 6)
    assert [msg.rpartition(" ")[2] for msg, _ in world.lines] == ["busy", "stalled", "stuck"]


def test_on_a_real_loop_its_stack_is_told() -> None:
    world = World()

    async def scenario() -> None:
        dog = Watchdog(asyncio.get_running_loop(), world, world.died.append, TIMEOUT_S)
        dog.start()
        await asyncio.sleep(2 * WAKE_S)
        time.sleep(0.4)  # the loop stands still
        dog.stop()
        assert dog.stalls_total >= 1
        dog._thread.join(1.0)

    asyncio.run(scenario())
    assert any("scenario" in stack for msg, stack in world.lines if "busy" in msg)
