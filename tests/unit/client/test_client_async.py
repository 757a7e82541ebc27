"""The async client keeps the same promises as the sync one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from grpc import StatusCode as Code

from configsvc import errors
from configsvc.client import (
    AsyncClient,
    AsyncWatch,
    ClientSettings,
    Login,
    OutcomeUnknownError,
    UnavailableError,
    WatchCompactedError,
    WatchOptions,
    hold_lease_async,
    operations,
    parse_endpoints,
)
from configsvc.proto import rpc_pb2 as rpc
from tests.support.fake_cluster import FakeCluster

PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"
ALL = WatchOptions(b"\0", b"\0", start_revision=1)
Body = Callable[[FakeCluster, AsyncClient], Awaitable[None]]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(2) as running:
        yield running


def run(cluster: FakeCluster, body: Body, **settings: Any) -> None:
    async def main() -> None:
        endpoints = parse_endpoints(cluster.urls)
        async with AsyncClient(ClientSettings(endpoints, timeout_s=3.0, **settings)) as client:
            await asyncio.wait_for(body(cluster, client), 15)

    asyncio.run(main())


def test_values_and_reasons(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await client.put(b"a", b"1", reason="why")
        found = await client.get(b"a")
        assert found is not None
        assert found.value == b"1"
        assert (await client.get_prefix(b"")).count == 1
        assert await client.delete(b"a")
        assert cluster.calls(PUT)[0][1]["x-change-reason-bin"] == b"why"

    run(cluster, body)


def test_reads_move_on_and_sent_writes_do_not(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.store.refuse(PUT, Code.UNAVAILABLE, "etcdserver: request timed out", after=True)
        with pytest.raises(OutcomeUnknownError):
            await client.put(b"a", b"1")
        assert len(cluster.calls(PUT)) == 1
        for member in cluster.members[:1]:
            await asyncio.to_thread(member.stop)
        assert await client.get(b"a") is not None
        await client.put(b"a", b"2")

    run(cluster, body)


def test_nobody_there(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        for member in cluster.members:
            await asyncio.to_thread(member.stop)
        with pytest.raises(UnavailableError):
            await client.put(b"a", b"1")

    run(cluster, body)


def test_watches_and_renewals_log_in_too(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.store.refuse(WATCH, Code.UNAUTHENTICATED, "etcdserver: invalid auth token", times=9)
        async with AsyncWatch(client, WatchOptions(b"k")) as watch:
            with pytest.raises(errors.InvalidAuthTokenError):
                await anext(watch)
        assert [call[1].get("token") for call in cluster.calls(WATCH)] == [
            "token-alice-1",
            "token-alice-2",
        ]
        lease = (await client.do(operations.lease_grant(30))).ID
        cluster.store.tokens.clear()
        assert await client.renew(lease) == 30

    run(cluster, body, login=Login("alice", lambda: "correct horse"))


def test_many_calls_with_a_stale_token_log_in_once(cluster: FakeCluster) -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        return "correct horse"

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        await asyncio.gather(*(client.put(b"k%d" % n, b"") for n in range(8)))

    run(cluster, body, login=Login("alice", password), token="stale")
    assert len(asked) == 1
    assert {call[1]["token"] for call in cluster.calls(PUT)} == {"stale", "token-alice-1"}


def test_watch_goes_on_across_a_lost_member_and_new_tls_files(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        seen: list[bytes] = []
        lost: list[str] = []
        async with AsyncWatch(client, ALL, on_lost=lost.append) as watch:
            await client.put(b"k", b"0")
            seen += [event.kv.value for event in (await anext(watch)).events]
            await client.reload_tls()
            await client.put(b"k", b"1")
            seen += [event.kv.value for event in (await anext(watch)).events]
            assert not lost
            await asyncio.to_thread(cluster.members[0].stop)
            await client.put(b"k", b"2")
            seen += [event.kv.value for event in (await anext(watch)).events]
        assert seen == [b"0", b"1", b"2"]
        assert lost

    run(cluster, body)


def test_watch_ends_by_close_compaction_and_refusal(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        watch = AsyncWatch(client, WatchOptions(b"k"))
        asyncio.get_running_loop().call_later(0.1, watch.close)
        assert [batch async for batch in watch] == []
        cluster.store.compacted = 5
        async with AsyncWatch(client, ALL) as watch:
            with pytest.raises(WatchCompactedError):
                await anext(watch)
        cluster.store.refuse(
            "/etcdserverpb.Watch/Watch", Code.PERMISSION_DENIED, "etcdserver: permission denied"
        )
        async with AsyncWatch(client, ALL) as watch:
            with pytest.raises(errors.PermissionDeniedError):
                await anext(watch)

    run(cluster, body)


def test_a_cancelled_reader_is_cancelled(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with AsyncWatch(client, WatchOptions(b"k")) as watch:
            reader = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader

    run(cluster, body)


def test_watch_progress(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        connected = asyncio.Event()
        async with AsyncWatch(client, WatchOptions(b"k"), on_connected=connected.set) as watch:
            reader = asyncio.ensure_future(anext(watch))
            await connected.wait()
            await watch.request_progress()
            assert (await reader).events == ()

    run(cluster, body)


def test_leases_are_kept_and_their_loss_is_noticed(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with await hold_lease_async(client, 2) as keeper:
            while not cluster.calls("/etcdserverpb.Lease/LeaseKeepAlive"):
                await asyncio.sleep(0.02)
            keeper.check()
            cluster.store.leases.clear()
            await keeper.lost.wait()
        with pytest.raises(errors.LeaseNotFoundError):
            await client.renew(keeper.lease_id)

    run(cluster, body)


def test_streams(cluster: FakeCluster) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        path = "/etcdserverpb.Maintenance/Snapshot"
        stream = client.stream(path, rpc.SnapshotRequest(), rpc.SnapshotResponse)
        assert [len(message.blob) async for message in stream] == [512, 512, 32]
        taken = operations.lock_acquire(b"l", 0)
        assert (await client.do(taken)).key == b"l/0"

    run(cluster, body)
