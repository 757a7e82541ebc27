"""An answer of very many keys, encoded over several turns of the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from configsvc.api import large_answers
from configsvc.api.large_answers import range_answer
from configsvc.mvcc.messages import KeyValue, RangeResult
from configsvc.proto import rpc_pb2
from configsvc.runtime.waiting import Waiting

HEADER = b"\x0a\x02\x18\x05"


class Loop:
    """What is called soon, by hand."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        self.soon.append(lambda: call(*args))

    def turn(self) -> None:
        self.soon.popleft()()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(large_answers, "RANGE_PIECE_KEYS", 4)
    return Loop()


def found(keys: int, *, more: bool = False, count: int | None = None) -> RangeResult:
    kvs = tuple(KeyValue(b"k%d" % n, b"v" * n, 1, n + 1, 1, 0) for n in range(keys))
    return RangeResult(kvs, keys if count is None else count, more)


@pytest.mark.parametrize(
    ("keys", "turns"), [(0, 0), (1, 0), (4, 0), (5, 2), (8, 2), (9, 3)], ids=str
)
def test_pieces_make_the_whole(loop: Any, keys: int, turns: int) -> None:
    result = found(keys, more=True, count=100)
    answer = range_answer(loop, HEADER, result)
    if isinstance(answer, Waiting):
        assert turns
        got: list[Any] = []
        answer.bind(got.append)
        for _ in range(turns):
            assert not got
            loop.turn()
        assert not loop.soon
        (answer,) = got
    else:
        assert not turns
    parsed = rpc_pb2.RangeResponse.FromString(answer)
    assert parsed.header.revision == 5
    assert (parsed.more, parsed.count) == (True, 100)
    assert [(kv.key, kv.value, kv.mod_revision) for kv in parsed.kvs] == [
        (kv.key, kv.value, kv.mod_revision) for kv in result.kvs
    ]


def test_nothing_is_encoded_for_nobody(loop: Any) -> None:
    answer = range_answer(loop, HEADER, found(20))
    assert isinstance(answer, Waiting)
    loop.turn()
    answer.cancel()
    loop.turn()
    assert not loop.soon
