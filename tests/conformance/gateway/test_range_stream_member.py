"""RangeStream of a real member (wire/behaviour.md 3), and health over gRPC (X8)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from configsvc.gateway.routes import ROUTES
from configsvc.proto import health_pb2, rpc_pb2, rpc_pb2_grpc

Connect = Callable[[str], grpc.Channel]
COUNT = 300
PREFIX, END = b"stream/", b"stream0"


@pytest.fixture(scope="module")
def kv(channel_of: Connect) -> Any:
    stub = rpc_pb2_grpc.KVStub(channel_of("root"))  # type: ignore[no-untyped-call]
    for start in range(0, COUNT, 100):
        ops = [
            {"request_put": {"key": PREFIX + b"%04d" % n, "value": b"v" * 12_000}}
            for n in range(start, start + 50)
        ]
        stub.Txn(rpc_pb2.TxnRequest(success=ops), timeout=10)
        for op in ops:
            op["request_put"]["key"] = op["request_put"]["key"].replace(b"/0", b"/1")
        stub.Txn(rpc_pb2.TxnRequest(success=ops), timeout=10)
    return stub


def stream(kv: Any, **fields: Any) -> list[Any]:
    request = rpc_pb2.RangeRequest(**{"key": PREFIX, "range_end": END} | fields)
    return [chunk.range_response for chunk in kv.RangeStream(request, timeout=10)]


def refusal(kv: Any, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stream(kv, **fields)
    return caught.value.code(), str(caught.value.details())


def test_chunks_are_disjoint_in_order_and_the_last_one_sums_up(kv: Any) -> None:
    chunks = stream(kv)
    whole = kv.Range(rpc_pb2.RangeRequest(key=PREFIX, range_end=END), timeout=10)
    assert [x for chunk in chunks for x in chunk.kvs] == list(whole.kvs)
    assert len(chunks) > 3
    assert 0 < len(chunks[0].kvs) <= 10
    for chunk in chunks[:-1]:
        assert (chunk.HasField("header"), chunk.more, chunk.count) == (False, False, 0)
    last = chunks[-1]
    assert last.header.revision >= whole.header.revision
    assert (last.count, last.more) == (whole.count, False)


def test_a_limit_cuts_keys_and_not_the_count(kv: Any) -> None:
    chunks = stream(kv, limit=25)
    assert sum(len(chunk.kvs) for chunk in chunks) == 25
    assert (chunks[-1].count, chunks[-1].more) == (COUNT, True)


def test_count_only_and_an_empty_range_are_one_message(kv: Any) -> None:
    (counted,) = stream(kv, count_only=True)
    assert (counted.count, len(counted.kvs)) == (COUNT, 0)
    (empty,) = stream(kv, key=b"nothing/", range_end=b"nothing0")
    assert (empty.count, len(empty.kvs)) == (0, 0)
    assert counted.header.revision == empty.header.revision > 0


def test_what_is_written_meanwhile_does_not_show(kv: Any) -> None:
    request = rpc_pb2.RangeRequest(key=PREFIX, range_end=END)
    before = kv.Range(request, timeout=10)
    chunks = kv.RangeStream(request, timeout=10)
    found = list(next(chunks).range_response.kvs)
    writer = threading.Thread(
        target=lambda: kv.Put(rpc_pb2.PutRequest(key=PREFIX + b"1049", value=b"new"), timeout=10)
    )
    writer.start()
    writer.join()
    for chunk in chunks:
        found += chunk.range_response.kvs
    assert found == list(before.kvs)
    kv.Put(rpc_pb2.PutRequest(key=PREFIX + b"1049", value=b"v" * 12_000), timeout=10)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"sort_order": "DESCEND"}, "RangeStream does not support custom sort orders"),
        ({"sort_target": "MOD"}, "RangeStream does not support custom sort orders"),
        ({"min_mod_revision": 1}, "RangeStream does not support revision filters"),
        ({"max_create_revision": 1}, "RangeStream does not support revision filters"),
    ],
)
def test_what_is_not_supported(kv: Any, fields: dict[str, Any], text: str) -> None:
    assert refusal(kv, **fields) == (grpc.StatusCode.UNIMPLEMENTED, text)


def test_errors_are_those_of_range(kv: Any, channel_of: Connect) -> None:
    assert refusal(kv, key=b"") == (
        grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided",
    )  # fmt: skip
    assert refusal(kv, revision=1 << 40)[0] is grpc.StatusCode.OUT_OF_RANGE
    bob = rpc_pb2_grpc.KVStub(channel_of("bob"))  # type: ignore[no-untyped-call]
    assert refusal(bob)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_the_gateway_has_no_path_for_it() -> None:
    assert not any("RangeStream" in rpc for rpc in ROUTES.values())


@pytest.mark.parametrize(("service", "known"), [("", True), ("etcdserverpb.KV", False)])
def test_health_knows_the_empty_name(channel_of: Connect, service: str, known: bool) -> None:
    check = channel_of("bob").unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service)
    if known:
        assert check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    else:
        with pytest.raises(grpc.RpcError) as caught:
            check(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
