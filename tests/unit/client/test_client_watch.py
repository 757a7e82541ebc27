"""Watches go on across lost members and tell every event once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from configsvc import errors
from configsvc.client import (
    Client,
    ClientSettings,
    Login,
    UnavailableError,
    Watch,
    WatchCompactedError,
    WatchOptions,
    parse_endpoints,
)
from configsvc.client.watching import Cursor
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc
from tests.support.fake_cluster import FakeCluster

WATCH = "/etcdserverpb.Watch/Watch"
ALL = WatchOptions(b"\0", b"\0", start_revision=1)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(2) as running:
        yield running


def test_events_come_once_and_in_order_across_a_lost_member(
    cluster: FakeCluster, client: Client
) -> None:
    seen: list[bytes] = []
    lost: list[str] = []
    with Watch(client, ALL, on_lost=lost.append) as watch:
        for number in range(3):
            client.put(b"k", b"%d" % number)
        for batch in watch:
            seen += [event.kv.value for event in batch.events]
            if seen[-1] == b"2":
                break
        cluster.members[0].stop()
        with Client(ClientSettings(parse_endpoints(cluster.urls[1]))) as other:
            for number in range(3, 6):
                other.put(b"k", b"%d" % number)
        for batch in watch:
            seen += [event.kv.value for event in batch.events]
            if seen[-1] == b"5":
                break
    assert seen == [b"%d" % number for number in range(6)]
    assert lost


def test_close_from_another_thread_ends_the_iteration(client: Client) -> None:
    watch = Watch(client, WatchOptions(b"k"))
    threading.Timer(0.2, watch.close).start()
    assert list(watch) == []


def test_new_tls_files_move_a_watch_without_a_gap(cluster: FakeCluster, client: Client) -> None:
    seen: list[bytes] = []
    with Watch(client, ALL) as watch:
        client.put(b"k", b"0")
        seen += [event.kv.value for event in next(watch).events]
        client.reload_tls()
        client.put(b"k", b"1")
        seen += [event.kv.value for event in next(watch).events]
    assert seen == [b"0", b"1"]
    assert len(cluster.calls(WATCH)) == 2


def test_a_watch_that_was_left_holds_no_channel(client: Client) -> None:
    with Watch(client, ALL) as watch:
        client.put(b"k", b"0")
        next(watch)
        old = client.channels
        assert old.users == 1
    assert old.users == 0


def test_compaction_is_told(cluster: FakeCluster, client: Client) -> None:
    cluster.store.compacted = 9
    with Watch(client, ALL) as watch, pytest.raises(WatchCompactedError) as caught:
        next(watch)
    assert caught.value.compact_revision == 9


def test_a_learner_is_left_for_another_member(cluster: FakeCluster, client: Client) -> None:
    text = errors.NotSupportedForLearnerError.text
    cluster.store.refuse(WATCH, grpc.StatusCode.FAILED_PRECONDITION, text)
    client.put(b"k", b"1")
    lost: list[str] = []
    with Watch(client, ALL, on_lost=lost.append) as watch:
        assert next(iter(watch)).events[0].kv.value == b"1"
    assert [text in line for line in lost] == [True]


def test_a_refusal_is_told(cluster: FakeCluster, client: Client) -> None:
    cluster.store.refuse(
        WATCH, grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", after=True
    )
    with Watch(client, ALL) as watch, pytest.raises(errors.PermissionDeniedError):
        next(watch)


def test_a_stale_token_is_renewed(cluster: FakeCluster) -> None:
    settings = ClientSettings(
        parse_endpoints(cluster.urls), login=Login("alice", lambda: "correct horse"), token="old"
    )
    with Client(settings) as client, Watch(client, ALL) as watch:
        client.put(b"k", b"1")
        assert next(watch).events[0].kv.value == b"1"


def test_a_watch_logs_in_first(cluster: FakeCluster) -> None:
    """Without the token it would watch as the certificate's user."""
    settings = ClientSettings(
        parse_endpoints(cluster.urls), login=Login("alice", lambda: "correct horse")
    )
    with Client(settings) as client, Watch(client, WatchOptions(b"k", start_revision=1)) as watch:
        cluster.store.revision += 1
        cluster.store.put(rpc.PutRequest(key=b"k", value=b"1"), {})
        assert next(watch).events[0].kv.value == b"1"
    assert [call[1].get("token") for call in cluster.calls(WATCH)] == ["token-alice-1"]


def test_a_token_that_is_always_refused_ends_the_watch(cluster: FakeCluster) -> None:
    settings = ClientSettings(
        parse_endpoints(cluster.urls), login=Login("alice", lambda: "correct horse")
    )
    text = "etcdserver: invalid auth token"
    cluster.store.refuse(WATCH, grpc.StatusCode.UNAUTHENTICATED, text, times=9)
    with (
        Client(settings) as client,
        Watch(client, ALL) as watch,
        pytest.raises(errors.InvalidAuthTokenError),
    ):
        next(watch)
    assert len(cluster.calls(WATCH)) == 2


def test_progress_on_request(client: Client) -> None:
    with Watch(client, WatchOptions(b"k")) as watch:
        got: list[int] = []

        def read() -> None:
            got.append(next(watch).revision)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(100):
            watch.request_progress()
            reader.join(0.05)
            if not reader.is_alive():
                break
    assert got == [1]


def test_patience_ends_when_nobody_was_ever_there(cluster: FakeCluster, client: Client) -> None:
    for member in cluster.members:
        member.stop()
    with Watch(client, ALL, connect_timeout_s=0.3) as watch, pytest.raises(UnavailableError):
        next(watch)


# --- the pure cursor ------------------------------------------------------------------------------


def message(revision: int, *mods: int, **more: object) -> rpc.WatchResponse:
    events = [kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", mod_revision=mod)) for mod in mods]
    header = rpc.ResponseHeader(revision=revision)
    return rpc.WatchResponse(header=header, events=events, **more)  # type: ignore[arg-type]


def test_cursor_resumes_behind_what_was_delivered() -> None:
    cursor = Cursor(WatchOptions(b"k"))
    assert cursor.create_request().create_request.start_revision == 0
    assert cursor.take(message(7, created=True)) is None
    assert cursor.resume_revision == 8
    cursor.take(message(20, 9, 12))
    assert cursor.resume_revision == 13  # not 21: the member may still hold 13 to 20 back
    cursor.take(message(20))
    assert cursor.resume_revision == 21
    assert cursor.create_request().create_request.start_revision == 21


def test_cursor_joins_fragments_and_forgets_half_ones_of_a_lost_stream() -> None:
    cursor = Cursor(WatchOptions(b"k", start_revision=1))
    assert cursor.take(message(5, 5, fragment=True)) is None
    cursor.create_request()
    assert cursor.resume_revision == 1
    assert cursor.take(message(5, 5, fragment=True)) is None
    batch = cursor.take(message(5, 5))
    assert batch is not None
    assert len(batch.events) == 2
    assert cursor.resume_revision == 6
