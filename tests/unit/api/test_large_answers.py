"""Answers of very many keys: bounded slices, one revision, nothing for nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.api import large_answers
from configsvc.api.large_answers import from_history, is_large, large_deletion, portions
from configsvc.codec import answers
from configsvc.errors import OverloadedError
from configsvc.mvcc import cursor as cursors
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.messages import DeleteResult, KeyValue, RangeOp, RangeResult
from configsvc.mvcc.store import NeedHistory
from configsvc.proto import rpc_pb2
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Pieces, Waiting
from configsvc.types import KeySpan
from tests.support.range_rig import HEADER, Member
from tests.support.turns import Turns

ALL = KeySpan(b"", None)
PIECE = 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "RANGE_PIECE_KEYS", PIECE)


@pytest.fixture
def member() -> Member:
    found = Member()
    for n in range(20):
        found.put(b"k%02d" % n, b"v" * n)
    return found


def parsed(raw: bytes) -> Any:
    return rpc_pb2.RangeResponse.FromString(raw)


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])
WRITE = st.tuples(KEYS, st.integers(0, 2))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(0, 7),
        "sort_order": st.integers(0, 2),
        "sort_target": st.integers(0, 4),
        "keys_only": st.booleans(),
        "min_mod_revision": st.integers(0, 9),
        "max_create_revision": st.integers(0, 9),
    },
)


@given(
    before=st.lists(WRITE, max_size=14),
    since=st.lists(WRITE, max_size=5),
    during=st.lists(st.lists(WRITE, max_size=3), max_size=5),
    options=OPTIONS,
    old=st.booleans(),
    piece=st.integers(1, 4),
    rows=st.integers(1, 3),
)
def test_slices_say_what_one_go_says(
    before: list[Any], since: list[Any], during: list[Any], options: Any, old: bool,
    piece: int, rows: int,
) -> None:  # fmt: skip
    """Byte for byte, whatever is written between the slices."""
    member = Member()

    def write(ops: list[Any]) -> None:
        for key, what in ops:
            if what:
                member.put(key, b"%d" % (member.store.revision % 3), what - 1)
            else:
                member.drop(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_answers, "RANGE_PIECE_KEYS", piece)
        patch.setattr(cursors, "RANGE_PIECE_ROWS", rows)
        write(before)
        revision = member.store.revision
        write(since)
        op = RangeOp(KeySpan(b"a", b"f"), revision=revision if old else 0, **options)
        wanted = HEADER + answers.range_body(member.store.range(op))
        _, got = member.ask(op)
        for ops in during:
            if member.loop.soon:
                member.loop.next()
            write(ops)
            member.store.trim_tail(member.store.revision)
        for _ in range(200):
            if member.loop.soon:
                member.loop.next()
    assert got == [wanted]
    assert not member.loop.soon
    assert member.store.tail._pins == {}


def test_no_slice_brings_more_than_its_bound(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    looked_up: list[int] = []
    key_values, next_chunk = answers.key_values, RangeCursor.next_chunk

    def counting(kvs: Any, **options: bool) -> bytes:
        encoded.append(len(kvs))
        return key_values(kvs, **options)

    def looking(self: RangeCursor, keys_max: int) -> list[KeyValue]:
        found = next_chunk(self, keys_max)
        looked_up.append(len(found))
        return found

    monkeypatch.setattr(answers, "key_values", counting)
    monkeypatch.setattr(RangeCursor, "next_chunk", looking)
    for options in ({}, {"sort_order": 2}, {"sort_target": 3, "sort_order": 1}, {"limit": 9}):
        _, got = member.ask(RangeOp(ALL, **options))
        turns = 0
        while not got:
            before = len(encoded), len(looked_up)
            member.loop.next()
            turns += 1
            assert sum(encoded[before[0] :]) <= PIECE
            assert sum(looked_up[before[1] :]) <= PIECE
        assert turns >= parsed(got[0]).count // PIECE // 2
    assert max(encoded) == max(looked_up) == PIECE


def test_what_was_deleted_meanwhile_comes_in_slices_too(member: Member) -> None:
    cursor = RangeCursor(member.store, ALL)
    assert len(cursor.next_chunk(PIECE)) == PIECE
    member.drop(b"k", b"l")
    sizes = []
    while not cursor.done:
        sizes.append(len(cursor.next_chunk(PIECE)))
    assert sum(sizes) == 16
    assert max(sizes) == PIECE


def test_many_changes_are_undone_in_slices(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "RANGE_PIECE_ROWS", 5)
    cursor = RangeCursor(member.store, ALL)
    for n in range(12):
        member.put(b"k%02d" % n, b"new")
    assert [len(cursor.next_chunk(30)) for _ in range(3)] == [0, 0, 20]


def test_a_deletion_tells_its_previous_values_in_slices(member: Member) -> None:
    prevs = member.store.range(RangeOp(ALL)).kvs
    result = DeleteResult(30, len(prevs), prevs)
    got: list[Any] = []
    waiting = large_deletion(member.slices, HEADER, result)
    waiting.bind_pieces(got.append)
    turns = 0
    while not got:
        member.loop.next()
        turns += 1
    (pieces,) = got
    assert turns == len(pieces.parts) == len(prevs) // PIECE + 1
    assert pieces.whole() == HEADER + answers.delete_body(result)
    told = [kv.key for kv in rpc_pb2.DeleteRangeResponse.FromString(pieces.whole()).prev_kvs]
    assert told == [kv.key for kv in prevs]
    nobody = large_deletion(member.slices, HEADER, result)
    nobody.cancel()
    member.run()
    assert not nobody._result


def test_two_large_ranges_take_turns(member: Member) -> None:
    order: list[str] = []
    for name in ("a", "b"):
        member.ask(RangeOp(ALL))[0].bind(lambda _, name=name: order.append(name))
    assert len(member.slices) == 2
    while member.slices:
        assert len(member.loop.soon) == 1  # one slice a turn, however many ranges there are
        member.loop.next()
    assert order == ["a", "b"]


def test_few_answers_are_made_at_once_and_the_others_keep_their_revision(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_answers, "RANGES_IN_PIECES_MAX", 2)
    asked = [member.ask(RangeOp(ALL)) for _ in range(5)]
    assert (len(member.slices), sum(member.store.tail._pins.values())) == (2, 2)
    member.drop(b"k", b"l")
    member.put(b"other")
    asked[3][0].cancel()
    ended: list[int] = []
    while member.loop.soon:
        member.loop.next()
        assert len(member.slices) <= 2
        ended += [n for n, (_, got) in enumerate(asked) if got and n not in ended]
    assert ended == [0, 1, 2, 4]
    assert all(parsed(asked[n][1][0]).count == 20 for n in ended)
    assert all(len(parsed(asked[n][1][0]).kvs) == 20 for n in ended)
    assert member.store.tail._pins == {}


def test_what_somebody_still_works_on_counts_as_unfinished(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_answers, "RANGES_IN_PIECES_MAX", 1)
    kept: list[Pieces] = []

    def keep(pieces: Any) -> None:
        pieces.keep()
        kept.append(pieces)

    first, second = member.start(RangeOp(ALL)), member.start(RangeOp(ALL))
    first.bind_pieces(keep)
    got: list[Any] = []
    second.bind(got.append)
    member.run()
    assert (len(kept), got) == (1, [])
    kept[0].release()
    member.run()
    assert len(got) == 1


def test_who_waited_until_memory_forgot_is_answered_by_history(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_answers, "RANGES_IN_PIECES_MAX", 1)
    _, first = member.ask(RangeOp(ALL))
    _, second = member.ask(RangeOp(ALL))
    revision = member.store.revision
    asked: list[int] = []

    class Reader:
        def range_at(self, op: RangeOp, at: int) -> RangeResult:
            asked.append(at)
            return RangeResult((), 0, False)

    member.reader = Reader()
    while not first:
        member.loop.next()
    member.drop(b"k", b"l")
    member.store.tail.trim(member.store.revision, member.store.revision + 1)
    member.run()
    assert (asked, len(second)) == ([revision], 1)


def test_no_more_wait_than_their_bound(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "RANGES_IN_PIECES_MAX", 1)
    monkeypatch.setattr(large_answers, "RANGES_WAITING_MAX", 2)
    asked = [member.ask(RangeOp(ALL)) for _ in range(3)]
    with pytest.raises(OverloadedError):
        member.ask(RangeOp(ALL))
    asked[1][0].cancel()
    asked.append(member.ask(RangeOp(ALL)))  # whoever went away makes room
    member.run()
    assert [len(got) for _, got in asked] == [1, 0, 1, 1]
    assert member.store.tail._pins == {}


def test_nothing_is_read_for_nobody(member: Member) -> None:
    waiting, got = member.ask(RangeOp(ALL))
    member.loop.next()
    assert member.store.tail._pins
    outer = Waiting()
    outer.follow(waiting)
    outer.cancel()  # as the connection does, which knows the outermost slot only
    member.loop.next()
    assert (got, len(member.loop.soon), member.store.tail._pins) == ([], 0, {})


def test_an_install_sends_a_range_to_history(member: Member) -> None:
    _, got = member.ask(RangeOp(ALL))
    revision = member.store.revision
    member.loop.next()
    asked: list[int] = []

    class Reader:
        def range_at(self, op: RangeOp, at: int) -> RangeResult:
            asked.append(at)
            return RangeResult((KeyValue(b"k", b"v", 1, 2, 1, 0),), 1, False)

    member.reader = Reader()
    member.store.load((), revision=90, compact_revision=-1)
    member.run()
    assert asked == [revision]
    assert [kv.key for kv in parsed(got[0]).kvs] == [b"k"]
    assert got[0].startswith(HEADER)


def test_a_range_that_finds_the_history_busy_is_told_so(member: Member) -> None:
    _, got = member.ask(RangeOp(ALL))
    member.loop.next()

    def full(*_: Any) -> Waiting:
        raise OverloadedError

    member.gate.ask = full  # type: ignore[method-assign]
    member.store.load((), revision=90, compact_revision=-1)
    member.run()
    assert [type(error) for error in got] == [OverloadedError]
    assert not member.loop.soon


def test_history_answers_in_pieces(member: Member) -> None:
    kvs = tuple(KeyValue(b"%d" % n, b"v", 1, 2, 1, 0) for n in range(9))

    class Reader:
        def range_at(self, op: RangeOp, at: int) -> RangeResult:
            return RangeResult(kvs, 9, True)

    member.reader = Reader()
    got: list[Any] = []
    from_history(member, HEADER, RangeOp(ALL, revision=3)).bind_pieces(got.append)  # type: ignore[arg-type]
    (pieces,) = got
    assert isinstance(pieces, Pieces)
    assert pieces.size == len(pieces.whole())
    assert len(pieces.parts) == 5
    whole = parsed(pieces.whole())
    assert (len(whole.kvs), whole.more, whole.count) == (9, True, 9)


def test_older_than_the_tail_is_said_at_once(member: Member) -> None:
    member.store.load((), revision=90, compact_revision=-1)
    with pytest.raises(NeedHistory):
        member.ask(RangeOp(ALL, revision=50))


@pytest.mark.parametrize(
    ("options", "large"),
    [
        ({}, True),
        ({"count_only": True}, False),
        ({"limit": PIECE}, False),
        ({"limit": PIECE + 1}, True),
        ({"limit": 1, "sort_order": 2}, True),  # all of it decides which one is the last
        ({"limit": 1, "revision": 3}, True),  # what was written since has to be undone
        ({"span": KeySpan(b"k01", b"k01\0")}, False),
        ({"span": KeySpan(b"k00", b"k04")}, False),
        ({"span": KeySpan(b"k00", b"k05")}, True),
    ],
    ids=str,
)
def test_which_ranges_are_cut(member: Member, options: dict[str, Any], large: bool) -> None:
    assert is_large(member.store, RangeOp(**({"span": ALL} | options))) is large


def test_portions_bound_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "RANGE_PIECE_BYTES", 10)
    kvs = [KeyValue(b"k", b"v" * size, 1, 1, 1, 0) for size in (4, 6, 1, 30, 2, 8, 8)]
    assert [[len(kv.value) for kv in part] for part in portions(kvs)] == [
        [4, 6], [1], [30], [2, 8], [8],
    ]  # fmt: skip
    assert list(portions([])) == [[]]


def test_who_fails_leaves_the_others_their_turns() -> None:
    loop = Turns()
    slices = Slices(loop)
    done: list[str] = []

    def bad() -> bool:
        raise OverloadedError

    def good() -> bool:
        done.append("x")
        return len(done) < 2

    slices.add(bad)
    slices.add(good)
    with pytest.raises(OverloadedError):
        loop.next()
    loop.next()
    loop.next()
    assert (done, len(slices), len(loop.soon)) == (["x", "x"], 0, 0)
