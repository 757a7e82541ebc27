"""Locks and elections of the async client exclude those of the sync one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from configsvc.client import (
    AsyncClient,
    Client,
    ClientSettings,
    LeaseLostError,
    acquire,
    acquire_async,
    current_leader_async,
    hold_lease,
    hold_lease_async,
    operations,
    parse_endpoints,
)
from tests.support.fake_cluster import FakeCluster

Body = Callable[[AsyncClient], Awaitable[None]]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(1) as running:
        yield running


def run(cluster: FakeCluster, body: Body) -> None:
    async def main() -> None:
        settings = ClientSettings(parse_endpoints(cluster.urls), timeout_s=3.0)
        async with AsyncClient(settings) as client:
            await asyncio.wait_for(body(client), 15)

    asyncio.run(main())


def test_one_holds_and_the_next_gets_a_larger_token(cluster: FakeCluster) -> None:
    async def body(client: AsyncClient) -> None:
        async with (
            await hold_lease_async(client, 30) as first,
            await hold_lease_async(client, 30) as second,
        ):
            held = await acquire_async(client, b"lock", first, value=b"me")
            leader = await current_leader_async(client, b"lock")
            assert leader is not None
            assert (leader.key, leader.value) == (held.key, b"me")
            again = await acquire_async(client, b"lock", first, value=b"changed")
            assert again == held
            waiting = asyncio.ensure_future(acquire_async(client, b"lock", second))
            done, _ = await asyncio.wait((waiting,), timeout=0.2)
            assert not done
            await client.do(operations.lease_revoke(first.lease_id))
            assert (await waiting).token > held.token
        assert await current_leader_async(client, b"other") is None

    run(cluster, body)


def test_it_waits_for_a_holder_of_the_other_kind(cluster: FakeCluster) -> None:
    async def body(client: AsyncClient) -> None:
        with (
            Client(client.settings) as threads,
            await asyncio.to_thread(hold_lease, threads, 30) as there,
        ):
            await asyncio.to_thread(acquire, threads, b"lock", there)
            async with await hold_lease_async(client, 30) as keeper:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(acquire_async(client, b"lock", keeper), 0.2)

    run(cluster, body)


def test_a_lease_that_ends_while_waiting(cluster: FakeCluster) -> None:
    async def body(client: AsyncClient) -> None:
        async with (
            await hold_lease_async(client, 30) as first,
            await hold_lease_async(client, 1) as second,
        ):
            await acquire_async(client, b"lock", first)
            waiting = asyncio.ensure_future(acquire_async(client, b"lock", second))
            mine = b"lock/%x" % second.lease_id
            while mine not in cluster.store.live():
                await asyncio.sleep(0.01)
            cluster.store.leases.pop(second.lease_id)
            with pytest.raises(LeaseLostError):
                await waiting

    run(cluster, body)
