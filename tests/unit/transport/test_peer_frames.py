"""Frames, hellos, outboxes: pure parts of the peer link."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc import limits
from configsvc.codec.raft_wire import MESSAGE_HEAD_BYTES, decode_messages
from configsvc.errors import DecodeError
from configsvc.raft.messages import Entry, Message, MessageType
from configsvc.transport import outbox as outbox_module
from configsvc.transport.frames import HEAD_BYTES, FrameReader, frame_head
from configsvc.transport.hello import (
    BULK,
    Hello,
    Refusal,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
)
from configsvc.transport.outbox import Outbox
from configsvc.types import LogIndex, NodeId, Term

HELLO = Hello(BULK, True, 1, 2, 3, bytes(range(16)), 4, 5, 6, 7, "1.2.3")


def frame(kind: int, body: bytes) -> bytes:
    return frame_head(kind, len(body)) + body


def greeted() -> FrameReader:
    reader = FrameReader()
    reader.greeted = True
    return reader


@given(
    frames=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_any_cut_of_the_stream_gives_the_same_frames(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frame(kind, body) for kind, body in frames)
    reader = greeted()
    out: list[tuple[int, bytes]] = []
    at = 0
    for cut in [*sorted(c for c in cuts if c < len(stream)), len(stream)]:
        out += reader.feed(stream[at:cut])
        at = cut
    assert out == frames


def test_byte_by_byte() -> None:
    stream = frame(1, b"abc") + frame(2, b"") + frame(3, b"d" * 300)
    reader = greeted()
    out = [found for at in range(len(stream)) for found in reader.feed(stream[at : at + 1])]
    assert out == [(1, b"abc"), (2, b""), (3, b"d" * 300)]


@pytest.mark.parametrize(
    ("head", "hello_done"),
    [
        pytest.param(struct.pack("<IBB", limits.PEER_FRAME_BYTES_MAX + 1, 1, 1), True, id="long"),
        pytest.param(struct.pack("<IBB", 2**32 - 1, 1, 1), True, id="absurd"),
        pytest.param(
            struct.pack("<IBB", limits.PEER_HELLO_BYTES_MAX + 1, 0, 1), False, id="before-hello"
        ),
        pytest.param(struct.pack("<IBB", 0, 1, 2), True, id="version"),
    ],
)
def test_a_length_is_judged_from_its_head_alone(head: bytes, hello_done: bool) -> None:
    reader = FrameReader()
    reader.greeted = hello_done
    with pytest.raises(DecodeError):
        list(reader.feed(head))


def test_hello_and_refusal_survive_the_trip() -> None:
    assert decode_hello(encode_hello(HELLO)) == HELLO
    assert decode_hello(encode_hello(HELLO) + b"later fields") == HELLO
    refusal = Refusal(88, "the member was removed")
    assert decode_refusal(encode_refusal(refusal)) == refusal


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(encode_hello(HELLO)[:-1], id="cut"),
        pytest.param(b"X" + encode_hello(HELLO)[1:], id="magic"),
        pytest.param(encode_hello(HELLO._replace(lane=2)), id="lane"),
        pytest.param(encode_hello(HELLO._replace(version="a\nb")), id="newline"),
        pytest.param(
            encode_hello(HELLO)[:10] + b"\x02\x00" + encode_hello(HELLO)[12:], id="newer-reader"
        ),
    ],
)
def test_malformed_hellos(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_hello(body)


@pytest.mark.parametrize("body", [b"", b"\x58", b"\x58\x02a", b"\x58\x01\n", b"\x58\x01ab"])
def test_malformed_refusals(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_refusal(body)


@given(st.binary(max_size=200))
def test_junk_hellos_are_decode_errors(body: bytes) -> None:
    for decode in (decode_hello, decode_refusal):
        try:
            decode(body)
        except DecodeError:
            continue


# --- outbox ---------------------------------------------------------------------------------------


def beat(kind: MessageType, round_: int, context: bytes = b"") -> Message:
    return Message(kind, NodeId(2), NodeId(1), Term(1), read_round=round_, context=context)


def sent(box: Outbox) -> tuple[list[Message], list[tuple[int, bytes]]]:
    """Everything in the next write."""
    messages: list[Message] = []
    frames: list[tuple[int, bytes]] = []
    for kind, body in greeted().feed(b"".join(box.take())):
        if kind == 1:
            messages += decode_messages(body).messages
        else:
            frames.append((kind, body))
    return messages, frames


def test_a_heartbeat_replaces_an_older_one_that_waits() -> None:
    box = Outbox()
    box.add_message(beat(MessageType.HEARTBEAT, 1), b"")
    box.add_message(beat(MessageType.VOTE, 0), b"")
    box.add_message(beat(MessageType.HEARTBEAT_RESP, 1), b"")
    box.add_message(beat(MessageType.HEARTBEAT, 2), b"")
    box.add_message(beat(MessageType.HEARTBEAT, 3, b"context"), b"")
    messages, _ = sent(box)
    assert messages == [
        beat(MessageType.HEARTBEAT, 2),
        beat(MessageType.VOTE, 0),
        beat(MessageType.HEARTBEAT_RESP, 1),
        beat(MessageType.HEARTBEAT, 3, b"context"),
    ]
    assert box.waiting == 0
    box.add_message(beat(MessageType.HEARTBEAT, 4), b"")
    assert sent(box)[0] == [beat(MessageType.HEARTBEAT, 4)]


def test_a_write_is_bounded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "PEER_PASS_BYTES_MAX", 4 * MESSAGE_HEAD_BYTES)
    box = Outbox()
    wanted = [beat(MessageType.VOTE, at) for at in range(10)]
    for message in wanted:
        box.add_message(message, b"")
    for at in range(10):
        box.add_frame(20 + at, bytes(MESSAGE_HEAD_BYTES))
    messages: list[Message] = []
    frames: list[tuple[int, bytes]] = []
    writes = 0
    while box.waiting:
        some, others = sent(box)
        assert some or others
        messages += some
        frames += others
        writes += 1
    assert messages == wanted
    assert [kind for kind, _ in frames] == list(range(20, 30))
    assert writes >= 5
    assert not box.take()


def test_a_message_longer_than_a_write_goes_alone() -> None:
    box = Outbox()
    entry = Entry(Term(1), LogIndex(1), 0, bytes(limits.PEER_PASS_BYTES_MAX + 1))
    long = Message(MessageType.APP, NodeId(2), NodeId(1), Term(1), entries=(entry,))
    records = struct.pack("<QBI", 1, 0, len(entry.data)) + entry.data
    box.add_message(beat(MessageType.VOTE, 0), b"")
    box.add_message(long, records)
    assert sent(box)[0] == [beat(MessageType.VOTE, 0)]
    assert sent(box)[0] == [long]
    assert box.waiting == 0


def test_waiting_counts_what_is_written() -> None:
    box = Outbox()
    box.add_message(beat(MessageType.VOTE, 0, b"abc"), b"")
    box.add_frame(2, b"xyz")
    assert box.waiting == MESSAGE_HEAD_BYTES + 3 + HEAD_BYTES + 3
    waited = box.waiting
    assert len(b"".join(box.take())) == waited + HEAD_BYTES  # the frame around the messages
    box.add_frame(2, b"xyz")
    box.clear()
    assert box.waiting == 0
    assert not box.take()
