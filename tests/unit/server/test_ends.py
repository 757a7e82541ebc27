"""The ways out of a running member: one line, the right code, once (W8, 2.2)."""

from __future__ import annotations

import asyncio
import io
import json
import os
from typing import Any

import pytest

from configsvc.errors import ExitCode, FatalError, InvariantViolationError, OverloadedError
from configsvc.server.ends import Ends
from configsvc.server.logs import Log


class Exited(BaseException):
    """In the place of the end of the process."""


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = io.StringIO()
        self.ends = Ends(Log("info", self.stream))
        self.codes: list[int] = []
        monkeypatch.setattr(os, "_exit", self._exit)

    def _exit(self, code: int) -> None:
        self.codes.append(code)
        raise Exited

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def code_of(self, call: Any) -> int | None:
        try:
            call()
        except Exited:
            return self.codes[-1]
        return None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_one_line_in_the_log_and_one_on_stderr_with_what_helps(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    error = FatalError(ExitCode.WENT_BACK, "an old copy", "replace this member")
    assert world.code_of(lambda: world.ends.die(error)) == 87
    [line] = world.lines
    assert (line["level"], line["exit"], line["remedy"]) == ("fatal", 87, "replace this member")
    assert capsys.readouterr().err == "configsvc: an old copy: replace this member\n"


def test_the_first_reason_is_the_one_that_counts(world: World) -> None:
    first = FatalError(ExitCode.STORAGE, "the disk", "repair it")
    assert world.code_of(lambda: world.ends.die(first)) == 80
    second = FatalError(ExitCode.INVARIANT, "what follows from it", "")
    assert world.code_of(lambda: world.ends.die(second)) is None
    assert len(world.lines) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FatalError(ExitCode.STORES_DISAGREE, "why", "what"), 84),
        (InvariantViolationError("why"), 90),
        (OSError(5, "Input/output error"), 80),
        (RuntimeError("SECRET"), 80),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_store_that_cannot_go_on_ends_the_member(
    world: World, error: BaseException, code: int
) -> None:
    assert world.code_of(lambda: world.ends.storage_failed(error)) == code
    assert "SECRET" not in world.stream.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FatalError(ExitCode.DIVERGED, "why", "what"), 91),
        (InvariantViolationError("why"), 90),
        (OverloadedError(), None),
        (ValueError("SECRET"), None),
        (None, None),
    ],
    ids=["fatal", "invariant", "typed", "bug", "no-exception"],
)
def test_a_callback_that_raises_ends_the_member_only_if_it_must(
    world: World, error: Exception | None, code: int | None
) -> None:
    loop: Any = None
    context = {"message": "callback failed", "exception": error}
    assert world.code_of(lambda: world.ends.loop_failed(loop, context)) == code
    if code is None:
        [line] = world.lines
        assert (line["level"], line["msg"]) == ("error", "callback failed")
        assert "SECRET" not in world.stream.getvalue()


def test_a_failure_is_named_by_place_and_class_never_by_its_text(world: World) -> None:
    def fails() -> None:
        raise KeyError("SECRET")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(world.ends.loop_failed)
        loop.call_soon(fails)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    [line] = world.lines
    assert line["error_class"] == "KeyError"
    assert "test_ends.py" in line["stack"]
    assert "SECRET" not in line["stack"]
