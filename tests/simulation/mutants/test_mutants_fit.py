"""The planted bugs themselves: each fits the product as it is, and a sample is caught.

A mutant whose replacement takes other arguments than what it replaces fails by itself, and would
count as caught. ``make mutants`` hunts all of them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.simulation.mutants import run
from tests.simulation.mutants.plant import Patch
from tests.simulation.node.sim_swarm import Swarm

SOON = ("m01_vote_not_persisted", "m15_suffix_cut_without_conflict", "m45_no_barrier")
SEEDS = 10


class Passing(Patch):
    """Plants, looks whether the replacement can be called as the original, and takes all back."""

    def __init__(self) -> None:
        self.misfits: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def attribute(self, where: Any, name: str, what: Any) -> Any:
        static = inspect.getattr_static(where, name)
        before = super().attribute(where, name, what)
        self._undo.append(lambda: setattr(where, name, static))
        self._compare(name, before, what)
        return before

    def hide(self, where: type, name: str, what: property) -> None:
        assert name not in vars(where)
        super().hide(where, name, what)
        self._undo.append(lambda: delattr(where, name))

    def item(self, where: dict[Any, Any], key: Any, what: Any) -> Any:
        before = super().item(where, key, what)
        self._undo.append(lambda: where.__setitem__(key, before))
        self._compare(str(key), before, what)
        return before

    def wrap(self, where: Any, name: str, make: Callable[[Any], Any]) -> None:
        self.attribute(where, name, make(getattr(where, name)))

    def _compare(self, name: str, before: Any, after: Any) -> None:
        if not (inspect.isfunction(before) and inspect.isfunction(after)):
            return
        theirs = inspect.signature(after)
        for call in _calls(inspect.signature(before)):
            try:
                theirs.bind(*call[0], **call[1])
            except TypeError as error:
                self.misfits.append(f"{name}: {error}")

    @property
    def planted(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._undo)

    def take_back(self) -> None:
        while self._undo:
            self._undo.pop()()


def _calls(signature: inspect.Signature) -> Iterator[tuple[list[int], dict[str, int]]]:
    """A call with everything, and one with what has no default."""
    for optional in (True, False):
        wanted = [
            p
            for p in signature.parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            if optional or p.default is p.empty
        ]
        named = {p.name: 0 for p in wanted if p.kind is p.KEYWORD_ONLY}
        yield [0 for p in wanted if p.kind is not p.KEYWORD_ONLY], named


@pytest.fixture
def patch() -> Iterator[Passing]:
    planted = Passing()
    yield planted
    planted.take_back()


@pytest.mark.parametrize("name", run.names())
def test_a_mutant_fits_the_product(name: str, patch: Passing) -> None:
    module = run.load(name)
    module.plant(patch)
    assert patch.planted, "planted past the patch, it would stay for the tests that follow"
    assert not patch.misfits
    if run._harness(module) == "node":
        known = {field.name for field in dataclasses.fields(Swarm)}
        assert not set(module.SWARM) - known


def test_a_mutant_that_does_not_fit_is_told(patch: Passing) -> None:
    class Rule:
        def holds(self, index: int, *, strictly: bool = False) -> bool:
            return index > 0 or not strictly

    patch.attribute(Rule, "holds", lambda self, index: False)
    assert [misfit for misfit in patch.misfits if "strictly" in misfit]
    with pytest.raises(AttributeError):
        patch.attribute(Rule, "held", lambda self: False)


@pytest.mark.parametrize("name", SOON)
def test_a_planted_bug_is_caught(name: str, patch: Passing) -> None:
    module = run.load(name)
    module.plant(patch)
    for seed in range(SEEDS):
        try:
            run._run(module, seed)
        except run.FOUND:
            return
    pytest.fail(f"{SEEDS} seeds did not notice it")


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError])
def test_a_mutant_that_breaks_by_itself_is_not_caught(error: type[Exception]) -> None:
    assert not issubclass(error, run.FOUND)
