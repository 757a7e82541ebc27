"""What a member refuses, with the exact error, and stays unharmed. Over real TLS and gRPC."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from configsvc.client import operations
from configsvc.identity.pki import init_pki, issue
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from tests.support.members import MemberCluster

pytestmark = pytest.mark.integration


def channel(cluster: MemberCluster, pair: Path, ca: Path | None = None) -> grpc.Channel:
    creds = grpc.ssl_channel_credentials(
        (ca or cluster.pki / "ca-server.pem").read_bytes(),
        Path(f"{pair}.key").read_bytes(),
        Path(f"{pair}.pem").read_bytes(),
    )
    target = cluster.members[0].client_url.removeprefix("https://")
    return grpc.secure_channel(target, creds, options=[("grpc.enable_http_proxy", 0)])


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Code name and text of the error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


@pytest.fixture
def root(trio: MemberCluster) -> Any:
    with channel(trio, trio.user("root")) as open_channel:
        yield open_channel


CASES = [
    pytest.param(
        "KV", "Put", rpc.PutRequest(value=b"x"),
        ("INVALID_ARGUMENT", "etcdserver: key is not provided"), id="empty-key-put",
    ),
    pytest.param(
        "KV", "Range", rpc.RangeRequest(range_end=b"\0"),
        ("INVALID_ARGUMENT", "etcdserver: key is not provided"), id="empty-key-range-from",
    ),
    pytest.param(
        "KV", "Range", rpc.RangeRequest(key=b"a", revision=1 << 40),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
        id="future-revision",
    ),
    pytest.param(
        "KV", "Range", rpc.RangeRequest(key=b"a", sort_order=9),
        ("INVALID_ARGUMENT", "etcdserver: invalid sort option"), id="sort-order",
    ),
    pytest.param(
        "KV", "Range", rpc.RangeRequest(key=b"a", sort_target=-1),
        ("INVALID_ARGUMENT", "etcdserver: invalid sort option"), id="sort-target",
    ),
    pytest.param(
        "KV", "Put", rpc.PutRequest(key=b"a", lease=77),
        ("NOT_FOUND", "etcdserver: requested lease not found"), id="unknown-lease",
    ),
    pytest.param(
        "Lease", "LeaseRevoke", rpc.LeaseRevokeRequest(ID=99),
        ("NOT_FOUND", "etcdserver: requested lease not found"), id="revoke-unknown",
    ),
    pytest.param(
        "Lease", "LeaseGrant", rpc.LeaseGrantRequest(TTL=1 << 40),
        ("OUT_OF_RANGE", "etcdserver: too large lease TTL"), id="ttl",
    ),
    pytest.param(
        "KV", "Put", rpc.PutRequest(key=b"a", value=bytes(1_600_000)),
        ("INVALID_ARGUMENT", "etcdserver: request is too large"), id="too-large",
    ),
    pytest.param(
        "KV", "Compact", rpc.CompactionRequest(revision=1 << 40),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
        id="compact-future",
    ),
    pytest.param(
        "Auth", "AuthDisable", rpc.AuthDisableRequest(),
        ("FAILED_PRECONDITION", "configsvc: authentication cannot be switched off"),
        id="auth-disable",
    ),
    pytest.param(
        "Auth", "UserAdd", rpc.AuthUserAddRequest(name="shorty", password="short"),
        ("INVALID_ARGUMENT", None), id="short-password",
    ),
    pytest.param(
        "Auth", "RoleGrantPermission", rpc.AuthRoleGrantPermissionRequest(name="x"),
        ("INVALID_ARGUMENT", "etcdserver: permission not given"), id="no-permission-field",
    ),
    pytest.param(
        "Maintenance", "MoveLeader", rpc.MoveLeaderRequest(targetID=1), None, id="bad-transferee",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("service", "method", "request_", "expected"), CASES)
def test_exact_error(
    root: Any, service: str, method: str, request_: Any, expected: tuple[str, str | None] | None
) -> None:
    stub = getattr(rpc_pb2_grpc, f"{service}Stub")(root)
    code, text = refusal(lambda: getattr(stub, method)(request_, timeout=5))
    if expected is None:
        assert text in ("etcdserver: not leader", "etcdserver: bad leader transferee")
        return
    assert code == expected[0]
    if expected[1] is not None:
        assert text == expected[1]


def test_nothing_above_the_receive_limit_is_kept(root: Any) -> None:
    stub = rpc_pb2_grpc.KVStub(root)
    request = rpc.PutRequest(key=b"a", value=bytes(3_000_000))
    code, _ = refusal(lambda: stub.Put(request, timeout=5))
    assert code == "RESOURCE_EXHAUSTED"
    assert stub.Range(rpc.RangeRequest(key=b"a"), timeout=5).count == 0


def test_compacted_revision(trio: MemberCluster, root: Any) -> None:
    stub = rpc_pb2_grpc.KVStub(root)
    stub.Put(rpc.PutRequest(key=b"c", value=b"1"))
    revision = stub.Put(rpc.PutRequest(key=b"c", value=b"2")).header.revision
    stub.Compact(rpc.CompactionRequest(revision=revision))
    request = rpc.RangeRequest(key=b"c", revision=revision - 1)
    assert refusal(lambda: stub.Range(request)) == (
        "OUT_OF_RANGE",
        "etcdserver: mvcc: required revision has been compacted",
    )
    again = rpc.CompactionRequest(revision=revision)
    assert refusal(lambda: stub.Compact(again))[0] == "OUT_OF_RANGE"


def test_unknown_method_and_odd_paths(root: Any) -> None:
    for path in ("/etcdserverpb.KV/Nope", "/etcdserverpb.KV/range", "/etcdserverpb.KV/Range/"):
        call = root.unary_unary(path)
        assert refusal(lambda call=call: call(b"", timeout=5))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(("kind", "name"), [("server", "m9"), ("member", "00000000000000ff")])
def test_certificates_of_other_kinds_are_refused(
    trio: MemberCluster, tmp_path: Path, kind: str, name: str
) -> None:
    issue(trio.pki, kind, name, ips=("127.0.0.1",), out=tmp_path / "leaf", stem="leaf")
    with channel(trio, tmp_path / "leaf" / "leaf") as other:
        stub = rpc_pb2_grpc.KVStub(other)
        code, _ = refusal(lambda: stub.Range(rpc.RangeRequest(key=b"a"), timeout=3))
    assert code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    _unharmed(trio)


def test_certificate_of_a_foreign_ca_is_refused(trio: MemberCluster, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    init_pki(foreign, "test.configsvc.local", development=True)
    issue(foreign, "user", "root", out=tmp_path / "leaf", stem="leaf")
    with channel(trio, tmp_path / "leaf" / "leaf") as other:
        stub = rpc_pb2_grpc.KVStub(other)
        code, _ = refusal(lambda: stub.Range(rpc.RangeRequest(key=b"a"), timeout=3))
    assert code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    _unharmed(trio)


def test_plaintext_and_silence_get_nothing(trio: MemberCluster) -> None:
    for url in (trio.members[0].client_url, trio.members[0].peer_url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.settimeout(5)
            got = b""
            while part := _receive(sock):
                got += part
        assert b"HTTP/1.1" not in got
    _unharmed(trio)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionError:
        return b""


def test_no_certificate_no_service(trio: MemberCluster) -> None:
    for url in (trio.members[0].client_url, trio.members[0].peer_url):
        port = int(url.rpartition(":")[2])
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                with context.wrap_socket(sock) as tls:
                    tls.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    if not tls.recv(4096):
                        raise ConnectionError("closed without a word")
    _unharmed(trio)


def test_a_user_without_rights_is_refused_until_granted(trio: MemberCluster, root: Any) -> None:
    auth = rpc_pb2_grpc.AuthStub(root)
    kv = rpc_pb2_grpc.KVStub(root)
    kv.Put(rpc.PutRequest(key=b"/r/1", value=b"one"))
    with channel(trio, trio.user("mallory")) as mallory:
        stub = rpc_pb2_grpc.KVStub(mallory)
        request = rpc.RangeRequest(key=b"/r/1")
        denied = ("PERMISSION_DENIED", "etcdserver: permission denied")
        assert refusal(lambda: stub.Range(request)) == denied
        auth.UserAdd(
            rpc.AuthUserAddRequest(
                name="mallory",
                options={"no_password": True},  # type: ignore[arg-type]
            )
        )
        auth.RoleAdd(rpc.AuthRoleAddRequest(name="reader"))
        perm = {"permType": 0, "key": b"/r/", "range_end": b"/r0"}
        auth.RoleGrantPermission(
            rpc.AuthRoleGrantPermissionRequest(name="reader", perm=perm)  # type: ignore[arg-type]
        )
        assert refusal(lambda: stub.Range(request)) == denied
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="mallory", role="reader"))
        assert stub.Range(request).kvs[0].value == b"one"
        put = rpc.PutRequest(key=b"/r/1", value=b"no")
        assert refusal(lambda: stub.Put(put)) == denied
        nested = rpc.TxnRequest(
            success=[
                {"request_txn": {"success": [{"request_range": {"key": b"secret"}}]}}  # type: ignore[list-item]
            ]
        )
        assert refusal(lambda: stub.Txn(nested)) == denied


def _unharmed(cluster: MemberCluster) -> None:
    with cluster.client(member=cluster.members[0]) as client:
        assert client.do(operations.put(b"/still/here", b"yes")).header.revision > 1
