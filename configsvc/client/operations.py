"""What can be asked of a cluster, as values: one function per call, shared by both clients.

An ``Operation`` is a request, where it goes, and what repeating it would do. ``Client.do`` and
``AsyncClient.do`` carry it out. Keys and values are bytes; times to live are seconds; revision 0
means "now"; an empty ``range_end`` means the single key.

Not here: transactions (``client.txn``), rights and members (``client.administration``), questions
about the past (``client.inquiries``), streams (``client.watching``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from google.protobuf.message import Message

from configsvc.client.retry import Effect
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import v3election_pb2 as election
from configsvc.proto import v3lock_pb2 as lock

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """One unary call, ready to be sent."""

    path: str
    request: Message
    response: type[R]
    effect: Effect
    forever: bool = False  # waits for others (lock, election): no deadline unless one is given

    def repeatable(self) -> Operation[R]:
        """The same, declared harmless to repeat when its outcome got lost."""
        return replace(self, effect=Effect.REPEATABLE) if self.effect is Effect.ONCE else self


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` of every key that starts with ``prefix``; empty prefix: all keys."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return b"\0"
    return stripped[:-1] + bytes([stripped[-1] + 1])


def prefix_span(prefix: bytes) -> tuple[bytes, bytes]:
    """``key`` and ``range_end`` of a prefix, as requests want them (a key is never empty)."""
    return prefix or b"\0", prefix_end(prefix)


# --- KV -------------------------------------------------------------------------------------------


def range_(
    key: bytes,
    range_end: bytes = b"",
    *,
    limit: int = 0,
    revision: int = 0,
    sort_order: rpc.RangeRequest.SortOrder = rpc.RangeRequest.NONE,
    sort_target: rpc.RangeRequest.SortTarget = rpc.RangeRequest.KEY,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
) -> Operation[rpc.RangeResponse]:
    """Read keys. ``limit`` 0 is all; ``serializable`` may answer from a member that lags."""
    request = rpc.RangeRequest(
        key=key,
        range_end=range_end,
        limit=limit,
        revision=revision,
        sort_order=sort_order,
        sort_target=sort_target,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
    )
    return Operation("/etcdserverpb.KV/Range", request, rpc.RangeResponse, Effect.READ)


def put(
    key: bytes,
    value: bytes,
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> Operation[rpc.PutResponse]:
    """Write a key. ``ignore_value`` and ``ignore_lease`` keep what the key has."""
    request = rpc.PutRequest(
        key=key,
        value=value,
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    return Operation("/etcdserverpb.KV/Put", request, rpc.PutResponse, Effect.ONCE)


def delete(
    key: bytes, range_end: bytes = b"", *, prev_kv: bool = False
) -> Operation[rpc.DeleteRangeResponse]:
    """Delete keys."""
    request = rpc.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
    path = "/etcdserverpb.KV/DeleteRange"
    return Operation(path, request, rpc.DeleteRangeResponse, Effect.ONCE)


def compact(revision: int, *, physical: bool = False) -> Operation[rpc.CompactionResponse]:
    """Move the KV floor: older revisions are gone for etcd's API, never for the history."""
    request = rpc.CompactionRequest(revision=revision, physical=physical)
    return Operation("/etcdserverpb.KV/Compact", request, rpc.CompactionResponse, Effect.ONCE)


# --- leases ---------------------------------------------------------------------------------------


def lease_grant(ttl_s: int, lease_id: int = 0) -> Operation[rpc.LeaseGrantResponse]:
    """Grant a lease; id 0 lets the cluster choose. The answer carries the real TTL."""
    request = rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
    return Operation("/etcdserverpb.Lease/LeaseGrant", request, rpc.LeaseGrantResponse, Effect.ONCE)


def lease_revoke(lease_id: int) -> Operation[rpc.LeaseRevokeResponse]:
    """End a lease and delete its keys."""
    request = rpc.LeaseRevokeRequest(ID=lease_id)
    path = "/etcdserverpb.Lease/LeaseRevoke"
    return Operation(path, request, rpc.LeaseRevokeResponse, Effect.ONCE)


def lease_ttl(lease_id: int, *, keys: bool = False) -> Operation[rpc.LeaseTimeToLiveResponse]:
    """Time left; TTL -1 in the answer means that there is no such lease."""
    request = rpc.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
    path = "/etcdserverpb.Lease/LeaseTimeToLive"
    return Operation(path, request, rpc.LeaseTimeToLiveResponse, Effect.READ)


def lease_list() -> Operation[rpc.LeaseLeasesResponse]:
    """All lease ids that the answering member knows."""
    path = "/etcdserverpb.Lease/LeaseLeases"
    return Operation(path, rpc.LeaseLeasesRequest(), rpc.LeaseLeasesResponse, Effect.READ)


# --- lock and election ----------------------------------------------------------------------------


def lock_acquire(name: bytes, lease_id: int) -> Operation[lock.LockResponse]:
    """Wait for a lock. Under one lease of the caller's own, repeating gives the same key."""
    effect = Effect.REPEATABLE if lease_id else Effect.ONCE
    request = lock.LockRequest(name=name, lease=lease_id)
    return Operation("/v3lockpb.Lock/Lock", request, lock.LockResponse, effect, forever=True)


def lock_release(key: bytes) -> Operation[lock.UnlockResponse]:
    """Delete a lock's key. Lock keys hold a lease id and are never reused by another holder."""
    request = lock.UnlockRequest(key=key)
    return Operation("/v3lockpb.Lock/Unlock", request, lock.UnlockResponse, Effect.REPEATABLE)


def campaign(name: bytes, lease_id: int, value: bytes) -> Operation[election.CampaignResponse]:
    """Wait to be elected; repeatable under one lease of the caller's own."""
    effect = Effect.REPEATABLE if lease_id else Effect.ONCE
    request = election.CampaignRequest(name=name, lease=lease_id, value=value)
    path = "/v3electionpb.Election/Campaign"
    return Operation(path, request, election.CampaignResponse, effect, forever=True)


def proclaim(leader: election.LeaderKey, value: bytes) -> Operation[election.ProclaimResponse]:
    """Change the leader's value; refused when ``leader`` is not leading any more."""
    request = election.ProclaimRequest(leader=leader, value=value)
    path = "/v3electionpb.Election/Proclaim"
    return Operation(path, request, election.ProclaimResponse, Effect.REPEATABLE)


def leader(name: bytes) -> Operation[election.LeaderResponse]:
    """Who leads; refused with ``election: no leader`` when nobody does."""
    request = election.LeaderRequest(name=name)
    path = "/v3electionpb.Election/Leader"
    return Operation(path, request, election.LeaderResponse, Effect.READ)


def resign(key: election.LeaderKey) -> Operation[election.ResignResponse]:
    """Stop leading; repeating does nothing, since the revision in ``key`` never comes back."""
    request = election.ResignRequest(leader=key)
    path = "/v3electionpb.Election/Resign"
    return Operation(path, request, election.ResignResponse, Effect.REPEATABLE)
