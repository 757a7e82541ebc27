"""Raft messages as bytes: everything comes back, and junk is a DecodeError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.codec.raft_wire import MESSAGE_HEAD_BYTES, decode_messages, encode_messages
from configsvc.codec.records import RecordCache
from configsvc.errors import DecodeError
from configsvc.raft.messages import ConfState, Entry, Message, MessageType, Snapshot
from configsvc.types import LogIndex, NodeId, Term

U64 = st.integers(0, 2**64 - 1)
LOCAL = {
    MessageType.HUP,
    MessageType.BEAT,
    MessageType.PROP,
    MessageType.UNREACHABLE,
    MessageType.SNAP_STATUS,
    MessageType.CHECK_QUORUM,
    MessageType.STORAGE_APPEND,
    MessageType.STORAGE_APPEND_RESP,
    MessageType.STORAGE_APPLY,
    MessageType.STORAGE_APPLY_RESP,
    MessageType.FORGET_LEADER,
}
TRAVELS = [kind for kind in MessageType if kind not in LOCAL]


def encoded(batch: list[Message]) -> bytes:
    """Each with a cache of its own: these are no batches of one log."""
    return b"".join(encode_messages([message], RecordCache()) for message in batch)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(TRAVELS))
    index = draw(st.integers(0, 2**60))
    entries: tuple[Entry, ...] = ()
    snapshot = None
    if kind is MessageType.APP:
        payloads = draw(st.lists(st.tuples(U64, st.integers(0, 255), st.binary(max_size=9))))
        entries = tuple(
            Entry(Term(term), LogIndex(index + 1 + at), entry_kind, data)
            for at, (term, entry_kind, data) in enumerate(payloads)
        )
    if kind is MessageType.SNAP:
        ids = tuple(NodeId(i) for i in sorted(draw(st.sets(U64, max_size=4))))
        conf = ConfState(ids, ids[:1], (), ids[1:], draw(st.booleans()))
        snapshot = Snapshot(
            LogIndex(draw(U64)), Term(draw(U64)), conf, draw(st.binary(max_size=20))
        )
    return Message(
        kind,
        NodeId(draw(U64)),
        NodeId(draw(U64)),
        Term(draw(U64)),
        Term(draw(U64)),
        LogIndex(index),
        entries,
        LogIndex(draw(U64)),
        NodeId(draw(U64)),
        draw(st.booleans()),
        LogIndex(draw(U64)),
        snapshot,
        draw(st.binary(max_size=20)),
        draw(U64),
    )


@given(st.lists(messages(), max_size=4))
def test_round_trip(batch: list[Message]) -> None:
    body = encoded(batch)
    assert decode_messages(body) == (batch, 0)


@given(st.lists(messages(), min_size=1, max_size=2), st.data())
def test_no_prefix_but_a_whole_one_decodes(batch: list[Message], data: st.DataObject) -> None:
    body = encoded(batch)
    cut = data.draw(st.integers(1, len(body) - 1))
    if cut == len(encoded(batch[:1])):
        return
    with pytest.raises(DecodeError):
        decode_messages(body[:cut])


@given(st.binary(max_size=300))
def test_junk_is_a_decode_error_or_harmless(body: bytes) -> None:
    try:
        decode_messages(body)
    except DecodeError:
        return


@given(messages(), st.data())
def test_a_changed_byte_never_raises_anything_else(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode_messages([message], RecordCache()))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        decode_messages(bytes(body))
    except DecodeError:
        return


@pytest.mark.parametrize("kind", sorted(LOCAL))
def test_local_kinds_do_not_travel(kind: MessageType) -> None:
    body = encode_messages([Message(kind, NodeId(1), NodeId(2))], RecordCache())
    with pytest.raises(DecodeError):
        decode_messages(body)


def test_kinds_of_a_later_version_are_counted_and_skipped() -> None:
    known = Message(MessageType.VOTE, NodeId(1), NodeId(2), Term(3))
    body = encode_messages([known], RecordCache())
    later = b"\xc8" + body[1:]
    assert decode_messages(later + body + later) == ([known], 2)


def test_entries_and_snapshots_only_where_they_belong() -> None:
    entry = Entry(Term(1), LogIndex(1), 0, b"x")
    app = Message(MessageType.APP, NodeId(1), NodeId(2), Term(1), entries=(entry,))
    body = bytearray(encode_messages([app], RecordCache()))
    body[0] = MessageType.VOTE
    with pytest.raises(DecodeError):
        decode_messages(bytes(body))
    snap = Message(MessageType.SNAP, NodeId(1), NodeId(2), Term(1), snapshot=Snapshot())
    body = bytearray(encode_messages([snap], RecordCache()))
    body[0] = MessageType.HEARTBEAT
    with pytest.raises(DecodeError):
        decode_messages(bytes(body))
    assert len(body) > MESSAGE_HEAD_BYTES


def test_one_batch_is_encoded_once_for_all_peers() -> None:
    entries = tuple(Entry(Term(1), LogIndex(at), 0, b"x" * 10) for at in range(1, 4))
    records = RecordCache()
    app = Message(MessageType.APP, NodeId(2), NodeId(1), Term(1), entries=entries)
    encode_messages([app], records)
    assert records.encode(entries) is records.encode(list(entries))
