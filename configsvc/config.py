"""Settings of one member: parsed once, checked as a whole, frozen.

Names follow etcd's flags where the meaning is the same. A setting comes from the command line,
from ``CONFIGSVC_<NAME>`` or from a TOML file (``--config-file``), in that order of precedence;
the same name given as flag and variable with different values is refused. Unknown names are fatal.

Not here: reading argv (``server.flags``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from configsvc.errors import ConfigError

DEFAULT_CLUSTER_TOKEN: Final = "etcd-cluster"  # noqa: S105  # a name, no secret
ADVERTISED_ETCD_VERSION: Final = "3.7.1"  # compat.md D3
SIMPLE_TOKENS: Final = "simple"  # of --auth-token
DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files of one side of the member; empty strings mean "not given"."""

    cert_file: str = ""
    key_file: str = ""
    trusted_ca_file: str = ""
    crl_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One member's settings. Times in seconds unless the name says otherwise."""

    name: str = "default"
    data_dir: str = ""
    key_file: str = ""  # key-encryption key, outside the data directory
    trust_domain: str = "configsvc"
    listen_client_urls: tuple[str, ...] = ("https://localhost:2379",)
    advertise_client_urls: tuple[str, ...] = ()
    listen_client_http_urls: tuple[str, ...] = ()
    listen_metrics_urls: tuple[str, ...] = ()
    listen_peer_urls: tuple[str, ...] = ("https://localhost:2380",)
    initial_advertise_peer_urls: tuple[str, ...] = ()
    initial_cluster: tuple[tuple[str, str], ...] = ()  # (name, peer URL)
    initial_cluster_state: str = "new"
    initial_cluster_token: str = DEFAULT_CLUSTER_TOKEN
    client_tls: TlsSettings = field(default_factory=TlsSettings)
    peer_tls: TlsSettings = field(default_factory=TlsSettings)
    tls_min_version: str = "TLS1.3"
    heartbeat_interval_ms: int = 100
    election_timeout_ms: int = 1000
    snapshot_count: int = 10_000
    snapshot_catchup_entries: int = 5_000
    quota_backend_bytes: int = 0  # 0: 2 GiB; negative: no quota
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: str = "0"  # off
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864
    max_concurrent_streams: int = 1_000
    watch_progress_notify_interval: float = 600.0
    strict_reconfig_check: bool = True
    max_learners: int = 1
    force_new_cluster: bool = False
    log_level: str = "info"
    advertised_etcd_version: str = ADVERTISED_ETCD_VERSION
    policy_file: str = ""  # "": the bundle that ships
    insecure_dev: bool = False
    allow_root: bool = False
    listen_any: bool = False
    unsafe_no_fsync: bool = False
    client_cert_auth: bool = False  # insecure_dev only: a common name is a login (A18)
    auth_token: str = SIMPLE_TOKENS  # insecure_dev only, as is the next: etcd's kinds (A16, A17)
    auth_token_ttl: int = 300  # seconds after the last use of a simple token

    @property
    def tick(self) -> float:
        """Seconds of one raft tick: half a heartbeat (E1)."""
        return self.heartbeat_interval_ms / 2000

    @property
    def election_ticks(self) -> int:
        return max(10, round(self.election_timeout_ms / (self.heartbeat_interval_ms / 2)))

    @property
    def request_timeout(self) -> float:
        """5 s and two election timeouts (wire/behaviour.md X2)."""
        return 5 + 2 * self.election_timeout_ms / 1000

    @property
    def advertised_clients(self) -> tuple[str, ...]:
        return self.advertise_client_urls or self.listen_client_urls

    @property
    def advertised_peers(self) -> tuple[str, ...]:
        return self.initial_advertise_peer_urls or self.listen_peer_urls

    @property
    def genesis(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Initial members as (name, peer URLs), sorted by name; this member alone by default."""
        if not self.initial_cluster:
            return ((self.name, self.advertised_peers),)
        by_name: dict[str, list[str]] = {}
        for name, url in self.initial_cluster:
            by_name.setdefault(name, []).append(url)
        return tuple((n, tuple(sorted(by_name[n]))) for n in sorted(by_name))

    def problems(self) -> list[str]:
        """Everything wrong at once, each line naming the setting and the way out."""
        found: list[str] = []
        for check in _CHECKS:
            found.extend(check(self))
        return found


def dev_key_path(data_dir: str) -> str:
    """Where --insecure-dev keeps the key when none is named: beside the data directory."""
    return data_dir.rstrip("/") + ".key"


def parse_duration(text: str, name: str) -> float:
    """``"10m"``, ``"100ms"``, ``"2h"`` or plain seconds, in seconds.

    Raises:
        ConfigError: not a duration, negative, or not finite.
    """
    body, unit = text, 1.0
    for suffix in sorted(DURATION_UNITS, key=len, reverse=True):
        if text.endswith(suffix):
            body, unit = text[: -len(suffix)], DURATION_UNITS[suffix]
            break
    try:
        value = float(body) * unit
    except ValueError:
        raise ConfigError(f"--{name}: not a duration", "use a number with ms, s, m or h") from None
    if not 0 <= value < 10 * 365 * 86400:
        raise ConfigError(f"--{name}: out of range", "use 0 up to ten years")
    return value


def is_loopback(host: str) -> bool:
    """Whether a URL's host can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_url(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a listen or advertise URL.

    Raises:
        ValueError: no such URL; the text says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("the scheme must be http or https")
    if not parts.hostname or parts.port is None:
        raise ValueError("a host and a port are needed")
    if parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError("nothing may follow the port")
    return parts.scheme, parts.hostname, parts.port


def _range(low: int, high: int, *names: str) -> Callable[[ServerConfig], list[str]]:
    def check(c: ServerConfig) -> list[str]:
        return [
            f"--{n.replace('_ms', '').replace('_', '-')}={getattr(c, n)}: use {low} to {high}"
            for n in names
            if not low <= getattr(c, n) <= high
        ]

    return check


def _check_names(c: ServerConfig) -> list[str]:
    found = []
    if not c.name:
        found.append("--name: must not be empty")
    if not c.data_dir:
        found.append("--data-dir: name the directory for log and history")
    if c.initial_cluster_state not in ("new", "existing"):
        found.append("--initial-cluster-state: use new or existing")
    if c.log_level not in ("debug", "info", "warn", "error"):
        found.append("--log-level: use debug, info, warn or error")
    if c.auto_compaction_mode not in ("periodic", "revision"):
        found.append("--auto-compaction-mode: use periodic or revision")
    if c.tls_min_version not in ("TLS1.2", "TLS1.3"):
        found.append("--tls-min-version: use TLS1.2 or TLS1.3")
    if c.initial_cluster and c.name not in {n for n, _ in c.initial_cluster}:
        found.append(f"--initial-cluster: does not name this member ({c.name})")
    elif c.initial_cluster and c.initial_cluster_state == "new":
        own = sorted(u for n, u in c.initial_cluster if n == c.name)
        if own != sorted(c.advertised_peers):
            found.append(
                "--initial-advertise-peer-urls: must be this member's URLs in --initial-cluster"
            )
    return found


def _check_timing(c: ServerConfig) -> list[str]:
    if c.election_timeout_ms < 5 * c.heartbeat_interval_ms:
        return [f"--election-timeout={c.election_timeout_ms}: use 5 x heartbeat-interval or more"]
    return []


def _check_urls(c: ServerConfig) -> list[str]:
    found = []
    client = ("listen_client_urls", "listen_client_http_urls", "listen_metrics_urls")
    advertise = ("advertise_client_urls", "initial_advertise_peer_urls")
    for name in (*client, "listen_peer_urls", *advertise):
        flag = "--" + name.replace("_", "-")
        for url in getattr(c, name):
            try:
                scheme, host, _ = split_url(url)
            except ValueError as error:
                found.append(f"{flag}={url}: {error}")
                continue
            if scheme == "http" and not c.insecure_dev:
                found.append(f"{flag}={url}: there is no plaintext port; use https")
            if c.insecure_dev and not is_loopback(host):
                found.append(f"{flag}={url}: --insecure-dev serves loopback only")
            if "listen" in name and host in ("0.0.0.0", "::") and not c.listen_any:  # noqa: S104
                found.append(f"{flag}={url}: a wildcard address needs --listen-any")
    return found


def _check_tls(c: ServerConfig) -> list[str]:
    found = []
    needed = {
        "": (
            c.listen_client_urls + c.listen_client_http_urls + c.listen_metrics_urls,
            c.client_tls,
        ),
        "peer-": (c.listen_peer_urls, c.peer_tls),
    }
    for prefix, (urls, tls) in needed.items():
        if not any(u.startswith("https:") for u in urls):
            continue
        if c.insecure_dev and not tls.cert_file:
            found.append(f"--{prefix}cert-file: an https URL needs a certificate")
        for flag, value in (
            ("cert-file", tls.cert_file),
            ("key-file", tls.key_file),
            ("trusted-ca-file", tls.trusted_ca_file),
        ):
            if not value and not c.insecure_dev:
                found.append(f"--{prefix}{flag}: needed; `configctl pki init` makes a set")
    return found


def _check_common_names(c: ServerConfig) -> list[str]:
    if c.client_cert_auth and c.client_tls.cert_file and not c.client_tls.trusted_ca_file:
        return ["--client-cert-auth: needs --trusted-ca-file, the CA of client certificates"]
    return []


def _check_keys(c: ServerConfig) -> list[str]:
    if not c.key_file:
        return ["--encryption-key-file: needed, outside the data directory, mode 0600"]
    if c.unsafe_no_fsync and not c.insecure_dev:
        return ["--unsafe-no-fsync: only with --insecure-dev"]
    return []


_CHECKS: Final[tuple[Callable[[ServerConfig], list[Any]], ...]] = (
    _check_names,
    _check_timing,
    _check_urls,
    _check_tls,
    _check_common_names,
    _check_keys,
    _range(10, 10_000, "heartbeat_interval_ms"),
    _range(50, 50_000, "election_timeout_ms"),
    _range(100, 10_000_000, "snapshot_count"),
    _range(1, 10_000_000, "snapshot_catchup_entries"),
    _range(1, 100_000, "max_txn_ops"),
    _range(1_024, 8 * 1024 * 1024, "max_request_bytes"),
    _range(1, 1_000_000, "max_concurrent_streams"),
    _range(0, 16, "max_learners"),
    _range(1, 31_536_000, "auth_token_ttl"),
)
