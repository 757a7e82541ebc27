"""Lock and election: one holder at a time, growing tokens, no waiting on a lost lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from grpc import StatusCode as Code

from configsvc.client import (
    Client,
    LeaseLostError,
    acquire,
    current_leader,
    hold_lease,
    operations,
)
from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(1) as running:
        yield running


@pytest.mark.parametrize("apart_s", [0.0, 0.025])
def test_one_at_a_time_in_the_order_of_arrival(
    cluster: FakeCluster, client: Client, apart_s: float
) -> None:
    """``apart_s``: between arrivals; with some, holders leave before the last ones come."""
    order: list[tuple[int, int]] = []
    inside = threading.Lock()
    ready = [threading.Event() for _ in range(4)]

    def contend(number: int) -> None:
        with hold_lease(client, 30) as keeper:
            ready[number].set()
            held = acquire(client, b"l", keeper)
            assert inside.acquire(blocking=False)
            order.append((number, held.token))
            time.sleep(0.02)
            inside.release()
            client.do(operations.lease_revoke(keeper.lease_id))

    threads = []
    for number in range(4):
        thread = threading.Thread(target=contend, args=(number,))
        thread.start()
        threads.append(thread)
        ready[number].wait(5)
        time.sleep(apart_s)
    for thread in threads:
        thread.join(10)
    assert len(order) == 4
    tokens = [token for _, token in order]
    assert tokens == sorted(set(tokens))


def test_the_same_lease_gets_the_same_lock_at_once(cluster: FakeCluster, client: Client) -> None:
    with hold_lease(client, 30) as keeper:
        first = acquire(client, b"l", keeper, value=b"1")
        cluster.store.refuse(
            "/etcdserverpb.KV/Txn", Code.UNAVAILABLE, "etcdserver: leader changed", after=True
        )
        assert acquire(client, b"l", keeper, value=b"2") == first
    leader = current_leader(client, b"l")
    assert leader is not None
    assert leader.value == b"2"
    assert current_leader(client, b"other") is None


def test_waiting_ends_when_the_lease_is_lost(cluster: FakeCluster, client: Client) -> None:
    client.put(b"l/1", b"somebody")
    with hold_lease(client, 1) as keeper:
        threading.Timer(0.2, cluster.store.leases.clear).start()
        with pytest.raises(LeaseLostError):
            acquire(client, b"l", keeper)


def test_a_candidate_whose_key_vanished_does_not_hold(cluster: FakeCluster, client: Client) -> None:
    client.put(b"l/1", b"somebody")

    def vanish() -> None:
        while len(cluster.store.live()) < 2:
            time.sleep(0.01)
        for key in sorted(cluster.store.live(), reverse=True):
            if key != b"l/1":
                client.delete(key)
        client.delete(b"l/1")

    with hold_lease(client, 30) as keeper:
        thread = threading.Thread(target=vanish)
        thread.start()
        with pytest.raises(LeaseLostError):
            acquire(client, b"l", keeper)
        thread.join()


def test_callbacks_on_loss(cluster: FakeCluster, client: Client) -> None:
    told: list[int] = []
    with hold_lease(client, 1) as keeper:
        undo = keeper.on_loss(lambda: told.append(1))
        keeper.on_loss(lambda: told.append(2))
        undo()
        cluster.store.leases.clear()
        assert keeper.lost.wait(3)
    keeper.on_loss(lambda: told.append(3))
    assert told == [2, 3]
