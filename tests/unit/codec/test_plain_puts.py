"""Puts read by hand: never other than protobuf reads them, and most are."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError as ProtobufDecodeError
from hypothesis import given
from hypothesis import strategies as st

from configsvc.codec import requests
from configsvc.errors import InvalidArgumentError
from configsvc.mvcc.messages import PutOp
from configsvc.proto import rpc_pb2

SIZES = (1, 2, 127, 128, 129, 255, 256, 8_191, 16_383)


def by_protobuf(raw: bytes) -> PutOp:
    return requests.put_op(rpc_pb2.PutRequest.FromString(raw))


@pytest.mark.parametrize("key_bytes", SIZES)
@pytest.mark.parametrize("value_bytes", SIZES)
def test_key_and_value_alone_are_read_by_hand(key_bytes: int, value_bytes: int) -> None:
    put = rpc_pb2.PutRequest(key=b"k" * key_bytes, value=b"v" * value_bytes)
    raw = put.SerializeToString()
    found = requests.plain_put(b"before" + raw + b"behind", 6, 6 + len(raw))
    assert found == by_protobuf(raw)
    assert put.ByteSize() == len(raw)


@pytest.mark.parametrize(
    "put",
    [
        rpc_pb2.PutRequest(key=b"", value=b"v"),
        rpc_pb2.PutRequest(key=b"k", value=b""),
        rpc_pb2.PutRequest(key=b"k", value=b"v", lease=7),
        rpc_pb2.PutRequest(key=b"k", value=b"v", prev_kv=True),
        rpc_pb2.PutRequest(key=b"k", value=b"v", ignore_value=True),
        rpc_pb2.PutRequest(key=b"k", value=b"v", ignore_lease=True),
        rpc_pb2.PutRequest(key=b"k", value=bytes(16_384)),
    ],
)
def test_everything_else_is_left_to_protobuf(put: rpc_pb2.PutRequest) -> None:
    raw = put.SerializeToString()
    assert requests.plain_put(raw, 0, len(raw)) is None
    assert requests.put_of(raw) == by_protobuf(raw)


def agrees(raw: bytes) -> None:
    found = requests.plain_put(raw, 0, len(raw))
    if found is None:
        return
    message = rpc_pb2.PutRequest.FromString(raw)
    assert found == requests.put_op(message)
    assert message.ByteSize() == len(raw)


@given(raw=st.binary(max_size=40) | st.binary(max_size=40).map(lambda b: b"\x0a" + b))
def test_any_bytes(raw: bytes) -> None:
    agrees(raw)


@given(
    key=st.binary(min_size=1, max_size=200),
    value=st.binary(min_size=1, max_size=300),
    at=st.integers(0, 520),
    byte=st.integers(0, 255),
    cut=st.integers(0, 520),
)
def test_a_put_with_a_byte_changed_or_cut(
    key: bytes, value: bytes, at: int, byte: int, cut: int
) -> None:
    raw = bytearray(rpc_pb2.PutRequest(key=key, value=value).SerializeToString())
    raw[at % len(raw)] = byte
    agrees(bytes(raw[: cut or None]))
    agrees(bytes(raw))


def test_bytes_that_are_no_put_are_refused() -> None:
    with pytest.raises(ProtobufDecodeError):
        by_protobuf(b"\x0a\xff")
    with pytest.raises(InvalidArgumentError):
        requests.put_of(b"\x0a\xff")
