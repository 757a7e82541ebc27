"""Mutual TLS with our own certificates, against gRPC's server."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from configsvc.client import (
    Client,
    ClientSettings,
    EndpointError,
    OutcomeUnknownError,
    TlsFiles,
    UnavailableError,
    parse_endpoints,
)
from configsvc.client.tls import is_private
from configsvc.identity.pki import init_pki, issue
from configsvc.net import contexts as net
from tests.support.fake_cluster import FakeCluster


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    init_pki(directory, "test.example", development=True)
    issue(directory, "server", "m1", ips=["127.0.0.1"])
    issue(directory, "server", "elsewhere", dns=["other.example"])
    issue(directory, "user", "alice")
    issue(directory, "member", "00000000000000ab")
    return directory


def server(pki: Path, name: str) -> FakeCluster:
    pair = ((pki / f"{name}.key").read_bytes(), (pki / f"{name}.pem").read_bytes())
    roots = (pki / "ca-client.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=True)
    return FakeCluster(1, credentials)


@pytest.fixture
def cluster(pki: Path) -> Iterator[FakeCluster]:
    with server(pki, "server-m1") as running:
        yield running


def settings(cluster: FakeCluster, pki: Path, ca: str, leaf: str) -> ClientSettings:
    files = TlsFiles(
        str(pki / f"{ca}.pem"),
        str(pki / f"{leaf}.pem") if leaf else "",
        str(pki / f"{leaf}.key") if leaf else "",
    )
    return ClientSettings(parse_endpoints(cluster.urls), files, timeout_s=3.0)


def put(settings: ClientSettings) -> None:
    with Client(settings) as client:
        client.put(b"a", b"1")


def test_both_sides_prove_themselves(cluster: FakeCluster, pki: Path) -> None:
    with Client(settings(cluster, pki, "ca-server", "user-alice")) as client:
        assert client.put(b"a", b"1").header.revision == 2


@pytest.mark.parametrize("ca", ["ca-peer", "ca-client"])
def test_a_server_of_another_authority_is_refused(cluster: FakeCluster, pki: Path, ca: str) -> None:
    with pytest.raises(UnavailableError):  # and not "outcome unknown": nothing was sent
        put(settings(cluster, pki, ca, "user-alice"))


def test_a_server_with_another_name_is_refused(pki: Path) -> None:
    with server(pki, "server-elsewhere") as cluster, pytest.raises(UnavailableError):
        put(settings(cluster, pki, "ca-server", "user-alice"))


@contextlib.contextmanager
def listener(pki: Path, name: str) -> Iterator[str]:
    """TLS as members have it: whom it does not take is told why."""
    files = net.TlsFiles(
        str(pki / f"{name}.pem"), str(pki / f"{name}.key"), str(pki / "ca-client.pem")
    )
    context = net.server_context(files, alpn=net.ALPN_CLIENT_PORT)
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the door is shut
                while True:
                    one, _ = door.accept()
                    one.settimeout(5)
                    with contextlib.suppress(OSError), context.wrap_socket(one, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{door.getsockname()[1]}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


CONFIGCTL = "import sys; from configsvc.cli.configctl import main; sys.exit(main())"


def test_what_tls_failed_for_is_one_line_of_ours(pki: Path, tmp_path: Path) -> None:
    """The library's own words say nothing to people, and its core says them a dozen times."""
    now = int(time.time())
    issue(pki, "user", "late", lifetime_s=60, now=now - 120)
    issue(pki, "server", "old", ips=["127.0.0.1"], lifetime_s=60, now=now - 120)
    init_pki(tmp_path / "other", "test.example")
    cases = (
        ("server-m1", "user-late", "ca-server", "user-late.pem ended at "),
        ("server-m1", "", "ca-server", "none was given: --cert, --key"),
        ("server-m1", "member-00000000000000ab", "ca-server", "of another authority"),
        ("server-m1", "user-alice", "other", "not issued by the given CA bundle"),
        ("server-old", "user-alice", "ca-server", "has expired"),
        ("server-elsewhere", "user-alice", "ca-server", "not for this host name"),
    )
    for of, leaf, ca, said in cases:
        with listener(pki, of) as url:
            bundle = tmp_path / "other" / "ca-server.pem" if ca == "other" else pki / f"{ca}.pem"
            argv = ["--endpoints", url, "--cacert", str(bundle)]
            if leaf:
                argv += ["--cert", str(pki / f"{leaf}.pem"), "--key", str(pki / f"{leaf}.key")]
            ran = subprocess.run(
                [sys.executable, "-c", CONFIGCTL, "get", "/a", "--timeout", "3s", *argv],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert ran.returncode == 4, ran
        assert said in ran.stderr
        assert len(ran.stderr.splitlines()) == 1, ran.stderr


@pytest.mark.parametrize("leaf", ["", "member-00000000000000ab"])
def test_a_client_without_an_acceptable_certificate_gets_no_answer(
    cluster: FakeCluster, pki: Path, leaf: str
) -> None:
    with pytest.raises((UnavailableError, OutcomeUnknownError)):
        put(settings(cluster, pki, "ca-server", leaf))
    assert not cluster.store.events


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    cluster: FakeCluster, pki: Path, tmp_path: Path
) -> None:
    for name in ("user-alice.pem", "user-alice.key", "ca-server.pem"):
        shutil.copy(pki / name, tmp_path / name)
    with Client(settings(cluster, tmp_path, "ca-server", "user-alice")) as client:
        client.put(b"a", b"1")
        issue(pki, "user", "alice", out=tmp_path)
        client.reload_tls()
        client.put(b"a", b"2")
        (tmp_path / "user-alice.pem").unlink()
        with pytest.raises(EndpointError):
            client.reload_tls()
        client.put(b"a", b"3")
    assert cluster.store.live()[b"a"].version == 3


