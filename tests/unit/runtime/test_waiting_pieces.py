"""Answers in pieces, and slots behind slots."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.errors import OverloadedError
from configsvc.runtime.reads import Reads
from configsvc.runtime.waiting import Pieces, Waiting

PIECES = Pieces((b"ab", b"", b"c"))


def test_pieces_are_done_with_when_nobody_keeps_them() -> None:
    told: list[int] = []
    pieces = Pieces((b"a",))
    pieces.when_released(lambda: told.append(1))
    assert (told, pieces.size) == ([1], 1)
    pieces.keep()
    pieces.when_released(lambda: told.append(2))
    assert told == [1]
    pieces.release()
    pieces.release()
    assert told == [1, 2]


@pytest.mark.parametrize("early", [True, False])
def test_who_does_not_take_pieces_is_handed_the_whole(early: bool) -> None:
    for bind, told in (("bind", b"abc"), ("bind_pieces", PIECES)):
        waiting, got = Waiting(), list[Any]()
        if early:
            waiting.complete(PIECES)
        getattr(waiting, bind)(got.append)
        waiting.complete(PIECES)
        assert got == [told]


@pytest.mark.parametrize(
    "result", [b"x", PIECES, OverloadedError()], ids=lambda each: type(each).__name__
)
def test_a_slot_that_follows_another_has_its_result(result: Any) -> None:
    behind, outer, got = Waiting(), Waiting(), list[Any]()
    outer.bind_pieces(got.append)
    outer.follow(behind)
    behind.complete(result)
    assert got == [result]


def test_calling_off_reaches_who_works_on_it() -> None:
    behind, outer = Waiting(), Waiting()
    outer.follow(behind)
    outer.cancel()
    late = Waiting()
    outer.follow(late)
    assert (behind.cancelled, late.cancelled) == (True, True)


def test_a_linearizable_read_hands_its_calling_off_on() -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    reads = Reads(
        self_id=1, incarnation=1, clock=clock, wake=lambda: None, timeout=5.0, heartbeat=1.0
    )  # type: ignore[call-arg, arg-type]
    working = Waiting()
    outer = reads.submit(lambda: working)
    contexts: list[bytes] = []
    reads.flush(SimpleNamespace(read_index=contexts.append))
    reads.confirmed(1, contexts[0], 1)
    assert not working.cancelled
    outer.cancel()
    assert working.cancelled
