"""X5: what a learner refuses, what it serves, and that a promoted one serves all."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.contract import Caller, Method, StreamSink
from configsvc.api.learners import bounded
from configsvc.errors import NotSupportedForLearnerError
from configsvc.proto import rpc_pb2
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL

CALLER = Caller(SYSTEM_PRINCIPAL, NO_SOURCE, b"")
KV, WATCH = "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch"
SNAPSHOT, STATUS = "/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Maintenance/Status"


class Member:
    def __init__(self, *, is_learner: bool = True, joining: bool = False) -> None:
        self.is_learner = is_learner
        self.joining = joining


def unary(member: Member, path: str) -> Any:
    method = Method(path, lambda caller, raw: b"served", None, False, False, None, None)
    return bounded(member, method).unary


def stream(member: Member, path: str) -> Any:
    def factory(caller: Caller, sink: StreamSink) -> Any:
        return "served"

    return bounded(member, Method(path, None, factory, True, True, None, None)).stream


def serializable(is_so: bool) -> bytes:
    return rpc_pb2.RangeRequest(key=b"k", serializable=is_so).SerializeToString()


@pytest.mark.parametrize(
    "path",
    [KV + "Range", KV + "Put", KV + "Txn", "/etcdserverpb.Cluster/MemberList",
     "/etcdserverpb.Auth/Authenticate", "/v3lockpb.Lock/Lock", "/grpc.health.v1.Health/Check"],
)  # fmt: skip
def test_a_learner_refuses(path: str) -> None:
    with pytest.raises(NotSupportedForLearnerError):
        unary(Member(), path)(CALLER, serializable(False))


@pytest.mark.parametrize("path", [WATCH, KV + "RangeStream", "/etcdserverpb.Lease/LeaseKeepAlive"])
def test_a_learner_refuses_streams(path: str) -> None:
    with pytest.raises(NotSupportedForLearnerError):
        stream(Member(), path)(CALLER, None)


def test_a_learner_serves_what_etcds_does_and_our_own_services() -> None:
    member = Member()
    assert unary(member, KV + "Range")(CALLER, serializable(True)) == b"served"
    assert unary(member, STATUS)(CALLER, b"") == b"served"
    assert unary(member, "/configsvc.v1.History/Log")(CALLER, b"") == b"served"
    assert stream(member, SNAPSHOT)(CALLER, None) == "served"


def test_who_joins_is_bounded_until_it_is_a_voter() -> None:
    member = Member(is_learner=False, joining=True)
    put, watch = unary(member, KV + "Put"), stream(member, WATCH)
    member.joining, member.is_learner = False, True
    with pytest.raises(NotSupportedForLearnerError):
        put(CALLER, b"")
    member.is_learner = False
    assert (put(CALLER, b""), watch(CALLER, None)) == (b"served", "served")


def test_a_voter_pays_nothing() -> None:
    method = Method(KV + "Put", lambda caller, raw: b"", None, False, False, None, None)
    assert bounded(Member(is_learner=False), method) is method
