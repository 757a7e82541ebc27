"""Where foreign clients knock: members in plaintext, with TLS that asks for no certificate, mutual.

The first answers whether bytes are understood, for every client there is; the last, started as an
operator would, whether a client's own TLS gets on with ours. The one between is for those that have
no options for a certificate.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from configsvc.identity.pki import issue_member
from tests.support.members import MemberCluster, make_pki

START_S: Final = 30.0
PLAINTEXT: Final = "plaintext"


class ForeignFault(Exception):
    """What a client did not get, or said."""


class Door(NamedTuple):
    """A member's address, and with mutual TLS the files of root: authorities, certificate, key."""

    address: str
    way: str
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def url(self) -> str:
        return f"{'http' if self.way == PLAINTEXT else 'https'}://{self.address}"

    @property
    def files(self) -> tuple[str, ...]:
        return (self.ca, self.cert, self.key) if self.ca else ()

    def flags(self, ca: str, cert: str, key: str) -> tuple[str, ...]:
        """The files as arguments, each behind the flag of its kind; one without a flag is left."""
        pairs = zip((ca, cert, key), self.files, strict=False)
        return tuple(word for flag, file in pairs if flag for word in (flag, file))


@contextmanager
def _unguarded(port: int, way: str, *flags: str) -> Iterator[Door]:
    """A member without rights, on ``port`` and the next."""
    scheme = "http" if way == PLAINTEXT else "https"
    client, peer = f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("wb") as log:
        argv = [
            *(sys.executable, "-m", "configsvc.cli.configsvc", "--insecure-dev", *flags),
            *("--data-dir", f"{directory}/data", "--initial-cluster", f"default={peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        ]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until = time.monotonic() + START_S
            while b"ready to serve" not in (Path(directory) / "log").read_bytes():
                if process.poll() is not None or time.monotonic() > until:
                    raise ForeignFault((Path(directory) / "log").read_text()[-500:])
                time.sleep(0.1)
            yield Door(f"127.0.0.1:{port}", way)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def plaintext(port: int) -> Iterator[Door]:
    """A single plaintext member."""
    with _unguarded(port, PLAINTEXT) as door:
        yield door


@contextmanager
def one_sided(port: int) -> Iterator[Door]:
    """A single member that shows a certificate and asks for none."""
    with tempfile.TemporaryDirectory() as directory:
        pki, out = make_pki(Path(directory)), Path(directory) / "member"
        issue_member(pki, "m1", 1, dns=("localhost",), ips=("127.0.0.1",), out=out)
        files = ("--cert-file", str(out / "server.pem"), "--key-file", str(out / "server.key"))
        with _unguarded(port, "TLS", *files) as door:
            yield door


@contextmanager
def secure(port: int) -> Iterator[Door]:
    """A single member with mutual TLS and rights, on ``port`` and the next."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        cluster = MemberCluster(root, make_pki(root), 1, [port, port + 1])
        cluster.start()
        try:
            pair = cluster.user("root")
            authorities = str(cluster.pki / "ca-server-chain.pem")
            yield Door(f"127.0.0.1:{port}", "mutual TLS", authorities, f"{pair}.pem", f"{pair}.key")
        finally:
            cluster.stop()
