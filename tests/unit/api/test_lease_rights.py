"""Who may see a lease's keys, and when that is judged."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.lease import LeaseService
from configsvc.apply.commands import RoleGrantPermissionOp, UserDeleteOp
from configsvc.auth.messages import READ, READWRITE, WRITE
from configsvc.errors import AuthOldRevisionError, PermissionDeniedError
from configsvc.proto import rpc_pb2
from configsvc.runtime.waiting import Waiting
from tests.support.api_rig import ADA, POLICY, ROOT, ApiMember, Sink, caller, told

DENIED = (
    POLICY
    + """
[[rule]]
id = "nobody-reads-secrets"
effect = "deny"
actions = ["kv.range"]
keys = { prefix = "/secret/" }
"""
)


def ask(member: ApiMember, who: Any, *, keys: bool) -> list[Any]:
    service = LeaseService(member)  # type: ignore[arg-type]
    raw = rpc_pb2.LeaseTimeToLiveRequest(ID=7, keys=keys).SerializeToString()
    return told(service.time_to_live(caller(who), raw))


def answer(member: ApiMember, got: list[Any]) -> Any:
    """The leader answers; what the caller is told."""
    for told_by_leader in member.renewals:
        told_by_leader((5, 10))
    (result,) = got
    if isinstance(result, bytes):
        return rpc_pb2.LeaseTimeToLiveResponse.FromString(result)
    return result


def leased(policy: str = POLICY) -> ApiMember:
    member = ApiMember(policy)
    member.user(ADA, (READ, b"/a", b""), (READ, b"/b", b""))
    member.grant(7)
    return member


def test_n8_a_deny_hides_names_from_root_too() -> None:
    """POL-2: root passes everything except an explicit deny, by whatever way it asks."""
    member = leased(DENIED)
    member.put(b"/a", lease=7)
    assert list(answer(member, ask(member, ROOT, keys=True)).keys) == [b"/a"]
    member.put(b"/secret/x", lease=7)
    member.renewals.clear()
    assert isinstance(answer(member, ask(member, ROOT, keys=True)), PermissionDeniedError)
    member.renewals.clear()
    assert answer(member, ask(member, ROOT, keys=False)).TTL == 5


def test_root_asks_about_a_lease_without_keys_that_another_made() -> None:
    member = leased()
    member.do(ROOT, RoleGrantPermissionOp("ada", WRITE, b"/w", b""))
    member.grant(8, ADA)
    service = LeaseService(member)  # type: ignore[arg-type]
    raw = rpc_pb2.LeaseTimeToLiveRequest(ID=8, keys=True).SerializeToString()
    assert answer(member, told(service.time_to_live(caller(ROOT), raw))).TTL == 5


@pytest.mark.parametrize("keys", [True, False])
def test_rights_are_those_of_the_moment_of_the_answer(keys: bool) -> None:
    """The leader is asked in between."""
    member = leased()
    member.do(ROOT, RoleGrantPermissionOp("ada", READWRITE, b"/a", b""))
    member.grant(8, ADA)
    member.put(b"/a", lease=7)
    got = ask(member, ADA, keys=keys)
    member.do(ROOT, UserDeleteOp("ada"))
    assert isinstance(answer(member, got), AuthOldRevisionError)


def test_a_lease_that_is_not_applied_here_yet_is_judged_once_it_is() -> None:
    """A member that is behind renews nothing for somebody whom it cannot judge."""
    member = leased()
    reads: list[Any] = []

    def submit(answer: Any, **_: Any) -> Waiting:
        waiting = Waiting()
        reads.append((answer, waiting))
        return waiting

    member.reads.submit = submit
    sink = Sink()
    stream = LeaseService(member).keep_alive(caller(ADA), sink)  # type: ignore[arg-type]
    for lease in (8, 9):
        stream.on_message(rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString())
    assert not member.renewals
    member.grant(8)
    member.put(b"/secret/x", lease=8)
    for answer, waiting in reads:
        try:
            waiting.complete(answer())
        except PermissionDeniedError as error:
            waiting.complete(error)
    assert not member.renewals
    assert [type(end) for end in sink.ends] == [PermissionDeniedError]


def test_a_lease_that_nobody_knows_is_told_to_be_over() -> None:
    member, sink = leased(), Sink()
    stream = LeaseService(member).keep_alive(caller(ADA), sink)  # type: ignore[arg-type]
    stream.on_message(rpc_pb2.LeaseKeepAliveRequest(ID=9).SerializeToString())
    (told_by_leader,) = member.renewals
    told_by_leader(0)
    assert [rpc_pb2.LeaseKeepAliveResponse.FromString(m).TTL for m in sink.sent] == [0]
