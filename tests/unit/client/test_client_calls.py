"""The sync client against members that fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from grpc import StatusCode as Code

from configsvc import errors
from configsvc.client import (
    Client,
    ClientSettings,
    EndpointError,
    Login,
    OutcomeUnknownError,
    Txn,
    UnavailableError,
    Why,
    hold_lease,
    operations,
    parse_endpoints,
)
from configsvc.client import txn as t
from configsvc.client.settings import metadata_of
from configsvc.client.tls import TlsFiles, channel_credentials, refuse_tracing
from tests.support.fake_cluster import FakeCluster

PUT = "/etcdserverpb.KV/Put"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
RANGE = "/etcdserverpb.KV/Range"
UNAVAILABLE = Code.UNAVAILABLE


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(2) as running:
        yield running


def test_put_get_delete_carry_values_and_the_reason(cluster: FakeCluster, client: Client) -> None:
    client.put(b"a", b"\x00\xff", reason="größer", ticket="CHG-1")
    found = client.get(b"a")
    assert found is not None
    assert found.value == b"\x00\xff"
    metadata = cluster.calls(PUT)[0][1]
    assert metadata["x-change-reason-bin"] == "größer".encode()
    assert metadata["x-change-ticket-bin"] == b"CHG-1"
    assert client.delete(b"a") is True
    assert client.delete(b"a") is False
    assert client.get(b"a") is None


def test_a_read_moves_on_when_a_member_is_down(cluster: FakeCluster, client: Client) -> None:
    client.put(b"a", b"1")
    cluster.members[0].stop()
    found = client.get(b"a")
    assert found is not None
    assert found.value == b"1"


def test_a_write_moves_on_only_when_it_was_never_sent(cluster: FakeCluster, client: Client) -> None:
    cluster.members[0].stop()
    client.put(b"a", b"1")
    assert len(cluster.calls(PUT)) == 1


def test_a_write_that_was_sent_is_never_repeated(cluster: FakeCluster, client: Client) -> None:
    cluster.store.refuse(PUT, UNAVAILABLE, "etcdserver: request timed out", after=True)
    with pytest.raises(OutcomeUnknownError):
        client.put(b"a", b"1")
    assert len(cluster.calls(PUT)) == 1
    assert cluster.store.live()[b"a"].value == b"1"  # it did happen: that is the point


def test_a_repeatable_write_is_repeated(cluster: FakeCluster, client: Client) -> None:
    cluster.store.refuse(PUT, UNAVAILABLE, "etcdserver: leader changed", after=True)
    client.do(operations.put(b"a", b"1").repeatable())
    assert len(cluster.calls(PUT)) == 2


def test_no_leader_is_a_certain_refusal_of_a_write(cluster: FakeCluster, client: Client) -> None:
    cluster.store.refuse(PUT, UNAVAILABLE, "etcdserver: no leader")
    with pytest.raises(errors.NoLeaderError):
        client.put(b"a", b"1")


def test_a_read_waits_for_a_leader(cluster: FakeCluster, client: Client) -> None:
    cluster.store.refuse(RANGE, UNAVAILABLE, "etcdserver: no leader", times=5)
    assert client.get(b"a") is None
    assert len(cluster.calls(RANGE)) == 6


def test_nobody_there_is_told_before_the_deadline(cluster: FakeCluster, client: Client) -> None:
    for member in cluster.members:
        member.stop()
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="Connection refused"):
        client.put(b"a", b"1")
    assert time.monotonic() - begun < 2.5


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (Code.UNKNOWN, "etcdserver: too many requests", errors.RequestTooManyRequestsError),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", errors.PermissionDeniedError),
        (Code.PERMISSION_DENIED, "other", errors.PermissionDeniedError),
        (Code.ABORTED, "moved", errors.ConflictError),
        (Code.OUT_OF_RANGE, errors.CompactedError.text, errors.CompactedError),
        (Code.INTERNAL, "internal error, id=7", errors.InternalFailureError),
    ],
)  # fmt: skip
def test_refusals_are_typed_by_text_then_code(
    cluster: FakeCluster,
    client: Client,
    code: Code,
    text: str,
    kind: type[errors.RequestError],
) -> None:
    cluster.store.refuse(PUT, code, text)
    with pytest.raises(kind):
        client.put(b"a", b"1")
    assert len(cluster.calls(PUT)) == 1


def test_a_stale_token_is_renewed_once(cluster: FakeCluster) -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        return "correct horse"

    settings = ClientSettings(parse_endpoints(cluster.urls), login=Login("alice", password))
    with Client(settings) as client:
        client.put(b"a", b"1")
        assert cluster.calls(PUT)[-1][1]["token"] == "token-alice-1"
        cluster.store.tokens.clear()
        client.put(b"a", b"2")
        assert cluster.calls(PUT)[-1][1]["token"] == "token-alice-2"
        cluster.store.refuse(PUT, Code.UNAUTHENTICATED, "etcdserver: invalid auth token", times=2)
        with pytest.raises(errors.InvalidAuthTokenError):
            client.put(b"a", b"3")
    assert len(asked) == 3


def test_renewing_a_lease_gets_a_new_token_too(cluster: FakeCluster) -> None:
    settings = ClientSettings(
        parse_endpoints(cluster.urls), login=Login("alice", lambda: "correct horse")
    )
    with Client(settings) as client:
        lease = client.do(operations.lease_grant(30)).ID
        cluster.store.tokens.clear()
        assert client.renew(lease) == 30
        assert cluster.calls(KEEP_ALIVE)[-1][1]["token"] == "token-alice-2"


def test_threads_that_find_a_token_stale_fetch_one(cluster: FakeCluster) -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        time.sleep(0.1)  # the others arrive meanwhile
        return "correct horse"

    settings = ClientSettings(
        parse_endpoints(cluster.urls), login=Login("alice", password), token="stale"
    )
    with Client(settings) as client:
        threads = [threading.Thread(target=client.put, args=(b"a", b"1")) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(asked) == 1
    puts = cluster.calls(PUT)
    assert all(call[1]["token"] for call in puts)  # nobody went without meanwhile
    assert [call[1]["token"] for call in puts].count("token-alice-1") == 5


def test_a_wrong_password_is_said_so(cluster: FakeCluster) -> None:
    settings = ClientSettings(parse_endpoints(cluster.urls), login=Login("alice", lambda: "no"))
    with Client(settings) as client, pytest.raises(errors.AuthFailedError):
        client.get(b"a")


def test_txn_builder(client: Client) -> None:
    fresh = Txn().when(t.version(b"k") == 0).then(operations.put(b"k", b"1"))
    fresh.otherwise(operations.range_(b"k"))
    assert client.do(fresh.operation()).succeeded
    second = client.do(fresh.operation())
    assert not second.succeeded
    assert second.responses[0].response_range.kvs[0].value == b"1"
    assert fresh.operation().effect.writes
    assert not Txn().then(operations.range_(b"k")).operation().effect.writes
    bounded = Txn().when(t.modified(b"k", b"l") < 1).then(operations.put(b"k", b"2"))
    assert not client.do(bounded.operation()).succeeded


def test_leases_are_kept_and_their_loss_is_noticed(cluster: FakeCluster, client: Client) -> None:
    with hold_lease(client, 3, why=Why("because")) as keeper:
        deadline = time.monotonic() + 3
        while not cluster.calls("/etcdserverpb.Lease/LeaseKeepAlive"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        keeper.check()
        cluster.store.leases.clear()
        assert keeper.lost.wait(3)
    with pytest.raises(errors.LeaseNotFoundError):
        client.renew(keeper.lease_id)


def test_new_tls_files_move_calls_and_close_the_old_channels(
    cluster: FakeCluster, client: Client
) -> None:
    client.put(b"a", b"1")
    old = client.channels
    client.reload_tls()
    assert old.retired
    assert client.channels is not old
    client.put(b"a", b"2")


def test_reason_is_checked_before_anything_is_sent(cluster: FakeCluster, client: Client) -> None:
    for reason in ("line\nbreak", "x" * 257):
        with pytest.raises(errors.InvalidArgumentError):
            client.put(b"a", b"1", reason=reason)
    assert not cluster.calls(PUT)
    assert metadata_of(Why(), "t", require_leader=True) == (("token", "t"), ("hasleader", "true"))


def test_a_slow_member_leaves_time_for_the_next_one(cluster: FakeCluster, client: Client) -> None:
    client.put(b"a", b"1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}", cluster.urls[1]]
        with Client(ClientSettings(parse_endpoints(urls), timeout_s=4.0)) as patient:
            begun = time.monotonic()
            assert patient.get(b"a") is not None
            assert time.monotonic() - begun < 3.5


def test_gRPC_is_not_allowed_to_print_tokens() -> None:
    refuse_tracing({"GRPC_VERBOSITY": "error"})
    for environment in ({"GRPC_TRACE": "all"}, {"GRPC_VERBOSITY": "DEBUG"}):
        with pytest.raises(EndpointError):
            refuse_tracing(environment)


def test_tls_needs_a_bundle_and_pairs(tmp_path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("nothing")
    for files in (
        TlsFiles("", "", ""),
        TlsFiles(str(bundle), "", ""),
        TlsFiles(str(bundle), "cert", ""),
        TlsFiles(str(tmp_path / "absent"), "", ""),
    ):
        with pytest.raises(EndpointError):
            channel_credentials(files)


def test_repr_shows_no_secret() -> None:
    settings = ClientSettings(
        parse_endpoints("a"), token="s3cret", login=Login("u", lambda: "s3cret")
    )
    assert "s3cret" not in repr(settings)
    assert "login" not in repr(settings)
