"""Operations of ``configsvc.v1``: history, audit, fleet, policy, deny-list.

Their answers are the messages of ``configsvc/proto/v1.proto``. They reach below the compaction
floor. Times are nanoseconds UTC.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from configsvc.client.operations import Operation
from configsvc.client.retry import Effect
from configsvc.proto import v1_pb2 as v1

R = TypeVar("R", bound=Message)


def _ask(name: str, request: Message, response: type[R]) -> Operation[R]:
    return Operation(f"/configsvc.v1.{name}", request, response, Effect.READ)


def log(
    key: bytes,
    range_end: bytes = b"",
    *,
    limit: int = 0,
    before_revision: int = 0,
    after_revision: int = 0,
    ascending: bool = False,
    values: bool = False,
) -> Operation[v1.LogResponse]:
    """Changes with their authors, newest first; both bounds are exclusive and 0 is none."""
    request = v1.LogRequest(
        key=key,
        range_end=range_end,
        limit=limit,
        before_revision=before_revision,
        after_revision=after_revision,
        ascending=ascending,
        values=values,
    )
    return _ask("History/Log", request, v1.LogResponse)


def blame(
    key: bytes, range_end: bytes = b"", *, revision: int = 0, limit: int = 0
) -> Operation[v1.LogResponse]:
    """The last change of every key that lives in the span."""
    request = v1.BlameRequest(key=key, range_end=range_end, revision=revision, limit=limit)
    return _ask("History/Blame", request, v1.LogResponse)


def diff(
    key: bytes, range_end: bytes = b"", *, from_revision: int, to_revision: int = 0
) -> Operation[v1.DiffResponse]:
    """What differs between two revisions."""
    request = v1.DiffRequest(
        key=key, range_end=range_end, from_revision=from_revision, to_revision=to_revision
    )
    return _ask("History/Diff", request, v1.DiffResponse)


def at(
    key: bytes,
    range_end: bytes = b"",
    *,
    revision: int = 0,
    time_ns: int = 0,
    limit: int = 0,
    keys_only: bool = False,
) -> Operation[v1.AtResponse]:
    """A range as it stood at a revision, or at the newest revision not later than a time."""
    request = v1.AtRequest(
        key=key,
        range_end=range_end,
        revision=revision,
        time_ns=time_ns,
        limit=limit,
        keys_only=keys_only,
    )
    return _ask("History/At", request, v1.AtResponse)


def checkpoint() -> Operation[v1.CheckpointResponse]:
    """The answering member's newest signed checkpoint."""
    return _ask("Audit/Checkpoint", v1.CheckpointRequest(), v1.CheckpointResponse)


def inclusion(seq: int, tree_size: int = 0) -> Operation[v1.InclusionResponse]:
    """Proof that record ``seq`` is in the tree."""
    request = v1.InclusionRequest(seq=seq, tree_size=tree_size)
    return _ask("Audit/Inclusion", request, v1.InclusionResponse)


def consistency(old_size: int, new_size: int) -> Operation[v1.ConsistencyResponse]:
    """Proof that the tree of ``new_size`` extends the one of ``old_size``."""
    request = v1.ConsistencyRequest(old_size=old_size, new_size=new_size)
    return _ask("Audit/Consistency", request, v1.ConsistencyResponse)


def fleet_report(report: v1.ReportRequest) -> Operation[v1.ReportResponse]:
    """An agent's word on what is applied; the newest wins, so repeating is harmless."""
    return Operation("/configsvc.v1.Fleet/Report", report, v1.ReportResponse, Effect.REPEATABLE)


def fleet_status(
    *, set_name: str = "", node: str = "", behind: bool = False
) -> Operation[v1.FleetStatusResponse]:
    """What the answering member's agents told it."""
    request = v1.FleetStatusRequest(set=set_name, node=node, behind=behind)
    return _ask("Fleet/Status", request, v1.FleetStatusResponse)


def policy_show() -> Operation[v1.PolicyShowResponse]:
    """The running policy bundle."""
    return _ask("Policy/Show", v1.PolicyShowRequest(), v1.PolicyShowResponse)


def policy_load(source: str, *, allow_lockout: bool = False) -> Operation[v1.PolicyLoadResponse]:
    """Replace the policy bundle."""
    request = v1.PolicyLoadRequest(source=source, allow_lockout=allow_lockout)
    return Operation("/configsvc.v1.Policy/Load", request, v1.PolicyLoadResponse, Effect.ONCE)


def can_i(request: v1.CanIRequest) -> Operation[v1.CanIResponse]:
    """Whether an action would be allowed, and why."""
    return _ask("Policy/CanI", request, v1.CanIResponse)


def deny_add(
    what: str, value: str, *, until_ns: int = 0, allow_lockout: bool = False
) -> Operation[v1.DenyAddResponse]:
    """Deny a "serial", "identity", "jti" or "kid", or end the tokens of a "user" or of "all".

    The answer says until when, 0 for ever: an entry is prolonged, never shortened.
    """
    request = v1.DenyAddRequest(
        what=what, value=value, until_ns=until_ns, allow_lockout=allow_lockout
    )
    return Operation("/configsvc.v1.DenyList/Add", request, v1.DenyAddResponse, Effect.ONCE)


def deny_remove(what: str, value: str) -> Operation[v1.DenyRemoveResponse]:
    """Let in again what an entry denied."""
    request = v1.DenyRemoveRequest(what=what, value=value)
    return Operation("/configsvc.v1.DenyList/Remove", request, v1.DenyRemoveResponse, Effect.ONCE)


def deny_list(*, after: v1.Denial | None = None, limit: int = 0) -> Operation[v1.DenyListResponse]:
    """A page of what is denied now, by kind and value; ``after`` is the last one of before."""
    request = v1.DenyListRequest(after=after, limit=limit)
    return _ask("DenyList/List", request, v1.DenyListResponse)
