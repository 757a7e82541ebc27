"""JSON in and out: exact text, leniency, refusals, and the library as a twin."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.errors import InvalidArgumentError
from configsvc.gateway import json_in
from configsvc.gateway.json_out import JsonPieces, to_json
from configsvc.limits import JSON_CONTAINERS_MAX, JSON_DEPTH_MAX
from configsvc.proto import auth_pb2, kv_pb2, rpc_pb2, v3election_pb2

F = FieldDescriptor
_SCALARS = {
    F.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    F.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    F.CPPTYPE_BOOL: st.booleans(),
}


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from(sorted(field.enum_type.values_by_number))
    if field.type == F.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.type == F.TYPE_STRING:
        return st.text(st.characters(codec="utf-8"), max_size=8)
    return _SCALARS[field.cpp_type]


@st.composite
def filled(draw: Any, cls: Any, depth: int = 3) -> Any:
    message = cls()
    fill(draw, message, message.DESCRIPTOR, depth)
    return message


def fill(draw: Any, message: Any, descriptor: Descriptor, depth: int) -> None:
    for field in descriptor.fields:
        inner = field.message_type
        if (inner is not None and not depth) or draw(st.booleans()):
            continue
        for _ in range(draw(st.integers(0, 2)) if field.is_repeated else 1):
            if inner is None:
                value = draw(scalars(field))
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
            elif field.is_repeated:
                fill(draw, getattr(message, field.name).add(), inner, depth - 1)
            else:
                getattr(message, field.name).SetInParent()
                fill(draw, getattr(message, field.name), inner, depth - 1)


KINDS = st.sampled_from(
    (
        rpc_pb2.TxnRequest,
        rpc_pb2.TxnResponse,
        rpc_pb2.WatchRequest,
        rpc_pb2.WatchResponse,
        rpc_pb2.StatusResponse,
        rpc_pb2.MemberListResponse,
        rpc_pb2.AlarmResponse,
        rpc_pb2.AuthRoleGetResponse,
        v3election_pb2.CampaignResponse,
        auth_pb2.User,
    )
)


@settings(max_examples=120, deadline=None)
@given(message=KINDS.flatmap(filled))
def test_twin_of_the_library_and_back(message: Any) -> None:
    text = to_json(message)
    expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json.loads(text) == expected
    assert list(json.loads(text)) == list(expected)
    assert type(message).FromString(json_in.only_message(text.encode(), type(message))) == message
    camel = json_format.MessageToJson(message)
    assert type(message).FromString(json_in.only_message(camel.encode(), type(message))) == message


@settings(max_examples=120, deadline=None)
@given(
    message=filled(rpc_pb2.RangeResponse),
    cuts=st.lists(st.integers(0, 4), max_size=3),
    values_max=st.integers(1, 3),
)
def test_pieces_of_a_document_are_the_document(
    message: Any, cuts: list[int], values_max: int
) -> None:
    parts = [rpc_pb2.RangeResponse(), rpc_pb2.RangeResponse(kvs=message.kvs)]
    if message.HasField("header"):
        parts[0].header.CopyFrom(message.header)
    for at in cuts:  # the list comes in any number of parts, empty ones among them
        parts[-1:] = [
            rpc_pb2.RangeResponse(kvs=parts[-1].kvs[:at]),
            rpc_pb2.RangeResponse(kvs=parts[-1].kvs[at:]),
        ]
    parts.append(rpc_pb2.RangeResponse(more=message.more, count=message.count))
    document = JsonPieces()
    pieces = [piece for part in parts for piece in document.add(part, values_max)]
    assert "".join(pieces) + document.end() == to_json(message)
    assert all(piece.count('"mod_revision"') <= values_max for piece in pieces)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (rpc_pb2.RangeResponse(), "{}"),
        (rpc_pb2.DeleteRangeResponse(deleted=1), '{"deleted":"1"}'),
        (
            rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(raft_term=2), created=True),
            '{"header":{"raft_term":"2"},"created":true}',
        ),
        (rpc_pb2.SnapshotResponse(blob=b"\xff\xfe\xfd"), '{"blob":"//79"}'),
        (rpc_pb2.SnapshotResponse(blob=b"a"), '{"blob":"YQ=="}'),
        (
            v3election_pb2.CampaignResponse(leader=v3election_pb2.LeaderKey(name=b"e", rev=3)),
            '{"leader":{"name":"ZQ==","rev":"3"}}',
        ),
        (
            rpc_pb2.StatusResponse(dbSize=5, raftTerm=2, raftIndex=9, isLearner=True),
            '{"dbSize":"5","raftIndex":"9","raftTerm":"2","isLearner":true}',
        ),
        (
            rpc_pb2.Member(ID=2**64 - 1, name='a"<é', peerURLs=["x"], clientURLs=["y", "z"]),
            '{"ID":"18446744073709551615","name":"a\\"<é","peerURLs":["x"],"clientURLs":["y","z"]}',
        ),
        (kv_pb2.Event(type=kv_pb2.Event.DELETE), '{"type":"DELETE"}'),
        (rpc_pb2.AlarmRequest(memberID=1, alarm=77), '{"memberID":"1","alarm":77}'),
        (rpc_pb2.LeaseTimeToLiveResponse(ID=1, TTL=-1), '{"ID":"1","TTL":"-1"}'),
        (rpc_pb2.HashKVResponse(hash=4294967295), '{"hash":4294967295}'),
    ],
)
def test_exact_text(message: Any, text: str) -> None:
    assert to_json(message) == text


@pytest.mark.parametrize(
    ("cls", "text", "expected"),
    [
        (rpc_pb2.RangeRequest, "", rpc_pb2.RangeRequest()),
        (rpc_pb2.RangeRequest, " \r\n\t", rpc_pb2.RangeRequest()),
        (rpc_pb2.RangeRequest, "{}", rpc_pb2.RangeRequest()),
        (rpc_pb2.RangeRequest, '{"key":"YQ=="}\n', rpc_pb2.RangeRequest(key=b"a")),
        (rpc_pb2.RangeRequest, '{"key":"YQ"}', rpc_pb2.RangeRequest(key=b"a")),
        (rpc_pb2.RangeRequest, '{"key":"__79"}', rpc_pb2.RangeRequest(key=b"\xff\xfe\xfd")),
        (rpc_pb2.RangeRequest, '{"key":"//79"}', rpc_pb2.RangeRequest(key=b"\xff\xfe\xfd")),
        (rpc_pb2.RangeRequest, '{"rangeEnd":"AA=="}', rpc_pb2.RangeRequest(range_end=b"\0")),
        (rpc_pb2.RangeRequest, '{"limit":5}', rpc_pb2.RangeRequest(limit=5)),
        (rpc_pb2.RangeRequest, '{"limit":"-7"}', rpc_pb2.RangeRequest(limit=-7)),
        (rpc_pb2.RangeRequest, '{"limit":5.0}', rpc_pb2.RangeRequest(limit=5)),
        (rpc_pb2.RangeRequest, '{"limit":null,"key":null}', rpc_pb2.RangeRequest()),
        (rpc_pb2.RangeRequest, '{"sort_order":"DESCEND"}', rpc_pb2.RangeRequest(sort_order=2)),
        (rpc_pb2.RangeRequest, '{"sort_order":9}', rpc_pb2.RangeRequest(sort_order=9)),
        (rpc_pb2.RangeRequest, '{"nobody":{"knows":[1]}}', rpc_pb2.RangeRequest()),
        (rpc_pb2.LeaseGrantRequest, '{"TTL":"-3","ID":1}', rpc_pb2.LeaseGrantRequest(TTL=-3, ID=1)),
        (
            rpc_pb2.WatchRequest,
            '{"create_request":{}}',
            rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest()),
        ),
        (
            rpc_pb2.WatchRequest,
            '{"createRequest":{"filters":["NOPUT",1]},"cancel_request":null}',
            rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(filters=[0, 1])),
        ),
        (
            rpc_pb2.TxnRequest,
            '{"compare":[{"target":"CREATE","createRevision":"0"}]}',
            rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(target=1, create_revision=0)]),
        ),
    ],
)  # fmt: skip
def test_what_is_accepted(cls: Any, text: str, expected: Any) -> None:
    assert cls.FromString(json_in.only_message(text.encode(), cls)) == expected


REFUSED = [
    '{"key":"YQ=="',
    '{"key":"YQ=="}}',
    '{"key":"YQ=="},{}',
    "[]",
    "null",
    '"x"',
    "{} {}",
    "{'key':1}",
    '{"key":"YQ==","key":"YQ=="}',
    '{"range_end":"YQ==","rangeEnd":"YQ=="}',
    '{"x":{"a":1,"a":2}}',
    '{"key":5}',
    '{"key":"Y"}',
    '{"key":"YQ="}',
    '{"key":"Y Q="}',
    '{"key":"YQ==YQ=="}',
    '{"key":"*"}',
    '{"limit":"five"}',
    '{"limit":""}',
    '{"limit":1.5}',
    '{"limit":true}',
    '{"limit":9223372036854775808}',
    '{"limit":1e400}',
    '{"limit":NaN}',
    '{"x":-Infinity}',
    '{"x":1e999}',
    '{"limit":' + "9" * 5000 + "}",
    '{"sort_order":"SIDEWAYS"}',
    '{"sort_order":[1]}',
    '{"serializable":"true"}',
    '{"serializable":1}',
    '{"limit":[1]}',
    '{"limit":{}}',
    "\ufeff{}",
    "{" * 100_000,
    '{"x":' + "[" * 65 + "]" * 65 + "}",
    '{"x":[' + "[]," * JSON_CONTAINERS_MAX + "[]]}",
]


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        json_in.only_message(text.encode(), rpc_pb2.RangeRequest)
    assert len(str(caught.value)) < 100


def test_bytes_that_are_no_text_are_refused() -> None:
    for body in (b'{"key":"\xff"}', b"\xff\xfe{\x00}\x00"):
        with pytest.raises(InvalidArgumentError):
            json_in.only_message(body, rpc_pb2.RangeRequest)
    with pytest.raises(InvalidArgumentError):
        json_in.only_message(b'{"name":"\\ud800"}', rpc_pb2.AuthUserAddRequest)


def test_two_members_of_a_oneof_are_refused() -> None:
    for text in (
        '{"create_request":{},"cancel_request":{}}',
        '{"create_request":{},"createRequest":{}}',
    ):
        with pytest.raises(InvalidArgumentError, match="request"):
            json_in.only_message(text.encode(), rpc_pb2.WatchRequest)


def test_a_refusal_names_the_field_and_never_the_value() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        json_in.only_message(b'{"password":["hunter2"]}', rpc_pb2.AuthUserAddRequest)
    assert str(caught.value) == "password: value cannot be used"


def test_depth_is_counted_outside_of_strings_only() -> None:
    deep = '{"x":' + "[" * (JSON_DEPTH_MAX - 1) + "]" * (JSON_DEPTH_MAX - 1) + "}"
    assert json_in.messages(deep.encode(), rpc_pb2.RangeRequest) == [b""]
    quoted = json.dumps({"x": "[" * 500 + '\\"' + "{" * 500})
    assert json_in.messages(quoted.encode(), rpc_pb2.RangeRequest) == [b""]


def test_several_requests_in_one_body() -> None:
    found = json_in.messages(b'{"ID":1} {"ID":"2"}\n{}', rpc_pb2.LeaseKeepAliveRequest)
    assert [rpc_pb2.LeaseKeepAliveRequest.FromString(raw).ID for raw in found] == [1, 2, 0]


@pytest.mark.parametrize(
    "body",
    [b'{"x":"' + b'\\"' * 500_000, b'{"x":' + b"[" * 2_000_000, b'{"x":"' + b'a","' * 400_000],
    ids=["open string", "brackets", "strings"],
)
def test_hostile_bodies_cost_little(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(InvalidArgumentError):
        json_in.messages(body, rpc_pb2.RangeRequest)
    assert time.process_time() - began < 0.5


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('{}[]",:\\ 0a\u00e9nulltrue-+.eE'), max_size=40))
def test_any_text_is_a_message_or_a_refusal(text: str) -> None:
    try:
        json_in.messages(text.encode(), rpc_pb2.TxnRequest)
    except InvalidArgumentError:
        return
    for part in json_in.messages(text.encode(), rpc_pb2.TxnRequest):
        rpc_pb2.TxnRequest.FromString(part)
