"""Every flag of etcd from every source: ours, noted with a line, or refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from configsvc.errors import ConfigError
from configsvc.server.flags import parse
from configsvc.server.foreign import FOREIGN, GATES

BASE = {
    "name": "m1", "data-dir": "/d", "encryption-key-file": "/k",
    "listen-client-urls": "https://127.0.0.1:1", "listen-peer-urls": "https://127.0.0.1:2",
    "cert-file": "c", "key-file": "k", "trusted-ca-file": "t",
    "peer-cert-file": "c", "peer-key-file": "k", "peer-trusted-ca-file": "t",
}  # fmt: skip

# What etcd's documentation of its flags lists, with a value that scripts give: taken as ours.
OURS = {
    "name": "m1", "data-dir": "/x", "listen-client-urls": "https://127.0.0.1:5",
    "advertise-client-urls": "https://127.0.0.1:5", "listen-peer-urls": "https://127.0.0.1:2",
    "listen-client-http-urls": "https://127.0.0.1:6",
    "listen-metrics-urls": "https://127.0.0.1:7", "heartbeat-interval": "100",
    "election-timeout": "1000", "snapshot-count": "10000", "snapshot-catchup-entries": "5000",
    "quota-backend-bytes": "0", "auto-compaction-mode": "revision",
    "auto-compaction-retention": "0", "max-txn-ops": "128", "max-request-bytes": "1572864",
    "max-concurrent-streams": "1000", "watch-progress-notify-interval": "10m",
    "initial-cluster": "m1=https://127.0.0.1:2", "initial-cluster-state": "new",
    "initial-cluster-token": "t", "initial-advertise-peer-urls": "https://127.0.0.1:2",
    "strict-reconfig-check": "true", "max-learners": "1", "force-new-cluster": "false",
    "unsafe-no-fsync": "false", "cert-file": "c", "key-file": "k", "trusted-ca-file": "t",
    "client-crl-file": "r", "peer-cert-file": "c", "peer-key-file": "k",
    "peer-trusted-ca-file": "t", "peer-crl-file": "r", "tls-min-version": "TLS1.3",
    "log-level": "info", "experimental-watch-progress-notify-interval": "1s",
    "experimental-max-learners": "2", "experimental-snapshot-catch-up-entries": "9",
}  # fmt: skip

# Noted in the secure mode, with the value that is etcd's default or that scripts give.
NOTED = {
    "initial-election-tick-advance": "true", "pre-vote": "true", "max-wals": "5",
    "backend-batch-interval": "0", "backend-batch-limit": "0",
    "backend-bbolt-freelist-type": "map", "compaction-batch-limit": "0",
    "compaction-sleep-interval": "0", "grpc-keepalive-min-time": "5s",
    "grpc-keepalive-interval": "2h", "grpc-keepalive-timeout": "20s",
    "socket-reuse-port": "false", "socket-reuse-address": "false", "memory-mlock": "false",
    "bootstrap-defrag-threshold-megabytes": "0", "raft-read-timeout": "5s",
    "raft-write-timeout": "5s", "client-cert-auth": "true", "peer-client-cert-auth": "true",
    "client-cert-file": "c", "client-key-file": "k", "peer-client-cert-file": "c",
    "peer-client-key-file": "k", "auto-tls": "false", "peer-auto-tls": "false",
    "peer-skip-client-san-verification": "false", "self-signed-cert-validity": "1",
    "tls-max-version": "TLS1.3", "auth-token-ttl": "300", "bcrypt-cost": "10",
    "logger": "zap", "log-outputs": "default", "log-format": "json",
    "enable-log-rotation": "false", "log-rotation-config-json": "{}", "enable-pprof": "false",
    "metrics": "basic", "enable-grpc-gateway": "true", "enable-distributed-tracing": "false",
    "distributed-tracing-address": "localhost:4317", "distributed-tracing-service-name": "etcd",
    "distributed-tracing-instance-id": "i", "distributed-tracing-sampling-rate": "0",
    "warning-apply-duration": "100ms", "warning-unary-request-duration": "300ms",
    "corrupt-check-time": "0s", "compact-hash-check-time": "1m", "downgrade-check-time": "5s",
    "feature-gates": "CompactHashCheck=true,LeaseCheckpoint=true", "discovery-cert": "c",
    "discovery-key": "k", "discovery-cacert": "t", "discovery-user": "u",
    "discovery-password": "p", "discovery-dial-timeout": "2s",
    "discovery-request-timeout": "5s", "discovery-keepalive-time": "2s",
    "discovery-keepalive-timeout": "6s", "discovery-insecure-transport": "true",
    "discovery-fallback": "exit",
    "experimental-initial-corrupt-check": "true", "experimental-corrupt-check-time": "0s",
    "experimental-warning-apply-duration": "1s", "experimental-compaction-batch-limit": "9",
    "experimental-bootstrap-defrag-threshold-megabytes": "0",
    "experimental-peer-skip-client-san-verification": "false",
    "experimental-memory-mlock": "false", "experimental-compact-hash-check-enabled": "true",
    "experimental-enable-lease-checkpoint": "true",
    "experimental-enable-lease-checkpoint-persist": "true",
    "experimental-txn-mode-write-with-shared-buffer": "true",
    "experimental-enable-distributed-tracing": "false",
    "experimental-distributed-tracing-address": "a",
    "experimental-distributed-tracing-service-name": "s",
    "experimental-distributed-tracing-instance-id": "i",
    "experimental-distributed-tracing-sampling-rate": "0", "max-snapshots": "5",
    "enable-v2": "true", "experimental-enable-v2v3": "/x", "proxy": "off",
    "proxy-failure-wait": "1", "proxy-refresh-interval": "1", "proxy-dial-timeout": "1",
    "proxy-write-timeout": "1", "proxy-read-timeout": "1",
    "cluster-active-size": "1", "cluster-remove-delay": "1", "cluster-sync-interval": "1",
    "config": "x", "force": "true", "max-result-buffer": "1", "max-retry-attempts": "1",
    "peer-heartbeat-interval": "1", "peer-election-timeout": "1", "retry-interval": "1",
    "snapshot": "true", "v": "true", "vv": "true",
}  # fmt: skip

# Refused in the secure mode, and whether --insecure-dev merely notes it.
REFUSED = {
    "wal-dir": ("/w", True), "client-cert-auth": ("false", False),
    "peer-client-cert-auth": ("false", True), "client-cert-allowed-hostname": ("h", True),
    "peer-cert-allowed-cn": ("n", True), "peer-cert-allowed-hostname": ("h", True),
    "peer-skip-client-san-verification": ("true", True),
    "experimental-peer-skip-client-san-verification": ("true", True),
    "cipher-suites": ("TLS_RSA_WITH_AES_128_CBC_SHA", True), "tls-max-version": ("TLS1.2", True),
    "cors": ("*", True), "host-whitelist": ("*", True), "auth-token": ("simple", True),
    "auth-token-ttl": ("60", True), "enable-pprof": ("true", True), "auto-tls": ("true", False),
    "peer-auto-tls": ("true", False), "pre-vote": ("false", False), "proxy": ("on", False),
    "discovery": ("https://d", False), "discovery-proxy": ("p", False),
    "discovery-srv": ("example.org", False), "discovery-srv-name": ("n", False),
    "discovery-endpoints": ("https://d:1", False), "discovery-token": ("t", False),
    "discovery-fallback": ("proxy", False), "feature-gates": ("NoSuchGate=true", False),
}  # fmt: skip
OURS_INSECURE = ("client-cert-auth", "auth-token", "auth-token-ttl")  # there they count
SOURCES = ("flag", "variable", "file")


def given(source: str, name: str, value: str, tmp_path: Path, more: dict[str, str]) -> list[str]:
    """The lines that the log would have of a start with one more setting from ``source``."""
    settings = {n: v for n, v in {**BASE, **more}.items() if n != name}
    argv = [f"--{n}={v}" for n, v in settings.items()]
    environ: dict[str, str] = {}
    if source == "flag":
        argv.append(f"--{name}={value}")
    elif source == "variable":
        environ["CONFIGSVC_" + name.upper().replace("-", "_")] = value
    else:
        path = tmp_path / "member.toml"
        path.write_text(f"{name} = '{value}'\n")
        argv.append(f"--config-file={path}")
    return [w for w in parse(argv, environ).warnings if f"--{name} " in w]


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_ours_is_taken_without_a_line(source: str, tmp_path: Path) -> None:
    for name, value in OURS.items():
        assert given(source, name, value, tmp_path, {"data-dir": "/x"}) in (
            [],
            ["--advertise-client-urls is not given: the listen URLs are advertised"],
        ), name


@pytest.mark.parametrize("source", SOURCES)
def test_what_changes_nothing_is_noted_with_a_line(source: str, tmp_path: Path) -> None:
    for name, value in NOTED.items():
        lines = given(source, name, value, tmp_path, {})
        assert len(lines) == 1, name
        assert lines[0].startswith(f"--{name} is ignored"), name


@pytest.mark.parametrize("source", SOURCES)
def test_what_would_make_another_member_is_refused_by_name(source: str, tmp_path: Path) -> None:
    for name, (value, _) in REFUSED.items():
        with pytest.raises(ConfigError, match=f"--{name}") as caught:
            given(source, name, value, tmp_path, {})
        assert caught.value.code == 78


@pytest.mark.parametrize("name", [n for n in REFUSED if n not in OURS_INSECURE])
def test_the_insecure_mode_notes_what_it_can(name: str, tmp_path: Path) -> None:
    value, noted = REFUSED[name]
    dev = {"insecure-dev": "true"}
    if noted:
        lines = given("flag", name, value, tmp_path, dev)
        assert len(lines) == 1
        assert "ignored under --insecure-dev" in lines[0]
    else:
        with pytest.raises(ConfigError, match=f"--{name}"):
            given("flag", name, value, tmp_path, dev)


def test_no_foreign_flag_is_missing_from_these_tables() -> None:
    assert set(NOTED) | set(REFUSED) == FOREIGN
    assert not set(OURS) & FOREIGN


@pytest.mark.parametrize("source", SOURCES)
def test_a_switch_that_leaves_servers_unchecked_has_no_name_here(
    source: str, tmp_path: Path
) -> None:
    name = "discovery-insecure-skip-tls-verify"
    with pytest.raises(ConfigError, match=f"unknown .*(?i:{name.replace('-', '[-_]')})"):
        given(source, name, "false", tmp_path, {})


def test_a_bare_foreign_flag_takes_the_word_after_it() -> None:
    argv = [f"--{n}={v}" for n, v in BASE.items()]
    lines = parse([*argv, "--logger", "zap", "--enable-v2", "--max-wals", "9"], {}).warnings
    assert [w.partition(" ")[0] for w in lines[-4:] if "ignored" in w] == [
        "--logger", "--enable-v2", "--max-wals",
    ]  # fmt: skip


def test_a_flag_and_its_variable_contradict_for_foreign_ones_too() -> None:
    argv = [f"--{n}={v}" for n, v in BASE.items()]
    with pytest.raises(ConfigError, match="contradict"):
        parse([*argv, "--max-wals=9"], {"CONFIGSVC_MAX_WALS": "8"})


def test_every_known_gate_is_noted() -> None:
    argv = [f"--{n}={v}" for n, v in BASE.items()]
    for gate in GATES:
        assert any(gate in w for w in parse([*argv, f"--feature-gates={gate}=false"], {}).warnings)


def test_an_old_name_of_ours_sets_ours() -> None:
    argv = [f"--{n}={v}" for n, v in BASE.items()]
    assert parse([*argv, "--experimental-max-learners=3"], {}).config.max_learners == 3


def test_login_by_common_name_is_the_insecure_modes_only() -> None:
    argv = [f"--{n}={v}" for n, v in BASE.items()]
    assert parse([*argv, "--client-cert-auth"], {}).config.client_cert_auth is False
    dev = [*argv, "--insecure-dev", "--client-cert-auth"]
    assert parse(dev, {}).config.client_cert_auth is True
    with pytest.raises(ConfigError, match="trusted-ca-file"):
        parse([*dev, "--trusted-ca-file="], {})
