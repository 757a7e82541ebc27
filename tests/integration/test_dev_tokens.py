"""A16, A17: a token of etcd's kinds that one member gave is good on all, under --insecure-dev."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from configsvc.proto import rpc_pb2
from tests.support.members import free_ports
from tests.support.waiting import until

READY_S = 60.0
BAD = "etcdserver: invalid auth token"
OLD = "etcdserver: revision of auth store is old"


class DevCluster:
    """Three members in plaintext on loopback."""

    def __init__(self, root: Path, *flags: str) -> None:
        self._root = root
        self._flags = flags
        ports = free_ports(6)
        self._targets = [f"127.0.0.1:{port}" for port in ports[:3]]
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        self._starts = [0, 0, 0]
        self._running: list[subprocess.Popen[bytes]] = []
        options = [("grpc.enable_http_proxy", 0)]
        self._channels = [grpc.insecure_channel(t, options) for t in self._targets]

    def start(self) -> None:
        for i in range(3):
            self._running.append(self._start(i))
        for i in range(3):
            self._wait_ready(i)

    def _start(self, i: int) -> subprocess.Popen[bytes]:
        client, peer = f"http://{self._targets[i]}", self._peers[i]
        self._starts[i] += 1
        argv = [
            sys.executable, "-m", "configsvc.cli.configsvc", "--insecure-dev", f"--name=m{i}",
            f"--data-dir={self._root / f'm{i}'}", f"--listen-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            "--initial-cluster=" + ",".join(f"m{n}={u}" for n, u in enumerate(self._peers)),
            *self._flags,
        ]  # fmt: skip
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CONFIGSVC_")}
        with (self._root / f"m{i}.log").open("ab") as sink:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environ
            )

    def _wait_ready(self, i: int) -> None:
        deadline = time.monotonic() + READY_S
        log = self._root / f"m{i}.log"
        while log.read_bytes().count(b"ready to serve") < self._starts[i]:
            assert self._running[i].poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)

    def restart(self, i: int) -> None:
        self._running[i].terminate()
        self._running[i].wait(30)
        self._running[i] = self._start(i)
        self._wait_ready(i)

    def pause(self, i: int) -> None:
        self._running[i].send_signal(signal.SIGSTOP)

    def has_unread(self, i: int) -> bool:
        """Whether the kernel holds bytes of a client that the member has not read."""
        port = int(self._targets[i].rpartition(":")[2])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if local.endswith(f":{port:04X}") and int(queues.partition(":")[2], 16):
                return True
        return False

    def resume(self, i: int) -> None:
        self._running[i].send_signal(signal.SIGCONT)

    def follower(self, token: str) -> int:
        """A member that does not lead."""
        status = self.call(0, "Maintenance.Status", token)
        assert isinstance(status, rpc_pb2.StatusResponse)
        return 1 if status.leader == status.header.member_id else 0

    def call(self, i: int, method: str, token: str = "", **fields: object) -> object:
        """The answer, or the text of the error."""
        service, _, name = method.partition(".")
        kind = rpc_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[name]
        request, answer = (getattr(rpc_pb2, t.name) for t in (kind.input_type, kind.output_type))
        call = self._channels[i].unary_unary(
            f"/etcdserverpb.{service}/{name}", request.SerializeToString, answer.FromString
        )
        metadata = (("token", token),) if token else None
        try:
            return call(request(**fields), timeout=20, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.details()

    def login(self, i: int, name: str, password: str = "") -> str:
        answer = self.call(i, "Auth.Authenticate", name=name, password=password or name)
        return str(getattr(answer, "token", answer))

    def puts(self, token: str) -> list[str]:
        """What each member says to a put: an error's text, or nothing."""
        answers = [self.call(i, "KV.Put", token, key=b"a", value=b"1") for i in range(3)]
        return [a if isinstance(a, str) else "" for a in answers]

    def enable_auth(self) -> None:
        self.call(0, "Auth.UserAdd", name="root", password="root")
        self.call(0, "Auth.UserGrantRole", user="root", role="root")
        self.call(0, "Auth.AuthEnable")

    def stop(self) -> None:
        for channel in self._channels:
            channel.close()
        for process in self._running:
            process.kill()
            process.wait(10)


def jwt_flag(root: Path) -> str:
    key = root / "jwt.key"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    return f"--auth-token=jwt,sign-method=ES256,priv-key={key}"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path, *([jwt_flag(tmp_path)] if request.param == "jwt" else []))
    try:
        made.start()
        made.enable_auth()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("cluster", ["simple"], indirect=True)
def test_a_simple_token_is_known_everywhere_until_its_password_goes(cluster: DevCluster) -> None:
    token = cluster.login(0, "root")
    assert cluster.puts(token) == ["", "", ""]
    cluster.call(1, "Auth.RoleAdd", token, name="r")
    assert cluster.puts(token) == ["", "", ""]  # valid across changes of rights
    cluster.restart(1)
    assert cluster.puts(token) == ["", BAD, ""]  # nothing is written down
    token = cluster.login(1, "root")
    assert cluster.puts(token) == ["", "", ""]
    cluster.call(2, "Auth.UserChangePassword", token, name="root", password="root")
    # The same password, but a new hash. A member that has yet to apply it lets the call in, and
    # the log refuses it; the caller sees no difference.
    assert cluster.puts(token) == [BAD] * 3


@pytest.mark.parametrize("cluster", ["simple"], indirect=True)
def test_a_member_that_is_behind_waits_for_the_index_of_a_token(cluster: DevCluster) -> None:
    """The password is one that the member has not heard of when the call comes in."""
    token = cluster.login(2, "root")
    assert cluster.puts(token) == [
        "",
        "",
        "",
    ]  # every channel is open: what is asked leaves at once
    behind = cluster.follower(token)
    cluster.pause(behind)
    try:
        changed = cluster.call(2, "Auth.UserChangePassword", token, name="root", password="new")
        assert not isinstance(changed, str)
        token = cluster.login(2, "root", "new")
        with ThreadPoolExecutor(1) as pool:
            put = pool.submit(cluster.call, behind, "KV.Put", token, key=b"a")
            until(lambda: cluster.has_unread(behind), "the put lies before the member")
            cluster.resume(behind)
            assert not isinstance(put.result(20), str)
    finally:
        cluster.resume(behind)


@pytest.mark.parametrize("cluster", ["jwt"], indirect=True)
def test_a_jwt_is_good_everywhere_until_auth_changes(cluster: DevCluster) -> None:
    token = cluster.login(0, "root")
    assert cluster.puts(token) == ["", "", ""]
    cluster.restart(1)
    assert cluster.puts(token) == ["", "", ""]
    cluster.call(1, "Auth.RoleAdd", token, name="r")
    assert cluster.puts(token) == [OLD] * 3
