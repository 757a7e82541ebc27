"""What a large range needs of a member: a store, turns of a loop by hand, a door to history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from configsvc.api.large_answers import LargeRanges, large_range
from configsvc.mvcc.messages import DeleteOp, PutOp, RangeOp
from configsvc.mvcc.store import Store
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Waiting
from configsvc.types import KeySpan
from tests.support.turns import Turns

HEADER = b"\x0a\x02\x18\x05"


class Gate:
    """The history's door: what was asked, and its answer at once."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, _: int, question: Callable[[], Any], answer: Callable[[Any], Any]) -> Waiting:
        self.asked += 1
        waiting = Waiting()
        waiting.complete(answer(question()))
        return waiting

    def run(self, _: int, question: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.asked += 1
        done(question())


class Member:
    """What a range needs of one."""

    applied = 7

    def __init__(self) -> None:
        self.store = Store()
        self.loop = Turns()
        self.gate = Gate()
        self.reader: Any = None
        self.slices = Slices(self.loop)
        self.ranges = LargeRanges(self.slices)

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> None:
        self.store.commit(self.store.stage_put(PutOp(key, value, lease), {lease}))

    def drop(self, key: bytes, end: bytes | None = None) -> None:
        span = KeySpan(key, key + b"\0" if end is None else end)
        self.store.commit(self.store.stage_delete(DeleteOp(span)))

    def start(self, op: RangeOp) -> Waiting:
        return large_range(self, self.ranges, HEADER, op)  # type: ignore[arg-type]

    def ask(self, op: RangeOp) -> tuple[Waiting, list[Any]]:
        waiting = self.start(op)
        got: list[Any] = []
        waiting.bind(got.append)
        return waiting, got

    def run(self) -> None:
        while self.loop.soon:
            self.loop.next()
