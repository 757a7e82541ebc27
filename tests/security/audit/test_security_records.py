"""N16, N24 and the records of security.md 3.13, against a real member over TLS."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from configsvc.identity.pki import issue
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from tests.support.local_stream import channel, events, refusal, refused, stream
from tests.support.members import MemberCluster, make_pki

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemberCluster]:
    pki: Path = make_pki(tmp_path_factory.mktemp("pki"))
    cluster = MemberCluster(tmp_path_factory.mktemp("alone"), pki, 1)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def root(alone: MemberCluster) -> Iterator[grpc.Channel]:
    with channel(alone, "root", alone.members[0]) as made:
        yield made


def test_n16_each_way_a_login_fails_has_its_own_record(
    alone: MemberCluster, root: grpc.Channel
) -> None:
    """One text outside, the exact reason in the record."""
    auth = rpc_pb2_grpc.AuthStub(root)
    auth.UserAdd(rpc.AuthUserAddRequest(name="n16", password="long enough to be good"))
    options: Any = {"no_password": True}
    auth.UserAdd(rpc.AuthUserAddRequest(name="n16-cert", options=options))
    before = len(stream(alone.members[0]))
    outside = set()
    for name in ("n16", "n16-cert", "n16-nobody"):
        ask = rpc.AuthenticateRequest(name=name, password="wrong wrong wrong")
        outside.add(refusal(lambda ask=ask: auth.Authenticate(ask)))
    assert len(outside) == 1
    records = [r for r in stream(alone.members[0])[before:] if r["event"] == "auth.denied"]
    assert [(r.get("user", ""), r["detail"]) for r in records] == [
        ("n16", "wrong password"),
        ("n16-cert", "user has no password"),
        ("", "unknown user"),
    ]


class Watching:
    """A watch whose answers are collected by a thread."""

    def __init__(self, open_channel: grpc.Channel, key: bytes, *metadata: tuple[str, str]) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.create(key)
        self.call = rpc_pb2_grpc.WatchStub(open_channel).Watch(
            iter(self._requests.get, None), metadata=metadata
        )
        threading.Thread(target=self._read, daemon=True).start()

    def create(self, key: bytes) -> None:
        create: Any = {"key": key}
        self._requests.put(rpc.WatchRequest(create_request=create))

    def _read(self) -> None:
        try:
            for answer in self.call:
                self.answers.put(answer)
        except grpc.RpcError:
            return

    def next(self) -> Any:
        return self.answers.get(timeout=5)


@pytest.mark.parametrize("how", ["role", "permission", "user"])
def test_n24_a_watch_ends_with_its_right(
    alone: MemberCluster, root: grpc.Channel, how: str
) -> None:
    """Zero later events, the reason is told, and the refusal has its record."""
    auth, kv = rpc_pb2_grpc.AuthStub(root), rpc_pb2_grpc.KVStub(root)
    user, role, key = f"n24-{how}", f"n24-{how}-reader", f"/n24/{how}".encode()
    options: Any = {"no_password": True}
    perm: Any = {"permType": 0, "key": key}
    auth.UserAdd(rpc.AuthUserAddRequest(name=user, options=options))
    auth.RoleAdd(rpc.AuthRoleAddRequest(name=role))
    auth.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name=role, perm=perm))
    auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=user, role=role))
    revoke: dict[str, Callable[[], Any]] = {
        "role": lambda: auth.UserRevokeRole(rpc.AuthUserRevokeRoleRequest(name=user, role=role)),
        "permission": lambda: auth.RoleRevokePermission(
            rpc.AuthRoleRevokePermissionRequest(role=role, key=key)
        ),
        "user": lambda: auth.UserDelete(rpc.AuthUserDeleteRequest(name=user)),
    }
    with channel(alone, user, alone.members[0]) as watcher:
        watching = Watching(watcher, key)
        assert watching.next().created
        kv.Put(rpc.PutRequest(key=key, value=b"seen"))
        assert watching.next().events[0].kv.value == b"seen"
        revoke[how]()
        kv.Put(rpc.PutRequest(key=key, value=b"unseen"))
        last = watching.next()
        assert last.canceled
        assert not last.events
        assert last.cancel_reason
        assert watching.answers.empty()
        watching.call.cancel()
    mine = [r for r in refused(stream(alone.members[0])) if r.get("key") == key]
    assert [r["method"] for r in mine] == ["/etcdserverpb.Watch/Watch"]


def test_n24_a_watch_ends_with_its_certificate(alone: MemberCluster, root: grpc.Channel) -> None:
    """Nobody revokes anything: it runs out while its connection is open."""
    auth, kv = rpc_pb2_grpc.AuthStub(root), rpc_pb2_grpc.KVStub(root)
    options: Any = {"no_password": True}
    auth.UserAdd(rpc.AuthUserAddRequest(name="n24-short", options=options))
    auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="n24-short", role="root"))
    folder = alone.pki / "clients"
    issue(alone.pki, "user", "n24-short", out=folder, stem="user-n24-short", lifetime_s=5)
    with channel(alone, "n24-short", alone.members[0]) as watcher:
        watching = Watching(watcher, b"/n24/short")
        assert watching.next().created
        kv.Put(rpc.PutRequest(key=b"/n24/short", value=b"seen"))
        assert watching.next().events[0].kv.value == b"seen"
        assert watching.call.code() is grpc.StatusCode.UNAUTHENTICATED  # once it has ended
        kv.Put(rpc.PutRequest(key=b"/n24/short", value=b"unseen"))
        assert watching.answers.empty()
    mine = [r for r in stream(alone.members[0]) if r.get("detail") == "expired while connected"]
    assert [(r["event"], r["method"]) for r in mine] == [
        ("auth.denied", "/etcdserverpb.Watch/Watch")
    ]


BAD_TOKEN = "Unauthenticated desc = etcdserver: invalid auth token"
NO_USER = "InvalidArgument desc = etcdserver: user name is empty"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        pytest.param([("token", "not.a.token")], BAD_TOKEN, id="bad"),
        pytest.param([("token", "a"), ("authorization", "Bearer b")], BAD_TOKEN, id="two"),
        pytest.param([("grpcgateway-accept", "*/*")], NO_USER, id="foreign-gateway-without"),
    ],
)
def test_a_bad_token_watches_nothing_whatever_the_certificate_may(
    alone: MemberCluster, root: grpc.Channel, metadata: list[tuple[str, str]], reason: str
) -> None:
    """ID-6: every watcher of the stream is refused and recorded, and the stream lives on."""
    before = len(stream(alone.members[0]))
    watching = Watching(root, b"/id6", *metadata)
    for _ in range(2):
        answer = watching.next()
        assert (answer.created, answer.canceled, answer.watch_id) == (True, True, -1)
        assert answer.cancel_reason == f"rpc error: code = {reason}"
        rpc_pb2_grpc.KVStub(root).Put(rpc.PutRequest(key=b"/id6", value=b"unseen"))
        watching.create(b"/id6")
    assert not watching.next().events  # the third refusal, and nothing before it
    assert watching.call.is_active()
    watching.call.cancel()
    found = [r for r in stream(alone.members[0])[before:] if r["event"] == "auth.denied"]
    assert [(r["method"], r["key"]) for r in found] == [("/etcdserverpb.Watch/Watch", b"/id6")] * 3


def test_a_certificate_that_is_no_identity_is_recorded_with_the_exact_reason(
    alone: MemberCluster,
) -> None:
    """TLS takes an old leaf's chain, our rules do not take the kind of identity."""
    pair = alone.user("m9", kind="server")
    before = len(stream(alone.members[0]))
    creds = grpc.ssl_channel_credentials(
        (alone.pki / "ca-server.pem").read_bytes(),
        Path(f"{pair}.key").read_bytes(),
        Path(f"{pair}.pem").read_bytes(),
    )
    target = alone.members[0].client_url.removeprefix("https://")
    with grpc.secure_channel(target, creds, options=[("grpc.enable_http_proxy", 0)]) as made:
        call = rpc_pb2_grpc.KVStub(made).Range
        code, _ = refusal(lambda: call(rpc.RangeRequest(key=b"a"), timeout=3))
    assert code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    deadline = time.monotonic() + 5
    while not (found := stream(alone.members[0])[before:]):  # an alert waits for nobody
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {r["event"] for r in found} == {"tls.refused"}
    assert all(r["detail"].startswith("certificate refused: ") for r in found)
    assert all(r["who"]["ip"] == "127.0.0.1" and r["detail"] for r in found)


def test_zz_no_record_holds_a_secret(alone: MemberCluster) -> None:
    """Last of this file: everything above was recorded."""
    member = alone.members[0]
    member.kill(signal.SIGTERM)
    records = stream(member)
    assert events(records)[-1] == "stop"
    text = repr(records) + member.log_text()
    for secret in ("long enough", "wrong wrong", "unseen", "n16-nobody"):
        assert secret not in text