@pytest.mark.parametrize("broken", ["other pair", "no certificate", "no key"])
def test_a_pair_that_does_not_fit_is_refused(
    cluster: FakeCluster, pki: Path, tmp_path: Path, broken: str
) -> None:
    for name in ("user-alice.pem", "user-alice.key", "ca-server.pem"):
        shutil.copy(pki / name, tmp_path / name)
    cert, key = tmp_path / "user-alice.pem", tmp_path / "user-alice.key"
    with Client(settings(cluster, tmp_path, "ca-server", "user-alice")) as client:
        client.put(b"a", b"1")
        if broken == "other pair":
            cert.write_bytes((pki / "server-m1.pem").read_bytes())
        else:
            (cert if broken == "no certificate" else key).write_text("nonsense\n")
        with pytest.raises(EndpointError, match=r"do not belong|no certificate|no private key"):
            client.reload_tls()
        client.put(b"a", b"2")  # on the old connection


def test_plain_endpoint_never_carries_tls_files_silently(pki: Path) -> None:
    with FakeCluster(1) as plain:
        with Client(settings(plain, pki, "ca-server", "user-alice")) as client:
            assert client.get(b"a") is None
        secure = [url.replace("http:", "https:") for url in plain.urls]
        tls = settings(plain, pki, "ca-server", "user-alice").tls
        with pytest.raises(UnavailableError):
            put(ClientSettings(parse_endpoints(secure), tls, timeout_s=2.0))
        assert not plain.store.events


def test_only_valid_issuing_authorities_are_trusted(cluster: FakeCluster, pki: Path) -> None:
    for name in ("root.pem", "user-alice.pem"):  # the root would let in leaves of every kind
        with pytest.raises(EndpointError, match="bundle"):
            put(settings(cluster, pki, name.removesuffix(".pem"), "user-alice"))


class OtherCluster(NamedTuple):
    """An etcd's files: a server, and the CA that clients are given."""

    ca: str
    key: bytes
    cert: bytes

    @classmethod
    def make(cls, folder: Path, *, ends_in_s: int = 3600) -> OtherCluster:
        """As the usual tools do: RSA, one self-signed CA without a path length."""
        now = dt.datetime.now(dt.UTC)
        ca_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("ca", "etcd")]

        def builder(name: x509.Name, of: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder(names[0], name, of.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(hours=2))
                .not_valid_after(now + dt.timedelta(seconds=ends_in_s))
            )

        is_ca = x509.BasicConstraints(ca=True, path_length=None)
        ca = builder(names[0], ca_key).add_extension(is_ca, critical=True)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = builder(names[1], key).add_extension(hosts, critical=False)
        pem = serialization.Encoding.PEM
        path = folder / "other-ca.pem"
        path.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(str(path), private, leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem))


def test_another_clusters_authority_need_not_be_made_as_ours(tmp_path: Path) -> None:
    """A migration speaks to an etcd with whatever CA that has."""
    made = OtherCluster.make(tmp_path)
    credentials = grpc.ssl_server_credentials([(made.key, made.cert)])
    with FakeCluster(1, credentials) as running:
        ends = parse_endpoints(running.urls)
        put(ClientSettings(ends, TlsFiles(made.ca, "", "", foreign=True), timeout_s=3.0))
        assert running.store.events
        with pytest.raises(EndpointError, match="bundle"):
            put(ClientSettings(ends, TlsFiles(made.ca, "", ""), timeout_s=3.0))


def test_another_clusters_authority_must_be_one_in_time(tmp_path: Path) -> None:
    ends = parse_endpoints("https://127.0.0.1:1")
    for text, said in (("nonsense", "no certificate"), ("", "expired")):
        ca = OtherCluster.make(tmp_path, ends_in_s=-60).ca
        if text:
            Path(ca).write_text(text)
        with pytest.raises(EndpointError, match=said):
            put(ClientSettings(ends, TlsFiles(ca, "", "", foreign=True), timeout_s=3.0))


@pytest.mark.parametrize(
    ("mode", "owner", "ours", "private"),
    [
        (0o600, 0, 0, True), (0o400, 7, 7, True), (0o640, 0, 0, False), (0o640, 7, 7, False),
        (0o440, 0, 7, True), (0o640, 0, 7, True), (0o660, 0, 7, False), (0o444, 0, 7, False),
    ],
)  # fmt: skip
def test_root_may_hand_a_key_to_a_group(mode: int, owner: int, ours: int, private: bool) -> None:
    assert is_private(mode, owner, ours) is private


def test_a_key_that_others_may_read_is_refused(
    cluster: FakeCluster, pki: Path, tmp_path: Path
) -> None:
    for name in ("user-alice.pem", "user-alice.key", "ca-server.pem"):
        shutil.copy(pki / name, tmp_path / name)
    (tmp_path / "user-alice.key").chmod(0o640)
    with pytest.raises(EndpointError, match="chmod 600"):
        put(settings(cluster, tmp_path, "ca-server", "user-alice"))
