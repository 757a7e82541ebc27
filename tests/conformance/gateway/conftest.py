"""One real member with mutual TLS: root, alice who may use ``app/``, bob who may nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from configsvc.cli.devcluster import cluster, processes
from configsvc.cli.devcluster.layout import Layout
from tests.support.gateway_client import JsonClient, b64
from tests.support.members import free_port_pair

PORT = free_port_pair()


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    made = Layout(tmp_path_factory.mktemp("gateway"), 1, PORT)
    cluster.prepare_keys(made)
    cluster.check_ports(made)
    with made.log_file("m1").open("wb") as log:
        process = subprocess.Popen(
            cluster.member_argv(made, made.members[0]), stdout=log, stderr=log, cwd=made.root
        )
    pid_file = made.pid_file("m1")
    pid_file.write_text(f"{process.pid} {processes.start_time(process.pid)}\n")
    try:
        cluster.wait_healthy(made)
        yield made
    finally:
        process.terminate()
        process.wait(10)


def identity(layout: Layout, user: str) -> JsonClient:
    return JsonClient(PORT, layout.pki, layout.users / user)


@pytest.fixture(scope="session")
def root(layout: Layout) -> Iterator[JsonClient]:
    client = identity(layout, "root")
    for path, body in (
        ("role/add", {"name": "app"}),
        (
            "role/grant",
            {
                "name": "app",
                "perm": {"permType": "READWRITE", "key": b64("app/"), "range_end": b64("app0")},
            },
        ),
        ("user/add", {"name": "alice", "options": {"no_password": True}}),
        ("user/grant", {"user": "alice", "role": "app"}),
        ("user/add", {"name": "bob", "password": "a long enough one"}),
    ):
        answer = client.call(f"/v3/auth/{path}", body)
        assert answer.status == 200, answer
    yield client
    client.close()


@pytest.fixture(scope="session")
def alice(layout: Layout, root: JsonClient) -> Iterator[JsonClient]:
    client = identity(layout, "alice")
    yield client
    client.close()


@pytest.fixture(scope="session")
def bob(layout: Layout, root: JsonClient) -> Iterator[JsonClient]:
    client = identity(layout, "bob")
    yield client
    client.close()


@pytest.fixture(scope="session")
def channel_of(layout: Layout, root: JsonClient) -> Iterator[Callable[[str], grpc.Channel]]:
    made: list[grpc.Channel] = []

    def connect(user: str) -> grpc.Channel:
        pair: Path = layout.users / user
        credentials = grpc.ssl_channel_credentials(
            (layout.pki / "ca-server.pem").read_bytes(),
            Path(f"{pair}.key").read_bytes(),
            Path(f"{pair}.pem").read_bytes(),
        )
        made.append(grpc.secure_channel(f"127.0.0.1:{PORT}", credentials))
        return made[-1]

    yield connect
    for channel in made:
        channel.close()
