"""Command line, environment and file into a ``ServerConfig``.

Syntax as etcd's: ``--flag=v``, ``--flag v``, one dash or two, bare booleans, comma lists. A flag
given twice: the last one counts, with a warning. A name that does not exist is fatal, as is a
flag and its variable with different values. Flags that only etcd has come from the same three
sources and are noted or refused by name (``foreign``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, get_type_hints

from configsvc.config import ServerConfig, TlsSettings, dev_key_path, parse_duration
from configsvc.errors import ConfigError
from configsvc.server.foreign import ALIASES, FOREIGN, judge

ENV_PREFIX: Final = "CONFIGSVC_"
CONFIG_FILE_BYTES_MAX: Final = 64 * 1024
CN_LOGIN: Final = "client-cert-auth"  # ours under --insecure-dev, otherwise already so
_INSECURE_OURS: Final = frozenset({CN_LOGIN, "auth-token", "auth-token-ttl"})

# Flag name -> (field, help). Fields of TLS settings are written "client_tls.cert_file".
_SPECIAL: Final = {
    "encryption-key-file": "key_file",
    "heartbeat-interval": "heartbeat_interval_ms",
    "election-timeout": "election_timeout_ms",
    "cert-file": "client_tls.cert_file",
    "key-file": "client_tls.key_file",
    "trusted-ca-file": "client_tls.trusted_ca_file",
    "client-crl-file": "client_tls.crl_file",
    "peer-cert-file": "peer_tls.cert_file",
    "peer-key-file": "peer_tls.key_file",
    "peer-trusted-ca-file": "peer_tls.trusted_ca_file",
    "peer-crl-file": "peer_tls.crl_file",
}
_GROUPS: Final = (
    (
        "Member",
        (
            ("name", "member name; must match its entry in --initial-cluster"),
            ("data-dir", "where log and history are kept; mode 0700"),
            ("encryption-key-file", "key-encryption key, outside the data directory, mode 0600"),
            ("trust-domain", "trust domain of all identities (spiffe://<trust-domain>/...)"),
            ("listen-client-urls", "gRPC and HTTP for clients"),
            ("advertise-client-urls", "client URLs published in the member list"),
            ("listen-client-http-urls", "HTTP-only port; takes HTTP off the client port"),
            ("listen-metrics-urls", "extra port with /metrics, /health, /livez, /readyz"),
            ("listen-peer-urls", "member to member"),
            ("config-file", "TOML file with these names"),
        ),
    ),
    (
        "Clustering",
        (
            ("initial-cluster", "name=peerURL,... of the first members"),
            ("initial-cluster-state", "new, or existing when joining"),
            ("initial-cluster-token", "goes into cluster and member ids"),
            ("initial-advertise-peer-urls", "own peer URLs for the others"),
            ("strict-reconfig-check", "refuse member changes that endanger quorum"),
            ("max-learners", "learners allowed"),
            ("force-new-cluster", "restart as a one-member cluster with a new cluster id"),
        ),
    ),
    (
        "TLS",
        (
            ("cert-file", "server certificate for clients"),
            ("key-file", "its key"),
            ("trusted-ca-file", "issuing CA of client certificates"),
            ("client-crl-file", "revocation list for client certificates"),
            ("peer-cert-file", "member certificate"),
            ("peer-key-file", "its key"),
            ("peer-trusted-ca-file", "issuing CA of member certificates"),
            ("peer-crl-file", "revocation list for member certificates"),
            ("tls-min-version", "TLS1.3, or TLS1.2 with AEAD suites only"),
        ),
    ),
    (
        "Tuning",
        (
            ("heartbeat-interval", "ms"),
            ("election-timeout", "ms; at least 5 heartbeats"),
            ("snapshot-count", "applied entries between cuts of the log"),
            ("snapshot-catchup-entries", "log entries kept for slow followers"),
            ("quota-backend-bytes", "quota of the current key space; 0 is 2 GiB, negative off"),
            ("auto-compaction-mode", "periodic or revision"),
            ("auto-compaction-retention", "0 is off; a duration, hours, or a count of revisions"),
            ("max-txn-ops", "operations of one transaction"),
            ("max-request-bytes", "size of one operation"),
            ("max-concurrent-streams", "HTTP/2 streams of one connection"),
            ("watch-progress-notify-interval", "duration between progress messages"),
            ("advertised-etcd-version", "etcd version told to clients, x.y.z"),
            ("policy-file", "bundle loaded by the first entry of a new cluster"),
            ("log-level", "debug, info, warn or error"),
        ),
    ),
    (
        "Weaker than the default (recorded at each start)",
        (
            ("insecure-dev", "plaintext and auth-off on loopback, throwaway data, marked for ever"),
            ("allow-root", "run as uid 0"),
            ("listen-any", "bind to a wildcard address"),
            ("unsafe-no-fsync", "only with --insecure-dev"),
            (CN_LOGIN, "with --insecure-dev: login by certificate common name; else always on"),
            ("auth-token", "with --insecure-dev: etcd's kinds of tokens; else always our own"),
            ("auth-token-ttl", "with --insecure-dev: s that a simple token lives unused"),
        ),
    ),
)
_BOOL_WORDS: Final = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A configuration and what the log should say about how it was given."""

    config: ServerConfig
    warnings: tuple[str, ...]
    help: bool = False
    version: bool = False


