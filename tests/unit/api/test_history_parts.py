"""Long answers of History: encoded in parts, off the loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from configsvc.api import history
from configsvc.api.history import HistoryService
from configsvc.gateway.json_out import JsonPieces, to_json
from configsvc.mvcc.messages import KeyValue, RangeResult
from configsvc.proto import v1_pb2
from configsvc.runtime.waiting import Pieces, Waiting
from tests.support.range_rig import HEADER, Member


def kv(number: int) -> KeyValue:
    return KeyValue(b"k%d" % number, b"v", 2, 3, 1, 0)


def row(number: int) -> Any:
    change = SimpleNamespace(
        revision=number + 2, key=b"k%d" % number, tombstone=False, version=1, lease=0,
        create_revision=2, value=b"v",
    )  # fmt: skip
    commit = SimpleNamespace(event="kv.put", time_ns=5, seq=number, raft_index=9, outcome="ok")
    return change, commit, None, None


class Reader:
    """A past of five keys."""

    def range_at(self, *_: Any) -> RangeResult:
        return RangeResult(tuple(map(kv, range(5))), 9, True)

    def diff(self, *_: Any) -> list[Any]:
        return [SimpleNamespace(key=b"k%d" % n, before=None, after=kv(n)) for n in range(5)]

    def blame(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(rows=list(map(row, range(5))), more=True)

    key_history = blame


class Service(HistoryService):
    """Whoever asks may."""

    def header(self) -> bytes:
        return HEADER

    def may_read(self, *_: Any, **__: Any) -> None:
        return

    def linearizable(self, _: Any, answer: Any) -> Waiting:
        found: Waiting = answer()
        return found


@pytest.mark.parametrize(
    ("name", "request_", "response"),
    [
        ("at", v1_pb2.AtRequest(key=b"k", revision=1), v1_pb2.AtResponse),
        ("diff", v1_pb2.DiffRequest(key=b"k", from_revision=1), v1_pb2.DiffResponse),
        ("blame", v1_pb2.BlameRequest(key=b"k"), v1_pb2.LogResponse),
        ("log", v1_pb2.LogRequest(key=b"k", values=True), v1_pb2.LogResponse),
    ],
    ids=str,
)
def test_parts_are_the_answer(
    name: str, request_: Any, response: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "RANGE_PIECE_KEYS", 2)
    member = Member()
    member.reader = Reader()
    member.audit = SimpleNamespace(marks_read=lambda *_: False)  # type: ignore[attr-defined]
    service = Service(cast(Any, member))
    got: list[Any] = []
    getattr(service, name)(None, request_.SerializeToString()).bind_pieces(got.append)
    (pieces,) = got
    assert isinstance(pieces, Pieces)
    assert pieces.size == len(pieces.whole())
    assert len(pieces.parts) >= 5
    whole = response.FromString(pieces.whole())
    (field,) = [value for field, value in whole.ListFields() if field.is_repeated]
    assert [item.key for item in field] == [b"k%d" % n for n in range(5)]
    assert whole.header.revision == 5
    document = JsonPieces()
    text = "".join(t for p in pieces.parts for t in document.add(response.FromString(p), 64))
    assert text + document.end() == to_json(whole)
