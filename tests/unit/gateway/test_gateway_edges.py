"""Routes, header fields, origins: what stands before a handler."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from configsvc.config import ServerConfig, TlsSettings
from configsvc.errors import InvalidArgumentError, InvalidAuthTokenError
from configsvc.gateway.metadata import metadata_of
from configsvc.gateway.origin import ForeignHostError, ForeignOriginError, OriginGuard
from configsvc.gateway.routes import ROUTES

WIRE = Path(__file__).parents[2] / "wire" / "etcd-v3.json"


def test_routes_are_those_of_the_wire_description() -> None:
    expected = {}
    for package, content in json.loads(WIRE.read_text())["packages"].items():
        for service, rpcs in content.get("services", {}).items():
            for name, rpc in rpcs.items():
                for binding in rpc["http"]:
                    assert binding["body"] == "*"
                    path = binding["post"]
                    expected[path] = expected[path.replace("/v3/", "/v3beta/")] = (
                        f"/{package}.{service}/{name}"
                    )
    assert len(expected) > 90
    assert expected == ROUTES


# --- metadata -------------------------------------------------------------------------------------

REASON = "größer".encode()


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ([(b"authorization", b"Bearer t")], [(b"authorization", b"Bearer t")]),
        ([(b"user-agent", b"curl/8")], [(b"user-agent", b"curl/8")]),
        ([(b"grpcgateway-accept", b"*/*")], [(b"grpcgateway-accept", b"*/*")]),
        ([(b"grpcgateway-user-agent", b"x")], [(b"grpcgateway-user-agent", b"x")]),
        ([(b"hasleader", b"true"), (b"x-change-reason", b"r"), (b"cookie", b"c")], []),
        ([(b"grpc-metadata-hasleader", b"true")], [(b"hasleader", b"true")]),
        ([(b"grpc-metadata-x-change-ticket", b"T-1")], [(b"x-change-ticket", b"T-1")]),
        (
            [(b"grpc-metadata-x-change-reason-bin", base64.b64encode(REASON).rstrip(b"="))],
            [(b"x-change-reason-bin", REASON)],
        ),
        ([(b"grpc-metadata-grpcgateway-user", b"root"), (b"grpc-metadata-x", b"y")], []),
        ([(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-client-cert", b"root")], []),
        (
            [(b"authorization", b"Bearer t"), (b"grpc-metadata-token", b"t")],
            [(b"authorization", b"Bearer t")],
        ),
    ],
)
def test_a_closed_list_of_fields_passes(
    headers: list[tuple[bytes, bytes]], passed: list[tuple[bytes, bytes]]
) -> None:
    assert metadata_of(tuple(headers)).fields == tuple(passed)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"grpc-metadata-token", b"t")],
        [(b"grpc-metadata-authorization", b"t")],
        [(b"token", b"t")],
        [(b"authorization", b"a"), (b"token", b"b")],
        [(b"authorization", b"a"), (b"grpc-metadata-authorization", b"Bearer b")],
        [(b"authorization", b"a"), (b"authorization", b"a"), (b"token", b"a")],
    ],
)
def test_no_other_field_is_an_identity(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidAuthTokenError):
        metadata_of(tuple(headers))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"5S", 5.0), (b"100m", 0.1), (b"2H", 7200.0), (b"3M", 180.0), (b"10u", 1e-5), (b"0n", 0.0)],
)
def test_timeouts(value: bytes, seconds: float) -> None:
    assert metadata_of(((b"grpc-timeout", value),)).timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "field",
    [
        (b"grpc-timeout", b"5"),
        (b"grpc-timeout", b"-1S"),
        (b"grpc-timeout", b"123456789S"),
        (b"grpc-timeout", b""),
        (b"grpc-metadata-x-change-reason-bin", b"***"),
    ],
)
def test_fields_that_cannot_be_read(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(InvalidArgumentError):
        metadata_of((field,))


# --- origin ---------------------------------------------------------------------------------------


def certificate(path: Path, *names: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
        builder = builder.add_extension(san, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(pem)


@pytest.fixture
def guard(tmp_path: Path) -> OriginGuard:
    certificate(tmp_path / "server.pem", "db.example.com", "*.pods.example.com")
    return OriginGuard(
        ServerConfig(
            listen_client_urls=("https://Config.example.com:2379",),
            advertise_client_urls=("https://vip.example.com:443",),
            client_tls=TlsSettings(cert_file=str(tmp_path / "server.pem")),
        )
    )


@pytest.mark.parametrize(
    "host",
    [
        b"config.example.com:2379",
        b"CONFIG.example.com",
        b"config.example.com.:2379",
        b"vip.example.com",
        b"localhost:12379",
        b"127.0.0.1:2379",
        b"10.1.2.3",
        b"[::1]:2379",
        b"db.example.com:2379",
        b"a.pods.example.com",
    ],
)
def test_hosts_of_ours(guard: OriginGuard, host: bytes) -> None:
    guard.check(((b"host", host),))
    guard.check(((b"host", host), (b"origin", b"https://" + host), (b"sec-fetch-site", b"none")))


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"evil.example",
        b"config.example.com.evil.example",
        b"a.b.pods.example.com",
        b"pods.example.com",
        b"localhost:80@evil.example",
        b"127.0.0.1.evil.example",
        b"2130706433",
        b"\xc3\xa9.example.com",
        b"[::1]evil",
    ],
)
def test_foreign_hosts(guard: OriginGuard, host: bytes) -> None:
    with pytest.raises(ForeignHostError):
        guard.check(((b"host", host),))


def test_a_host_is_named_once(guard: OriginGuard) -> None:
    for headers in ((), ((b"host", b"localhost"), (b"host", b"localhost"))):
        with pytest.raises(ForeignHostError):
            guard.check(headers)


@pytest.mark.parametrize(
    "field",
    [
        (b"origin", b"null"),
        (b"origin", b"https://evil.example"),
        (b"origin", b"https://localhost:99"),
        (b"origin", b"https://localhost"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"same-site"),
        (b"sec-fetch-site", b""),
    ],
)
def test_pages_of_others(guard: OriginGuard, field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ForeignOriginError):
        guard.check(((b"host", b"localhost:2379"), field))


def test_a_new_certificate_brings_its_names(guard: OriginGuard, tmp_path: Path) -> None:
    with pytest.raises(ForeignHostError):
        guard.check(((b"host", b"new.example.com"),))
    certificate(tmp_path / "next.pem", "new.example.com")
    (tmp_path / "next.pem").rename(tmp_path / "server.pem")
    guard.check(((b"host", b"new.example.com"),))
    with pytest.raises(ForeignHostError):
        guard.check(((b"host", b"db.example.com"),))


def test_without_a_readable_certificate_only_urls_count(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("none")
    for path in (str(bad), "", str(tmp_path / "missing.pem")):
        guard = OriginGuard(ServerConfig(client_tls=TlsSettings(cert_file=path)))
        guard.check(((b"host", b"localhost:2379"),))
        with pytest.raises(ForeignHostError):
            guard.check(((b"host", b"db.example.com"),))
