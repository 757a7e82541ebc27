"""Key values of answers, put together by hand: protobuf is the twin."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from configsvc.codec import answers
from configsvc.mvcc.messages import DeleteResult, KeyValue, RangeResult
from configsvc.proto import kv_pb2, rpc_pb2

NUMBER = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 2**21, 2**40, 2**63 - 1])
SIZE = st.sampled_from([1, 127, 128, 300, 16_400])  # no key is empty
KV = st.builds(
    lambda key, value, create, mod, version, lease: KeyValue(
        b"k" * key, b"v" * value, create, mod, version, lease
    ),
    SIZE, st.one_of(SIZE, st.just(0)), NUMBER, NUMBER, NUMBER, st.one_of(NUMBER, st.just(-5)),
)  # fmt: skip


def twins(kvs: list[KeyValue]) -> list[Any]:
    return [
        kv_pb2.KeyValue(
            key=kv.key,
            value=kv.value,
            create_revision=kv.create_revision,
            mod_revision=kv.mod_revision,
            version=kv.version,
            lease=kv.lease,
        )
        for kv in kvs
    ]


@given(kvs=st.lists(KV, max_size=5), more=st.booleans(), count=NUMBER)
def test_bytes_of_a_range(kvs: list[KeyValue], more: bool, count: int) -> None:
    twin = rpc_pb2.RangeResponse(kvs=twins(kvs), more=more, count=count)
    assert answers.range_body(RangeResult(tuple(kvs), count, more)) == twin.SerializeToString()


@given(kvs=st.lists(KV, max_size=5))
def test_bytes_of_keys_only(kvs: list[KeyValue]) -> None:
    twin = rpc_pb2.RangeResponse(kvs=twins([kv._replace(value=b"", lease=0) for kv in kvs]))
    assert answers.key_values(kvs, keys_only=True) == twin.SerializeToString()


@given(kvs=st.lists(KV, max_size=5), deleted=NUMBER)
def test_bytes_of_a_deletion(kvs: list[KeyValue], deleted: int) -> None:
    twin = rpc_pb2.DeleteRangeResponse(prev_kvs=twins(kvs), deleted=deleted)
    result = DeleteResult(9, deleted, tuple(kvs))
    assert answers.delete_body(result) == twin.SerializeToString()


@given(kv=KV)
def test_one_alone_is_one_of_many(kv: KeyValue) -> None:
    (twin,) = twins([kv])
    assert answers.key_value(kv) == twin.SerializeToString()
