"""RangeStream by hand: slices, a client that rests, history, cancelling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.api import range_stream
from configsvc.api.range_stream import RangeStream
from configsvc.errors import CompactedError, PermissionDeniedError
from configsvc.mvcc import cursor as cursors
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.messages import KeyValue, RangeOp, RangeResult
from configsvc.proto import rpc_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import KeySpan
from tests.support.range_rig import HEADER, Member

ALL = KeySpan(b"", None)
KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])
WRITE = st.tuples(KEYS, st.integers(0, 1))


class Audit:
    def marks_read(self, *_: Any) -> bool:
        return False


class Service:
    """What the stream asks of KV."""

    def __init__(self, member: Member) -> None:
        self.member = member
        member.audit = Audit()  # type: ignore[attr-defined]
        self.asked = 0
        self.allowed = True

    def header(self) -> bytes:
        return HEADER

    def may_read(self, *_: Any, again: bool = False) -> None:
        self.asked += 1
        if not self.allowed:
            raise PermissionDeniedError

    def linearizable(self, _: Any, answer: Any) -> Waiting:
        waiting = Waiting()
        waiting.complete(answer())
        return waiting


class Sink:
    """A client that reads, or does not."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.reads = True
        self.ended: list[Any] = []

    def send(self, payload: bytes) -> bool:
        assert not self.ended
        self.chunks.append(rpc_pb2.RangeStreamResponse.FromString(payload).range_response)
        return self.reads

    def finish(self, error: Any) -> None:
        self.ended.append(error)

    @property
    def keys(self) -> list[bytes]:
        return [kv.key for chunk in self.chunks for kv in chunk.kvs]


class Rig:
    def __init__(self, member: Member, **fields: Any) -> None:
        self.member = member
        self.sink = Sink()
        self.service = Service(member)
        self.stream = RangeStream(self.service, member.slices, None, self.sink)  # type: ignore[arg-type]
        self.fields = {"key": b"\0", "range_end": b"\0"} | fields

    def ask(self) -> None:
        self.stream.on_message(rpc_pb2.RangeRequest(**self.fields).SerializeToString())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_stream, "RANGE_PIECE_KEYS", 4)


@pytest.fixture
def member() -> Member:
    found = Member()
    for n in range(40):
        found.put(b"k%02d" % n)
    return found


def test_chunks_grow_and_the_last_one_sums_up(member: Member) -> None:
    rig = Rig(member)
    rig.ask()
    turns = 0
    while member.loop.soon:
        member.loop.next()
        turns += 1
    assert turns >= 10  # slices of four
    assert [len(chunk.kvs) for chunk in rig.sink.chunks] == [10, 20, 10]
    assert rig.sink.keys == [b"k%02d" % n for n in range(40)]
    assert [chunk.count for chunk in rig.sink.chunks] == [0, 0, 40]
    assert [chunk.HasField("header") for chunk in rig.sink.chunks] == [False, False, True]
    assert rig.sink.ended == [None]
    assert member.store.tail._pins == {}
    assert rig.service.asked == 4  # at the beginning, and before each chunk


@pytest.mark.parametrize(("limit", "more"), [(7, True), (10, True), (11, True), (40, False)])
def test_a_limit(member: Member, limit: int, more: bool) -> None:
    rig = Rig(member, limit=limit)
    rig.ask()
    member.run()
    assert len(rig.sink.keys) == limit
    assert (rig.sink.chunks[-1].more, rig.sink.chunks[-1].count) == (more, 40)


@pytest.mark.parametrize(
    "fields", [{"count_only": True}, {"key": b"x", "range_end": b"y"}], ids=str
)
def test_nothing_but_a_count(member: Member, fields: dict[str, Any]) -> None:
    rig = Rig(member, **fields)
    rig.ask()
    member.run()
    (only,) = rig.sink.chunks
    assert (len(only.kvs), only.more, only.count) == (0, False, 40 if len(fields) == 1 else 0)
    assert rig.sink.ended == [None]


@given(
    before=st.lists(WRITE, max_size=12),
    during=st.lists(st.lists(WRITE, max_size=3), max_size=6),
    reads=st.lists(st.booleans(), max_size=6),
)
def test_one_revision_whatever_is_written(
    before: list[Any], during: list[Any], reads: list[bool]
) -> None:
    member = Member()

    def write(ops: list[Any]) -> None:
        for key, what in ops:
            member.put(key, b"%d" % member.store.revision) if what else member.drop(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_stream, "RANGE_PIECE_KEYS", 2)
        patch.setattr(range_stream, "FIRST_KEYS", 1)
        patch.setattr(cursors, "RANGE_PIECE_ROWS", 2)
        write(before)
        wanted = [(kv.key, kv.value) for kv in member.store.range(RangeOp(ALL)).kvs]
        rig = Rig(member)
        rig.ask()
        for ops in during:
            rig.sink.reads = reads.pop() if reads else True
            if member.loop.soon:
                member.loop.next()
            write(ops)
            rig.stream.on_writable()
        rig.sink.reads = True
        member.run()
        rig.stream.on_writable()
        member.run()
    assert [(kv.key, kv.value) for chunk in rig.sink.chunks for kv in chunk.kvs] == wanted
    assert (rig.sink.ended, member.store.tail._pins) == ([None], {})