def known_flags() -> dict[str, str]:
    """Flag name -> field path."""
    return {
        flag: _SPECIAL.get(flag, flag.replace("-", "_"))
        for _, rows in _GROUPS
        for flag, _ in rows
        if flag != "config-file"
    }


def help_text() -> str:
    """What ``configsvc --help`` prints."""
    lines = ["usage: configsvc [flags]", ""]
    for title, rows in _GROUPS:
        lines.append(f"{title}:")
        lines += [f"  --{flag:<32} {text}" for flag, text in rows]
        lines.append("")
    lines.append("Every flag has a twin CONFIGSVC_<NAME>; --config-file takes the same names.")
    return "\n".join(lines)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Parsed:
    """Read all sources.

    Raises:
        ConfigError: unknown name, bad value, contradiction; every problem in one message.
    """
    warnings: list[str] = []
    given = _from_argv(argv, warnings)
    if "help" in given or "h" in given:
        return Parsed(ServerConfig(), (), help=True)
    if "version" in given:
        return Parsed(ServerConfig(), (), version=True)
    env = _from_environ(environ)
    file_name = given.pop("config-file", None) or env.pop("config-file", None)
    merged: dict[str, Any] = _from_file(file_name) if file_name else {}
    for name, value in env.items():
        if name in given and given[name] != value:
            raise ConfigError(
                f"--{name} and {ENV_PREFIX}{name.upper().replace('-', '_')} contradict each other",
                "give one of them",
            )
        merged[name] = value
    merged.update(given)
    insecure = _BOOL_WORDS.get(str(merged.get("insecure-dev", "false")).lower(), False)
    foreign = [n for n in merged if n in FOREIGN and not (insecure and n in _INSECURE_OURS)]
    warnings.extend(judge(name, merged.pop(name), insecure=insecure) for name in foreign)
    config = _build(merged, warnings)
    problems = config.problems()
    if problems:
        raise ConfigError("; ".join(problems), "see configsvc --help")
    return Parsed(config, tuple(warnings))


@cache
def _known_names() -> frozenset[str]:
    """Every name that a source may hold: ours, etcd's, and old names of ours."""
    return frozenset(known_flags()) | FOREIGN | frozenset(ALIASES)


