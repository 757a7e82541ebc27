"""Revocation lists read anew: what is open is cut, and nothing new begins (PKI-13)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from configsvc.errors import ConfigServiceError
from configsvc.identity.pki import load_authority
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from tests.support.members import MemberCluster, MemberProcess
from tests.support.pki import revocation_list
from tests.support.waiting import until

pytestmark = pytest.mark.integration

WAIT_S = 20.0


class Lists:
    """The two lists that all members of a cluster read."""

    def __init__(self, cluster: MemberCluster) -> None:
        self._cluster = cluster
        self._paths = {p: cluster.root / f"{p}.crl" for p in ("peer", "client")}
        for purpose, path in self._paths.items():
            self.write(purpose)
            for member in cluster.members:
                member.extra += [f"--{purpose}-crl-file", str(path)]

    def write(self, purpose: str, *leaves: Path) -> None:
        """The list names these certificates."""
        serials = [
            x509.load_pem_x509_certificate(leaf.read_bytes()).serial_number for leaf in leaves
        ]
        pem = revocation_list(load_authority(self._cluster.pki, purpose), serials)
        self._paths[purpose].write_bytes(pem)


def local(cluster: MemberCluster, member: MemberProcess, key: bytes) -> bytes:
    """What a member itself has, whether or not it reaches the others."""
    with channel(cluster, member, "root") as opened:
        answer = rpc_pb2_grpc.KVStub(opened).Range(
            rpc.RangeRequest(key=key, serializable=True), timeout=WAIT_S
        )
    return bytes(answer.kvs[0].value) if answer.kvs else b""


def channel(cluster: MemberCluster, member: MemberProcess, user: str) -> grpc.Channel:
    pair = cluster.user(user)
    creds = grpc.ssl_channel_credentials(
        (cluster.pki / "ca-server.pem").read_bytes(),
        Path(f"{pair}.key").read_bytes(),
        Path(f"{pair}.pem").read_bytes(),
    )
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(member.client_url.removeprefix("https://"), creds, options)


def put(cluster: MemberCluster, members: list[MemberProcess], value: bytes) -> None:
    """Retried: a put at the moment of an election has no leader."""

    def done() -> bool:
        try:
            with cluster.client(members=members, timeout=3.0) as client:
                client.put(b"k", value)
        except ConfigServiceError:
            return False
        return True

    until(done, f"a put through {[m.name for m in members]}")


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_members_revoked_certificate_cuts_its_links_and_keeps_it_out(
    make_cluster: Callable[[int], MemberCluster], leads: bool
) -> None:
    cluster = make_cluster(3)
    lists = Lists(cluster)
    cluster.start()
    leader = cluster.leader()
    bad = leader if leads else cluster.others(leader)[0]
    good = cluster.others(bad)
    put(cluster, cluster.members, b"before")
    cluster.wait_applied()

    lists.write("peer", cluster.root / f"{bad.name}-pki" / "peer.pem")
    for member in good:
        member.signal(signal.SIGHUP)
    for member in good:
        until(lambda m=member: "certificate: revoked" in m.log_text(), "open links are cut")
        until(lambda m=member: "certificate revoked" in m.log_text(), "new ones are refused")
    put(cluster, good, b"after")
    time.sleep(1.0)  # longer than it takes a member that is let in to get what it lacks
    assert local(cluster, bad, b"k") == b"before"
    assert local(cluster, good[0], b"k") == b"after"

    lists.write("peer")
    for member in good:
        member.signal(signal.SIGHUP)
    until(lambda: local(cluster, bad, b"k") == b"after", "the member is back")
    cluster.wait_equal()


def test_a_clients_revoked_certificate_ends_its_open_connection(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(1)
    lists = Lists(cluster)
    cluster.start()
    [member] = cluster.members
    make_user(cluster, "mallory")
    request = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k"))
    with (
        channel(cluster, member, "root") as root,
        channel(cluster, member, "mallory") as mallory,
    ):
        watches = [
            rpc_pb2_grpc.WatchStub(each).Watch(iter_then_wait(request)) for each in (root, mallory)
        ]
        assert all(next(iter(watch)).created for watch in watches)
        lists.write("client", Path(f"{cluster.user('mallory')}.pem"))
        member.signal(signal.SIGHUP)
        with pytest.raises(grpc.RpcError) as caught:
            next(iter(watches[1]))
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as again:
            rpc_pb2_grpc.KVStub(mallory).Range(rpc.RangeRequest(key=b"k"), timeout=5)
        refused: Any = again.value
        assert refused.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
        put(cluster, [member], b"v")
        assert next(iter(watches[0])).events[0].kv.value == b"v", "nobody else is touched"
        for watch in watches:
            watch.cancel()
    assert "connections of revoked certificates ended" in member.log_text()


def make_user(cluster: MemberCluster, name: str) -> None:
    with channel(cluster, cluster.members[0], "root") as opened:
        auth = rpc_pb2_grpc.AuthStub(opened)
        auth.UserAdd(
            rpc.AuthUserAddRequest(name=name, options={"no_password": True}), timeout=WAIT_S
        )
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=name, role="root"), timeout=WAIT_S)


def iter_then_wait(request: rpc.WatchRequest) -> Any:
    """One request, and the stream stays open."""
    yield request
    threading.Event().wait(WAIT_S)