def test_a_client_that_does_not_read_stops_the_work(member: Member) -> None:
    rig = Rig(member)
    rig.sink.reads = False
    rig.ask()
    member.run()
    assert [len(chunk.kvs) for chunk in rig.sink.chunks] == [10]
    assert member.store.tail._pins == {}  # it holds nothing back that could be forgotten
    rig.stream.on_writable()
    rig.stream.on_writable()
    member.run()
    assert [len(chunk.kvs) for chunk in rig.sink.chunks] == [10, 20]


def test_what_memory_forgot_while_it_rested_comes_from_history(member: Member) -> None:
    rig = Rig(member)
    rig.sink.reads = False
    rig.ask()
    revision = member.store.revision
    member.run()
    for n in range(5):
        member.put(b"z%d" % n)
    member.store.tail.trim(member.store.revision, member.store.revision)
    asked: list[Any] = []

    class Reader:
        def range_at(self, op: RangeOp, at: int) -> RangeResult:
            asked.append((op.span.start, op.limit, at))
            rest = [b"k%02d" % n for n in range(40) if b"k%02d" % n >= op.span.start]
            kvs = tuple(KeyValue(key, b"h", 1, 2, 1, 0) for key in rest[: op.limit])
            return RangeResult(kvs, len(rest), len(rest) > op.limit)

    member.reader = Reader()
    rig.sink.reads = True
    rig.stream.on_writable()
    member.run()
    assert rig.sink.keys == [b"k%02d" % n for n in range(40)]
    assert asked == [(b"k09\0", 20, revision), (b"k29\0", 40, revision)]
    assert (rig.sink.chunks[-1].count, rig.sink.ended) == (40, [None])


def test_a_revision_before_memory_is_counted_and_read_from_history(member: Member) -> None:
    member.store.load((), revision=90, compact_revision=-1)

    class Reader:
        def range_at(self, op: RangeOp, at: int) -> RangeResult:
            kvs = (KeyValue(b"k", b"h", 1, 2, 1, 0),)
            return RangeResult(() if op.count_only else kvs, 1, False)

    member.reader = Reader()
    rig = Rig(member, revision=50)
    rig.ask()
    assert (rig.sink.keys, rig.sink.chunks[-1].count, rig.sink.ended) == ([b"k"], 1, [None])
    assert member.gate.asked == 2


def test_a_compaction_ends_it(member: Member) -> None:
    rig = Rig(member)
    rig.ask()
    member.loop.next()
    member.put(b"new")
    member.store.compact(member.store.revision)
    member.run()
    assert [type(error) for error in rig.sink.ended] == [CompactedError]


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_rights_that_end_end_the_stream_before_its_next_chunk(member: Member, chunks: int) -> None:
    """JWT-13: whoever reads slowly does not read on for as long as it likes."""
    rig = Rig(member)
    rig.ask()
    while len(rig.sink.chunks) < chunks:
        member.loop.next()
    rig.service.allowed = False
    member.run()
    assert len(rig.sink.chunks) == chunks
    assert [type(error) for error in rig.sink.ended] == [PermissionDeniedError]
    assert member.store.tail._pins == {}


def test_a_stream_without_rights_does_not_begin(member: Member) -> None:
    late = Rig(member)
    late.service.allowed = False
    late.ask()
    assert [type(error) for error in late.sink.ended] == [PermissionDeniedError]


def test_cancelling_ends_the_work(member: Member) -> None:
    rig = Rig(member)
    rig.ask()
    member.loop.next()
    assert member.store.tail._pins
    rig.stream.on_cancel()
    assert member.store.tail._pins == {}
    member.run()
    assert (rig.sink.chunks, rig.sink.ended) == ([], [])


def test_a_cursor_that_rests_goes_on_where_it_was(member: Member) -> None:
    cursor = RangeCursor(member.store, ALL)
    cursor.next_chunk(3)
    cursor.rest()
    assert member.store.tail._pins == {}
    member.drop(b"k03")
    assert [kv.key for kv in cursor.next_chunk(2)] == [b"k03", b"k04"]
