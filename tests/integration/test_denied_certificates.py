"""The deny-list on real members: at once, everywhere, on what is open too; and back (PKI-13)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from configsvc.client import inquiries
from configsvc.errors import InvalidArgumentError
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from tests.support.local_stream import channel
from tests.support.members import MemberCluster, MemberProcess
from tests.support.waiting import until

pytestmark = pytest.mark.integration

WAIT_S = 20.0
ENDED = "connections of denied certificates ended"
REFUSED = ("UNAUTHENTICATED", "certificate not acceptable")


def serial_of(leaf: Path) -> str:
    return format(x509.load_pem_x509_certificate(leaf.read_bytes()).serial_number, "x")


def make_user(cluster: MemberCluster, name: str) -> None:
    with channel(cluster, "root", cluster.members[0]) as opened:
        auth = rpc_pb2_grpc.AuthStub(opened)
        options: Any = {"no_password": True}
        auth.UserAdd(rpc.AuthUserAddRequest(name=name, options=options), timeout=WAIT_S)
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=name, role="root"), timeout=WAIT_S)


def get(opened: grpc.Channel, key: bytes = b"k") -> tuple[str, str]:
    """Code and text of a read that its member answers by itself."""
    try:
        request = rpc.RangeRequest(key=key, serializable=True)
        rpc_pb2_grpc.KVStub(opened).Range(request, timeout=WAIT_S, wait_for_ready=True)
    except grpc.RpcError as error:
        told: Any = error
        return told.code().name, told.details()
    return "OK", ""


def fresh(cluster: MemberCluster, user: str, member: MemberProcess) -> tuple[str, str]:
    with channel(cluster, user, member) as opened:
        return get(opened)


def watching(opened: grpc.Channel, released: threading.Event) -> Any:
    """An open watch whose first answer has come."""

    def requests() -> Iterator[rpc.WatchRequest]:
        yield rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k"))
        released.wait(3 * WAIT_S)

    call = rpc_pb2_grpc.WatchStub(opened).Watch(requests(), timeout=3 * WAIT_S)
    assert next(call).created
    return call


@pytest.mark.parametrize("what", ["serial", "identity"])
def test_a_denied_certificate_is_cut_everywhere_and_comes_back(
    make_cluster: Callable[[int], MemberCluster], what: str
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    make_user(cluster, "mallory")
    leaf = Path(f"{cluster.user('mallory')}.pem")
    value = serial_of(leaf) if what == "serial" else "user/mallory"
    released = threading.Event()
    with channel(cluster, "root", cluster.members[1]) as root:
        others = watching(root, released)
        opened = [channel(cluster, "mallory", member) for member in cluster.members]
        channels = [each.__enter__() for each in opened]
        watches = [watching(each, released) for each in channels]
        with cluster.client() as admin:
            entry = admin.do(inquiries.deny_add(what, value)).entry
            for watch in watches:  # nothing is written: no batch comes to be judged
                with pytest.raises(grpc.RpcError) as caught:
                    next(watch)
                error: Any = caught.value
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            for member in cluster.members:
                until(lambda m=member: ENDED in m.log_text(), f"{member.name} cuts it")
            assert [get(each) for each in channels] == [REFUSED] * 3
            assert [fresh(cluster, "mallory", m) for m in cluster.members] == [REFUSED] * 3
            admin.put(b"k", b"v")
            assert next(others).events[0].kv.value == b"v", "nobody else is touched"
            assert [one.value for one in admin.do(inquiries.deny_list()).entries] == [entry.value]
            admin.do(inquiries.deny_remove(what, value))
        cluster.wait_applied()
        assert [get(each) for each in channels] == [("OK", "")] * 3
        assert [fresh(cluster, "mallory", m) for m in cluster.members] == [("OK", "")] * 3
        released.set()
        others.cancel()
        for each in opened:
            each.__exit__(None, None, None)
    cluster.wait_equal()


def test_a_restarted_member_goes_on_denying(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    [member] = cluster.members
    for name in ("mallory", "oscar"):
        make_user(cluster, name)
    with cluster.client() as admin:
        own = serial_of(Path(f"{cluster.user('root')}.pem"))
        with pytest.raises(InvalidArgumentError, match="--allow-lockout"):
            admin.do(inquiries.deny_add("serial", own))
        for name in ("mallory", "oscar"):
            admin.do(inquiries.deny_add("identity", f"user/{name}"))
        admin.do(inquiries.deny_remove("identity", "user/oscar"))
    assert member.kill() != 0
    cluster.start()
    assert fresh(cluster, "mallory", member) == REFUSED
    assert fresh(cluster, "oscar", member) == ("OK", "")
    with cluster.client() as admin:
        [entry] = admin.do(inquiries.deny_list()).entries
        assert entry.value.endswith("/user/mallory")
    cluster.wait_equal()


def test_denials_name_their_author_and_reason(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    from configsvc.client import Why

    cluster = make_cluster(1)
    cluster.start()
    with cluster.client() as admin:
        admin.do(inquiries.deny_add("serial", "4a0b"), why=Why("stolen", "SEC-1"))
        admin.do(inquiries.deny_remove("serial", "4a0b"), why=Why("found", "SEC-2"))
        records = exported(cluster)
    assert [(r.columns.event, r.reason, r.ticket) for r in records] == [
        ("cert.revoke", "stolen", "SEC-1"),
        ("cert.unrevoke", "found", "SEC-2"),
    ]


def exported(cluster: MemberCluster) -> list[Any]:
    """The records of the deny-list in stream M."""
    from configsvc.proto import v1_pb2, v1_pb2_grpc

    with channel(cluster, "root", cluster.members[0]) as opened:
        chunks = v1_pb2_grpc.AuditStub(opened).Export(v1_pb2.ExportRequest(), timeout=WAIT_S)
        leaves = [leaf for chunk in chunks for leaf in chunk.leaves]
    return [leaf for leaf in leaves if leaf.columns.event.startswith("cert.")]


def test_a_denied_member_is_cut_off_and_comes_back(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    bad = cluster.others(cluster.leader())[0]
    good = cluster.others(bad)
    name = f"member/{bad.id:016x}"
    with cluster.client(members=good) as admin:
        with pytest.raises(InvalidArgumentError, match="--allow-lockout"):
            admin.do(inquiries.deny_add("identity", name))
        admin.do(inquiries.deny_add("identity", name, allow_lockout=True))
        for member in good:
            until(lambda m=member: "certificate: revoked" in m.log_text(), "open links are cut")
        admin.put(b"k", b"without it")
        admin.do(inquiries.deny_remove("identity", name))
        cluster.wait_equal()
        with cluster.client(member=bad) as through:
            until(lambda: through.get(b"k"), "the member takes part again")
