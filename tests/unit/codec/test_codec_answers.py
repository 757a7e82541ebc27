"""Bytes put together by hand: headers, lengths and commands are what protobuf makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.codec import command as codec
from configsvc.codec.answers import Headers
from configsvc.codec.varint import varint
from configsvc.proto import rpc_pb2
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL

EDGES = [edge + d for edge in (1 << 7, 1 << 14, 1 << 21, 1 << 28, 1 << 63) for d in (-1, 0, 1)]
REVISIONS = st.sampled_from([0, 1, *EDGES[:-2]]) | st.integers(0, 2**63 - 1)


@given(steps=st.lists(st.tuples(REVISIONS, st.sampled_from([1, 2, 300, 2**40])), max_size=12))
def test_headers_are_protobufs(steps: list[tuple[int, int]]) -> None:
    headers = Headers(2**63 + 5, 77)
    for revision, term in steps:
        for number in (revision, revision ^ 1, revision + 16_384 & 2**63 - 1):
            expected = rpc_pb2.PutResponse(
                header={
                    "cluster_id": 2**63 + 5,
                    "member_id": 77,
                    "revision": number,
                    "raft_term": term,
                }
            )
            assert headers.field(number, term) == expected.SerializeToString()


@pytest.mark.parametrize("value", [0, 1, 300, *EDGES, 2**64 - 1])
def test_varints_are_protobufs(value: int) -> None:
    tagged = b"\x08" + varint(value)
    assert rpc_pb2.ResponseHeader.FromString(tagged).cluster_id == value
    assert rpc_pb2.ResponseHeader(cluster_id=value).SerializeToString() == (
        tagged if value else b""
    )


@pytest.mark.parametrize(
    "field", [codec.OP_PUT, codec.OP_DELETE_RANGE, codec.OP_TXN, codec.OP_ALARM, codec.OP_REVOKE]
)
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_a_command_with_nothing_to_say_is_built_alike(field: int, size: int) -> None:
    actor = codec.encode_actor(SYSTEM_PRINCIPAL, NO_SOURCE)
    op = bytes(size)
    plain = codec.build(9, actor, bytes(32), field, op)
    spoken = codec.build(9, actor, bytes(32), field, op, reason="r")
    assert spoken.replace(b"\x1a\x01r", b"", 1) == plain
    assert plain.endswith(codec.op_head(field, size) + op)
