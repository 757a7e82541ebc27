"""Lock and election from puts, reads and watches, as etcd's own clients do them.

The candidate's key is ``<name>/<lease id in hex>``; the oldest key under ``<name>/`` holds. Keys
are those of the Lock and Election services, so holders of either kind respect each other.

Always true: what is returned holds the lock until its lease ends; its ``token``, the revision
that created the key, is larger than that of every earlier holder.

Not here: the same for asyncio (``client.aio_recipes``), which shares this module's operations.
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc.client import operations, txn
from configsvc.client.errors import LeaseLostError
from configsvc.client.settings import Why
from configsvc.client.sync import NO_REASON, Client
from configsvc.client.sync_streams import LeaseKeeper, Watch
from configsvc.client.txn import Txn
from configsvc.client.watching import WatchOptions
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc


class Held(NamedTuple):
    """A lock that is held, or an election that was won."""

    key: bytes
    token: int  # fencing token


def candidate_key(name: bytes, lease_id: int) -> bytes:
    """The key of one candidate."""
    return name + b"/%x" % (lease_id & 0xFFFFFFFFFFFFFFFF)


def oldest(prefix: bytes, *, created_before: int = 0) -> operations.Operation[rpc.RangeResponse]:
    """The oldest key under a prefix, or the youngest of those older than a revision."""
    key, end = operations.prefix_span(prefix)
    newest_first = rpc.RangeRequest.DESCEND if created_before else rpc.RangeRequest.ASCEND
    operation = operations.range_(
        key, end, limit=1, sort_order=newest_first, sort_target=rpc.RangeRequest.CREATE
    )
    request = operation.request
    if created_before and isinstance(request, rpc.RangeRequest):
        request.max_create_revision = created_before - 1
    return operation


def acquire(
    client: Client,
    name: bytes,
    keeper: LeaseKeeper,
    *,
    value: bytes = b"",
    why: Why = NO_REASON,
) -> Held:
    """Wait for a lock, or to be elected with ``value``.

    Args:
        client: Whose connections and identity to use.
        name: Of the lock; candidates under one name exclude each other.
        keeper: A lease of the caller's own, one per candidate.
        value: What others see of the holder.
        why: Reason and ticket of the changes.

    Raises:
        LeaseLostError: the lease ended while waiting.
        ConfigServiceError: as ``Client.do``.
    """
    prefix = name + b"/"
    mine = candidate_key(name, keeper.lease_id)
    created = _announce(client, mine, keeper.lease_id, value, why)
    while True:
        answer = client.do(oldest(prefix, created_before=created))
        if not answer.kvs:
            break
        _wait_for_delete(client, answer.kvs[0], answer.header.revision, keeper)
    keeper.check()
    found = client.get(mine)
    if found is None or found.create_revision != created:
        raise LeaseLostError(f"lease {keeper.lease_id:x} ended while waiting")
    return Held(mine, created)


def announcement(key: bytes, lease: int, value: bytes) -> operations.Operation[rpc.TxnResponse]:
    """Put the candidate's key unless it is there.

    Repeating finds the key of the first attempt: its name holds a lease of the caller's own.
    """
    made = (
        Txn()
        .when(txn.created(key) == 0)
        .then(operations.put(key, value, lease=lease))
        .otherwise(operations.range_(key))
    )
    return made.operation().repeatable()


def _announce(client: Client, key: bytes, lease: int, value: bytes, why: Why) -> int:
    """Put the candidate's key unless it is there; returns the revision that created it."""
    answer = client.do(announcement(key, lease, value), why=why)
    if answer.succeeded:
        return answer.header.revision
    there = answer.responses[0].response_range.kvs[0]
    if there.value != value:
        put = operations.put(key, value, lease=lease).repeatable()
        client.do(put, why=why)
    return there.create_revision


def _wait_for_delete(
    client: Client, ahead: kv_pb2.KeyValue, revision: int, keeper: LeaseKeeper
) -> None:
    """Until the key is deleted; waiting for the one right ahead wakes one candidate at a time."""
    options = WatchOptions(ahead.key, start_revision=revision + 1, puts=False)
    with Watch(client, options) as watch:
        stop = keeper.on_loss(watch.close)
        try:
            for batch in watch:
                if batch.events:
                    return
        finally:
            stop()
    keeper.check()


def current_leader(client: Client, name: bytes) -> kv_pb2.KeyValue | None:
    """The holder's key, or None when nobody holds."""
    answer = client.do(oldest(name + b"/"))
    return answer.kvs[0] if answer.kvs else None
