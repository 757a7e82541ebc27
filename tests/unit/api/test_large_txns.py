"""Transactions whose answers are of very many keys: encoded in slices, as one go would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.api import large_answers
from configsvc.api.kv import KvService
from configsvc.api.large_answers import LargeRanges, is_large_txn, large_txn
from configsvc.codec import answers
from configsvc.errors import OverloadedError
from configsvc.gateway.json_out import JsonPieces, to_json
from configsvc.mvcc.messages import (
    DeleteResult,
    KeyValue,
    PutResult,
    RangeResult,
    TxnResult,
)
from configsvc.proto import rpc_pb2
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Pieces
from tests.support.api_rig import ROOT, ApiMember, caller, told
from tests.support.turns import Turns

HEADER = b"\x0a\x02\x18\x05"
PIECE = 4

KV = st.builds(
    KeyValue, st.binary(min_size=1, max_size=3), st.binary(max_size=5), st.integers(1, 300),
    st.integers(1, 300), st.integers(1, 300), st.integers(-1, 3),
)  # fmt: skip
KVS = st.lists(KV, max_size=11).map(tuple)
PLAIN = st.one_of(
    st.builds(PutResult, st.integers(1, 300), st.none() | KV),
    st.builds(RangeResult, KVS, st.integers(0, 300), st.booleans(), st.integers(0, 300)),
    st.builds(DeleteResult, st.integers(1, 300), st.integers(0, 300), KVS),
)


def txns(inner: Any) -> Any:
    return st.builds(TxnResult, st.integers(1, 300), st.booleans(), st.lists(inner, max_size=4))


TXN = txns(st.recursive(PLAIN, txns, max_leaves=6))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "RANGE_PIECE_KEYS", PIECE)


class Making:
    def __init__(self) -> None:
        self.turns = Turns()
        self.ranges = LargeRanges(Slices(self.turns))

    def start(self, result: TxnResult, *, made: bool = False) -> list[Any]:
        got: list[Any] = []
        large_txn(self.ranges, HEADER, result, made=made).bind_pieces(got.append)
        return got

    def run(self) -> None:
        while self.turns.soon:
            self.turns.next()


@given(TXN, st.integers(1, 4))
def test_slices_of_a_transaction_say_what_one_go_says(result: TxnResult, piece: int) -> None:
    """Byte for byte, and as JSON."""
    making = Making()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_answers, "RANGE_PIECE_KEYS", piece)
        (pieces,) = _run(making, result)
    wanted = HEADER + answers.txn_body(result)
    assert pieces.whole() == wanted
    document = JsonPieces()
    parse = rpc_pb2.TxnResponse.FromString
    texts = [text for part in pieces.parts for text in document.add(parse(part), 2)]
    assert "".join(texts) + document.end() == to_json(parse(wanted))


def _run(making: Making, result: TxnResult) -> list[Any]:
    got = making.start(result)
    making.run()
    return got


def ranged(keys: int) -> TxnResult:
    kvs = tuple(KeyValue(b"k%03d" % n, b"v", 2, 2, 1, 0) for n in range(keys))
    return TxnResult(7, True, (RangeResult(kvs, keys, False, 7),))


def test_which_transactions_are_large() -> None:
    """Whatever tells keys counts, at every depth."""
    (few,) = ranged(PIECE).responses
    assert not is_large_txn(TxnResult(7, True, (few, PutResult(7, None))))
    for more in (few, DeleteResult(7, 1, ranged(1).responses[0].kvs), ranged(1)):  # type: ignore[union-attr]
        assert is_large_txn(TxnResult(7, True, (few, more)))


def test_no_slice_encodes_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = answers.key_values

    def counting(kvs: Any, **more: Any) -> bytes:
        encoded.append(len(kvs))
        return encode(kvs, **more)

    monkeypatch.setattr(answers, "key_values", counting)
    making = Making()
    got = making.start(TxnResult(7, True, (ranged(9), *ranged(6).responses)))
    while making.turns.soon:
        before = len(encoded)
        making.turns.next()
        assert len(encoded) <= before + 1
    assert encoded == [4, 4, 1, 4, 2]
    assert len(got) == 1


def test_whoever_left_is_found_out_at_the_next_slice() -> None:
    making = Making()
    waiting = large_txn(making.ranges, HEADER, ranged(40), made=False)
    got: list[Any] = []
    waiting.bind(got.append)
    making.turns.next()
    waiting.cancel()
    making.turns.next()
    assert not making.turns.soon
    assert got == []


def test_a_change_is_told_however_many_answers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_answers, "RANGES_IN_PIECES_MAX", 1)
    monkeypatch.setattr(large_answers, "RANGES_WAITING_MAX", 1)
    making = Making()
    first = [making.start(ranged(8)) for _ in range(2)]
    with pytest.raises(OverloadedError):
        making.start(ranged(8))
    done = making.start(ranged(8), made=True)
    making.run()
    assert [len(got) for got in (*first, done)] == [1, 1, 1]


def test_the_service_cuts_what_is_large() -> None:
    member = ApiMember()
    for n in range(PIECE + 1):
        member.put(b"/k%d" % n)
    kv = KvService(member)  # type: ignore[arg-type]
    get = rpc_pb2.RangeRequest(key=b"/k", range_end=b"/l")
    ask = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=get)])
    waiting: Any = kv.txn(caller(ROOT), ask.SerializeToString())
    pieces: list[Any] = []
    waiting.bind_pieces(pieces.append)
    assert not pieces
    while member.turns.soon:
        member.turns.next()
    assert type(pieces[0]) is Pieces
    found = rpc_pb2.TxnResponse.FromString(pieces[0].whole())
    assert len(found.responses[0].response_range.kvs) == PIECE + 1
    get.limit = PIECE
    ask = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=get)])
    (whole,) = told(kv.txn(caller(ROOT), ask.SerializeToString()))
    assert type(whole) is bytes
