"""Who may see a lease's keys, and when that is judged."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.lease import LeaseService
from configsvc.apply.commands import RoleGrantPermissionOp, UserDeleteOp
from configsvc.auth.messages import READ, READWRITE, WRITE
from configsvc.errors import AuthOldRevisionError, PermissionDeniedError
from configsvc.proto import rpc_pb2
from tests.support.api_rig import ADA, POLICY, ROOT, ApiMember, caller, told

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
