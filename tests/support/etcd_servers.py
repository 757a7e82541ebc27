"""etcd 3.4.23 and a member of ours under --insecure-dev, side by side on loopback.

Both start on empty directories with the same kind of command line, so that revisions agree from
1 on. Where etcd cannot be had, the tests that need it are skipped and say so loudly.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from bench.frames import BenchFault
from bench.tools import etcd as etcd_binary
from tests.support.members import free_ports

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0


@dataclass(frozen=True)
class Tls:
    """Files of both ends; the same for both servers."""

    cert: Path
    key: Path
    ca: Path  # of client certificates
    server_ca: Path
    client_cert: Path
    client_key: Path

    def flags(self) -> list[str]:
        return [
            f"--cert-file={self.cert}", f"--key-file={self.key}",
            f"--trusted-ca-file={self.ca}", "--client-cert-auth",
        ]  # fmt: skip

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.server_ca.read_bytes(),
            self.client_key.read_bytes(),
            self.client_cert.read_bytes(),
        )


class Running:
    """One server process and a channel to it."""

    def __init__(self, name: str, program: Sequence[str], root: Path, tls: Tls | None) -> None:
        self.name = name
        client, peer = free_ports(2)
        scheme = "https" if tls else "http"
        self.target = f"127.0.0.1:{client}"
        self.url = f"{scheme}://{self.target}"
        peer_url = f"http://127.0.0.1:{peer}"
        self.log = root / f"{name}.log"
        self._tls = tls
        argv = [
            *program,
            f"--data-dir={root / name}",
            f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            *(tls.flags() if tls else ()),
        ]  # fmt: skip
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("CONFIGSVC_", "ETCD"))}
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self) -> None:
        until = time.monotonic() + READY_S
        while b"ready to serve" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > until:
                text = self.log.read_text(errors="replace")
                raise AssertionError(f"{self.name} did not start:\n{text[-2000:]}")
            time.sleep(0.05)

    def channel(self) -> grpc.Channel:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
        if self._tls is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, self._tls.credentials(), options)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


def find_etcd() -> Path:
    """The oracle's binary, or a loud skip."""
    try:
        return etcd_binary()
    except BenchFault as fault:
        pytest.skip(f"NOTHING WAS COMPARED WITH ETCD: {fault}")


@contextlib.contextmanager
def both(
    root: Path, tls: Tls | None = None, flags: Sequence[str] = ()
) -> Iterator[tuple[Running, Running]]:
    """(etcd, ours), both ready; ended with the block."""
    oracle = find_etcd()
    ours = [sys.executable, "-m", "configsvc.cli.configsvc", "--insecure-dev"]
    started: list[Running] = []
    try:
        started.append(Running("etcd", [str(oracle), *flags], root, tls))
        started.append(Running("ours", [*ours, *flags], root, tls))
        for server in started:
            server.wait_ready()
        yield started[0], started[1]
    finally:
        for server in started:
            server.stop()