def _from_argv(argv: Sequence[str], warnings: list[str]) -> dict[str, str]:
    """Flags by name, those of etcd among them."""
    bools = _bool_flags()
    known = _known_names() | {"config-file", "help", "h", "version"}
    given: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word.strip("-") == "":
            raise ConfigError(f"unexpected argument {word[:60]!r}", "flags start with --")
        name, has_value, value = word.lstrip("-").partition("=")
        if name not in known:
            raise ConfigError(f"unknown flag --{name[:60]}", "see configsvc --help")
        if not has_value:
            if name in bools or name in ("help", "h", "version"):
                value = "true"
                if words and words[0] in ("true", "false"):
                    value = words.pop(0)
            elif name in FOREIGN:  # nothing here says which of these are booleans
                follows = bool(words) and not words[0].startswith("-")
                value = words.pop(0) if follows else "true"
            elif words:
                value = words.pop(0)
            else:
                raise ConfigError(f"--{name} needs a value", "see configsvc --help")
        name = ALIASES.get(name, name)
        if name in given and given[name] != value:
            warnings.append(f"--{name} is given twice; the last one counts")
        given[name] = value
    return given


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    names = _known_names() | {"config-file"}
    known = {ENV_PREFIX + f.upper().replace("-", "_"): ALIASES.get(f, f) for f in names}
    found = {}
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX):
            continue
        if variable not in known:
            raise ConfigError(f"unknown variable {variable[:60]}", "see configsvc --help")
        found[known[variable]] = environ[variable]
    return found


def _from_file(name: str) -> dict[str, Any]:
    try:
        raw = Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--config-file={name}: {error.strerror}", "name a readable file"
        ) from None
    if len(raw) > CONFIG_FILE_BYTES_MAX:
        raise ConfigError(f"--config-file={name}: larger than 64 KiB", "this is no settings file")
    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name}: {error}", "see docs/operator-guide.md") from None
    known = _known_names()
    out: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{name}: unknown setting {key[:60]!r}", "see configsvc --help")
        if isinstance(value, list):
            value = ",".join(str(v) for v in value)
        out[ALIASES.get(key, key)] = str(value).lower() if isinstance(value, bool) else str(value)
    return out


@cache
def _bool_flags() -> frozenset[str]:
    hints = get_type_hints(ServerConfig)
    return frozenset(f for f, path in known_flags().items() if hints.get(path) is bool)


def _build(merged: Mapping[str, str], warnings: list[str]) -> ServerConfig:
    hints = get_type_hints(ServerConfig)
    paths = known_flags()
    plain: dict[str, Any] = {}
    tls: dict[str, dict[str, str]] = {"client_tls": {}, "peer_tls": {}}
    for flag, text in merged.items():
        path = paths[flag]
        group, dot, part = path.partition(".")
        if dot:
            tls[group][part] = text
        else:
            plain[path] = _convert(flag, path, text, hints[path])
    for group, values in tls.items():
        plain[group] = replace(TlsSettings(), **values)
    if "listen_client_urls" in plain and "advertise_client_urls" not in plain:
        warnings.append("--advertise-client-urls is not given: the listen URLs are advertised")
    insecure = plain.get("insecure_dev", False)
    if insecure:
        _plaintext_defaults(plain)
    names = {f.name for f in fields(ServerConfig)}
    return ServerConfig(**{k: v for k, v in plain.items() if k in names})


def _plaintext_defaults(plain: dict[str, Any]) -> None:
    """The defaults of etcd, for its start-up scripts; the key lies beside the data (ENC-4)."""
    plain.setdefault("listen_client_urls", ("http://localhost:2379",))
    plain.setdefault("listen_peer_urls", ("http://localhost:2380",))
    data_dir = plain.setdefault("data_dir", f"{plain.get('name') or ServerConfig().name}.etcd")
    if data_dir:
        plain.setdefault("key_file", dev_key_path(data_dir))


def _convert(flag: str, path: str, text: str, kind: Any) -> Any:
    if path == "initial_cluster":
        return _parse_cluster(text)
    if kind is bool:
        if text.lower() not in _BOOL_WORDS:
            raise ConfigError(f"--{flag}: not a boolean", "use true or false")
        return _BOOL_WORDS[text.lower()]
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"--{flag}: not a whole number", "use digits") from None
    if kind is float:
        return parse_duration(text, flag)
    if kind == tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    return text


def _parse_cluster(text: str) -> tuple[tuple[str, str], ...]:
    out = []
    for part in text.split(","):
        if not part.strip():
            continue
        name, equals, url = part.strip().partition("=")
        if not equals or not name or not url:
            raise ConfigError(
                "--initial-cluster: not a list of name=peerURL", "name1=https://10.0.0.1:2380,..."
            )
        out.append((name, url.rstrip("/")))
    return tuple(out)
