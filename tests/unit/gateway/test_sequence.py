"""Handlers of several steps: order, refusals, leaving, clean-up."""

from __future__ import annotations

import pytest

from configsvc.api.candidacy import ATTEMPTS, as_unknown, patiently
from configsvc.api.sequence import Pause, Sequence, Steps
from configsvc.errors import (
    CanceledError,
    ConfigServiceError,
    ElectionError,
    InternalFailureError,
    InvariantViolationError,
    LeaderChangedError,
    LeaseNotFoundError,
    PermissionDeniedError,
    RequestTimeoutError,
)
from configsvc.runtime.waiting import Waiting


class World:
    def __init__(self) -> None:
        self.steps: list[Waiting] = []
        self.log: list[str] = []
        self.results: list[bytes | ConfigServiceError] = []

    def step(self, kind: type[Waiting] = Waiting) -> Waiting:
        self.steps.append(kind())
        return self.steps[-1]

    def run(self, steps: Steps[bytes]) -> Sequence:
        sequence = Sequence(steps, as_unknown, lambda error: type(error).__name__)
        sequence.bind(self.results.append)
        return sequence

    def script(self, kind: type[Waiting] = Waiting) -> Steps[bytes]:
        """Enter with a write, wait, leave with another write if that fails."""
        entered = yield self.step()
        self.log.append(f"entered {entered.decode()}")
        try:
            turn = yield self.step(kind)
        except ConfigServiceError as error:
            self.log.append(type(error).__name__)
            yield self.step()
            self.log.append("left")
            raise
        return entered + turn


@pytest.fixture
def world() -> World:
    return World()


def test_answers_are_handed_in_one_after_the_other(world: World) -> None:
    world.run(world.script())
    assert len(world.steps) == 1
    world.steps[0].complete(b"a")
    world.steps[1].complete(b"b")
    assert world.results == [b"ab"]


def test_steps_that_are_answered_at_once(world: World) -> None:
    def script() -> Steps[bytes]:
        total = b""
        for _ in range(5_000):  # deeper than Python may recurse
            total = yield total[-2:] + b"x"
        return total

    world.run(script())
    assert world.results == [b"xxx"]


def test_a_refusal_is_thrown_in_and_told_as_unknown(world: World) -> None:
    world.run(world.script())
    world.steps[0].complete(b"a")
    world.steps[1].complete(PermissionDeniedError())
    assert world.results == []  # the clean-up comes first
    world.steps[2].complete(b"")
    (error,) = world.results
    assert type(error) is ElectionError
    assert str(error) == PermissionDeniedError.text
    assert world.log == ["entered a", "PermissionDeniedError", "left"]


def test_leaving_a_pause_cleans_up_at_once(world: World) -> None:
    sequence = world.run(world.script(Pause))
    world.steps[0].complete(b"a")
    sequence.cancel()
    assert world.log == ["entered a", "CanceledError"]
    world.steps[2].complete(b"")
    assert world.log[-1] == "left"
    assert world.results == []
    sequence.cancel()


def test_leaving_during_a_write_waits_for_what_it_did(world: World) -> None:
    sequence = world.run(world.script())
    sequence.cancel()
    assert world.log == []
    world.steps[0].complete(b"a")
    assert world.log == ["entered a", "CanceledError"]
    assert world.steps[1].cancelled
    world.steps[2].complete(b"")
    assert world.log[-1] == "left"


def test_leaving_after_the_answer_changes_nothing(world: World) -> None:
    sequence = world.run(world.script())
    world.steps[0].complete(b"a")
    world.steps[1].complete(b"b")
    sequence.cancel()
    assert world.log == ["entered a"]


def test_a_bug_ends_the_call_and_is_reported_by_an_id(world: World) -> None:
    def script() -> Steps[bytes]:
        yield b""
        raise ZeroDivisionError("secret")

    world.run(script())
    (error,) = world.results
    assert type(error) is InternalFailureError
    assert str(error) == "internal error, id=ZeroDivisionError"


def test_a_broken_invariant_goes_on_upwards(world: World) -> None:
    def script() -> Steps[bytes]:
        yield b""
        raise InvariantViolationError("x")

    with pytest.raises(InvariantViolationError):
        world.run(script())


def test_what_keeps_its_own_code() -> None:
    for error in (CanceledError(), ElectionError("x"), InternalFailureError("x")):
        assert as_unknown(error) is error
    assert str(as_unknown(LeaseNotFoundError())) == LeaseNotFoundError.text


def test_a_step_outlives_changes_of_leader(world: World) -> None:
    world.run(patiently(world.step))
    world.steps[0].complete(LeaderChangedError())
    world.steps[1].complete(RequestTimeoutError())
    world.steps[2].complete(b"done")
    assert world.results == [b"done"]


def test_but_not_for_ever_and_no_refusal(world: World) -> None:
    world.run(patiently(world.step))
    for number in range(ATTEMPTS):
        world.steps[number].complete(LeaderChangedError())
    assert [str(r) for r in world.results] == [LeaderChangedError.text]
    refused = World()
    refused.run(patiently(refused.step))
    refused.steps[0].complete(PermissionDeniedError())
    assert [str(r) for r in refused.results] == [PermissionDeniedError.text]
