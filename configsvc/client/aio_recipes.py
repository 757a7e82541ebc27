"""Lock and election for asyncio: ``client.recipes``, with the same keys and promises."""

from __future__ import annotations

import asyncio
import contextlib

from configsvc.client import operations
from configsvc.client.aio import AsyncClient
from configsvc.client.aio_streams import AsyncLeaseKeeper, AsyncWatch
from configsvc.client.errors import LeaseLostError
from configsvc.client.recipes import Held, announcement, candidate_key, oldest
from configsvc.client.settings import Why
from configsvc.client.watching import WatchOptions
from configsvc.proto import kv_pb2

_NO_REASON = Why()


async def acquire_async(
    client: AsyncClient,
    name: bytes,
    keeper: AsyncLeaseKeeper,
    *,
    value: bytes = b"",
    why: Why = _NO_REASON,
) -> Held:
    """Wait for a lock, or to be elected with ``value``; arguments and errors as ``acquire``.

    Cancelled while it waits, the candidate stays in line until its lease is revoked or ends.
    """
    prefix = name + b"/"
    mine = candidate_key(name, keeper.lease_id)
    answer = await client.do(announcement(mine, keeper.lease_id, value), why=why)
    created = answer.header.revision
    if not answer.succeeded:
        there = answer.responses[0].response_range.kvs[0]
        created = there.create_revision
        if there.value != value:
            put = operations.put(mine, value, lease=keeper.lease_id)
            await client.do(put.repeatable(), why=why)
    while True:
        ahead = await client.do(oldest(prefix, created_before=created))
        if not ahead.kvs:
            break
        await _wait_for_delete(client, ahead.kvs[0], ahead.header.revision, keeper)
    keeper.check()
    found = await client.get(mine)
    if found is None or found.create_revision != created:
        raise LeaseLostError(f"lease {keeper.lease_id:x} ended while waiting")
    return Held(mine, created)


async def _wait_for_delete(
    client: AsyncClient, ahead: kv_pb2.KeyValue, revision: int, keeper: AsyncLeaseKeeper
) -> None:
    """Until the key is deleted, or the caller's own lease is lost."""
    options = WatchOptions(ahead.key, start_revision=revision + 1, puts=False)

    async def deleted() -> None:
        async with AsyncWatch(client, options) as watch:
            async for batch in watch:
                if batch.events:
                    return

    waits = asyncio.ensure_future(deleted())
    lost = asyncio.ensure_future(keeper.lost.wait())
    try:
        await asyncio.wait((waits, lost), return_when=asyncio.FIRST_COMPLETED)
        keeper.check()
        await waits
    finally:
        for task in (waits, lost):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def current_leader_async(client: AsyncClient, name: bytes) -> kv_pb2.KeyValue | None:
    """The holder's key, or None when nobody holds."""
    answer = await client.do(oldest(name + b"/"))
    return answer.kvs[0] if answer.kvs else None
