"""gRPC framing: messages over any split, prefixes judged first, timeouts, metadata, statuses."""

from __future__ import annotations

import base64
import struct
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.http2 import grpc
from configsvc.http2.grpc import GrpcFault, MessageReader, grpc_head, only_message, percent_encoded
from configsvc.http2.request import RequestHead
from configsvc.limits import MESSAGE_BYTES_MAX
from tests.support.http2_frames import grpc_message


def head(*fields: tuple[bytes, bytes]) -> RequestHead:
    pseudo = {b":method": b"POST", b":scheme": b"http", b":path": b"/a"}
    return RequestHead(pseudo, ((b"content-type", b"application/grpc"), *fields))


@given(st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_messages_survive_any_split(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(grpc_message, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = MessageReader()
    found: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:stop])
    assert found == messages
    assert reader.held == 0


def test_held_counts_the_incomplete_message() -> None:
    reader = MessageReader()
    assert reader.feed(grpc_message(b"abc") + b"\0\0") == [b"abc"]
    assert reader.held == 2
    reader.feed(b"\0\0\4xy")
    assert reader.held == 7
    assert reader.feed(b"zw") == [b"xyzw"]
    assert reader.held == 0


@pytest.mark.parametrize(
    ("prefix", "code"),
    [
        (struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1), grpc.RESOURCE_EXHAUSTED),
        (struct.pack(">BI", 0, 2**32 - 1), grpc.RESOURCE_EXHAUSTED),
        (struct.pack(">BI", 1, 5), grpc.UNIMPLEMENTED),
        (struct.pack(">BI", 255, 0), grpc.UNIMPLEMENTED),
    ],
)
@pytest.mark.parametrize("step", [1, 5])
def test_prefixes_are_judged_before_any_body(prefix: bytes, code: int, step: int) -> None:
    reader = MessageReader()
    for start in range(0, 5 - step, step):
        assert reader.feed(prefix[start : start + step]) == []
    with pytest.raises(GrpcFault) as caught:
        reader.feed(prefix[5 - step :])
    assert caught.value.code == code
    assert only_message(prefix + b"hello") is None


def test_the_largest_message_passes() -> None:
    body = grpc_message(b"x" * MESSAGE_BYTES_MAX)
    assert MessageReader().feed(body) == [body[5:]]
    assert only_message(body) == body[5:]


@given(st.binary(max_size=40))
def test_the_short_cut_agrees_with_the_reader(body: bytes) -> None:
    short = only_message(body)
    try:
        reader = MessageReader()
        messages = reader.feed(body)
    except GrpcFault:
        assert short is None
        return
    if len(messages) == 1 and not reader.held:
        assert short == messages[0]
    else:
        assert short is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"5S", 5.0),
        (b"100m", 0.1),
        (b"7u", 7e-6),
        (b"9n", 9e-9),
        (b"2M", 120.0),
        (b"1H", 3600.0),
        (b"99999999H", 99_999_999 * 3600.0),
        (b"0S", 0.0),
    ],
)
def test_timeouts(text: bytes, seconds: float) -> None:
    assert grpc_head(head((b"grpc-timeout", text))).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"5", b"S", b"123456789S", b"-1S", b"5s", b"1.5S", b"5S "])
def test_timeouts_that_cannot_be_read(text: bytes) -> None:
    with pytest.raises(GrpcFault) as caught:
        grpc_head(head((b"grpc-timeout", text)))
    assert caught.value.code == grpc.INVALID_ARGUMENT
    assert "5" not in caught.value.text


def test_metadata_is_what_is_not_framing() -> None:
    told = grpc_head(
        head(
            (b"te", b"trailers"),
            (b"grpc-encoding", b"identity"),
            (b"token", b"a"),
            (b"token", b"b"),
            (b"grpcgateway-accept", b"x"),
            (b"user-agent", b"u"),
        )
    )
    assert told.timeout is None
    assert told.metadata == (
        (b"token", b"a"),
        (b"token", b"b"),
        (b"grpcgateway-accept", b"x"),
        (b"user-agent", b"u"),
    )


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3), st.booleans())
def test_binary_metadata(values: list[bytes], padded: bool) -> None:
    parts = [base64.b64encode(value) for value in values]
    if not padded:
        parts = [part.rstrip(b"=") for part in parts]
    told = grpc_head(head((b"x-bin", b",".join(parts))))
    assert told.metadata == tuple((b"x-bin", value) for value in values)


@pytest.mark.parametrize("value", [b"a", b"!!!!", b"YQ=a", b"====", b"YQ\xff="])
def test_bad_binary_metadata(value: bytes) -> None:
    with pytest.raises(GrpcFault) as caught:
        grpc_head(head((b"x-bin", value)))
    assert caught.value.code == grpc.INVALID_ARGUMENT


@given(st.text(max_size=100))
def test_status_texts_travel_percent_encoded(text: str) -> None:
    encoded = percent_encoded(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        assert unquote(encoded.decode()) == text


def test_long_status_texts_are_cut() -> None:
    assert len(percent_encoded("x" * 100_000)) == 1_024


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/json", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_what_counts_as_grpc(kind: bytes, *, expected: bool) -> None:
    pseudo = {b":method": b"POST", b":scheme": b"http", b":path": b"/a"}
    assert RequestHead(pseudo, ((b"content-type", kind),)).is_grpc == expected
