"""etcd's flags that are not ours: which are noted, which refused, and why.

Every flag that etcd has or had is in one of these tables or in ``flags``, so that a start-up
script written for etcd gets a line about each of its flags. One is unknown on purpose: discovery's
switch that leaves a server unchecked. What would make a secure member weaker is refused, and so
is a limit that would not be enforced: better no member than one that is not what its command line
says. Under --insecure-dev most is only noted.

Not here: our own flags and where values come from (``flags``).
"""

from __future__ import annotations

from typing import Final

from configsvc.errors import ConfigError

_NO_EFFECT: Final = "no effect here"
_MEMBERS: Final = "the first members are named by --initial-cluster"
_LOG: Final = "one-line JSON on stderr"
_TRACING: Final = "there is no tracing"
_V2: Final = "there is no v2 API"
_IDENTITY: Final = "who may connect is judged by the URI in the certificate, and by policy"

# Refused unless the value is one of the harmless ones; under --insecure-dev only noted.
_WEAKENING: Final[dict[str, str]] = {
    "cors": "there are no CORS headers",
    "host-whitelist": "Host must be one of ours",
    "enable-pprof": "there is no debug endpoint",
    "cipher-suites": "TLS 1.3 has no weak suite to choose",
    "auth-token": "tokens are EdDSA JWTs, bound to the certificate",
    "auth-token-ttl": "tokens live 300 s",
    "client-cert-auth": "client certificates are always required",
    "peer-client-cert-auth": "member certificates are always required",
    "peer-skip-client-san-verification": "member certificates are always judged",
    "experimental-peer-skip-client-san-verification": "member certificates are always judged",
    "client-cert-allowed-hostname": _IDENTITY,
    "peer-cert-allowed-cn": _IDENTITY,
    "peer-cert-allowed-hostname": _IDENTITY,
    "tls-max-version": "TLS 1.3 is never switched off",
    "wal-dir": "the log lies in --data-dir",
}
_HARMLESS: Final[dict[str, frozenset[str]]] = {
    "auth-token-ttl": frozenset({"300"}),
    "client-cert-auth": frozenset({"true", "1", "t"}),
    "peer-client-cert-auth": frozenset({"true", "1", "t"}),
    "pre-vote": frozenset({"true", "1", "t"}),
    "tls-max-version": frozenset({"TLS1.3", ""}),
    "proxy": frozenset({"off"}),
    "discovery-fallback": frozenset({"exit"}),
}
_OFF: Final = frozenset({"", "false", "0", "f"})

# Refused in every mode: the member would not be the one that was asked for.
_NEVER: Final[dict[str, str]] = {
    "auto-tls": "certificates come from `configctl pki init`",
    "peer-auto-tls": "certificates come from `configctl pki init`",
    "pre-vote": "pre-vote is always on",
    "proxy": "there is no proxy mode",
    "discovery": _MEMBERS,
    "discovery-proxy": _MEMBERS,
    "discovery-srv": _MEMBERS,
    "discovery-srv-name": _MEMBERS,
    "discovery-endpoints": _MEMBERS,
    "discovery-token": _MEMBERS,
    "discovery-fallback": "only exit",
}

# Noted with a line: the meaning is met anyway, or nothing here depends on it.
_NOTED: Final[dict[str, str]] = {
    **dict.fromkeys(("logger", "log-outputs", "log-format"), _LOG),
    **dict.fromkeys(("enable-log-rotation", "log-rotation-config-json"), _LOG),
    **dict.fromkeys(("enable-v2", "experimental-enable-v2v3"), _V2),
    "enable-grpc-gateway": "always on",
    "bcrypt-cost": "passwords are Argon2id",
    "self-signed-cert-validity": "certificates come from `configctl pki init`",
    "client-cert-file": "a member makes no calls as a client",
    "client-key-file": "a member makes no calls as a client",
    "peer-client-cert-file": "--peer-cert-file serves both directions",
    "peer-client-key-file": "--peer-key-file serves both directions",
    **{
        f"{prefix}{name}": _TRACING
        for prefix in ("", "experimental-")
        for name in (
            "enable-distributed-tracing", "distributed-tracing-address",
            "distributed-tracing-service-name", "distributed-tracing-instance-id",
            "distributed-tracing-sampling-rate",
        )
    },
    **dict.fromkeys(
        (
            "discovery-cert", "discovery-key", "discovery-cacert", "discovery-user",
            "discovery-password", "discovery-dial-timeout", "discovery-request-timeout",
            "discovery-keepalive-time", "discovery-keepalive-timeout",
            "discovery-insecure-transport",
        ),
        _MEMBERS,
    ),
    **dict.fromkeys(
        (
            "proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout",
            "proxy-write-timeout", "proxy-read-timeout",
        ),
        "there is no proxy mode",
    ),
    **dict.fromkeys(
        (
            "initial-election-tick-advance", "backend-batch-interval", "backend-batch-limit",
            "backend-bbolt-freelist-type", "max-snapshots", "max-wals", "metrics",
            "compaction-batch-limit", "compaction-sleep-interval", "grpc-keepalive-min-time",
            "grpc-keepalive-interval", "grpc-keepalive-timeout", "socket-reuse-port",
            "socket-reuse-address", "memory-mlock", "bootstrap-defrag-threshold-megabytes",
            "raft-read-timeout", "raft-write-timeout", "warning-apply-duration",
            "warning-unary-request-duration", "corrupt-check-time", "compact-hash-check-time",
            "downgrade-check-time", "experimental-initial-corrupt-check",
            "experimental-corrupt-check-time", "experimental-warning-apply-duration",
            "experimental-compaction-batch-limit", "experimental-memory-mlock",
            "experimental-bootstrap-defrag-threshold-megabytes",
            "experimental-compact-hash-check-enabled", "experimental-enable-lease-checkpoint",
            "experimental-enable-lease-checkpoint-persist",
            "experimental-txn-mode-write-with-shared-buffer",
            "cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config",
            "force", "max-result-buffer", "max-retry-attempts", "peer-heartbeat-interval",
            "peer-election-timeout", "retry-interval", "snapshot", "v", "vv",
        ),
        _NO_EFFECT,
    ),
}  # fmt: skip

# Old names of flags that are ours.
ALIASES: Final[dict[str, str]] = {
    "experimental-watch-progress-notify-interval": "watch-progress-notify-interval",
    "experimental-max-learners": "max-learners",
    "experimental-snapshot-catch-up-entries": "snapshot-catchup-entries",
}

GATES: Final = frozenset({
    "TxnModeWriteWithSharedBuffer", "FastLeaseKeepAlive", "CompactHashCheck",
    "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist", "PriorityRequest",
    "SetMemberLocalAddr", "StopGRPCServiceOnDefrag", "AllAlpha", "AllBeta",
})  # fmt: skip

FOREIGN: Final = frozenset(_WEAKENING) | frozenset(_NEVER) | frozenset(_NOTED) | {"feature-gates"}


def judge(name: str, value: str, *, insecure: bool) -> str:
    """The log's line about one of etcd's flags.

    Raises:
        ConfigError: it would weaken this member, or make it another than was asked for (DEF-11).
    """
    if name == "feature-gates":
        return _judge_gates(value)
    harmless = value in _HARMLESS.get(name, _OFF)
    if name in _NEVER and not harmless:
        raise ConfigError(f"--{name} is not possible here: {_NEVER[name]}", "leave it out")
    reason = _WEAKENING.get(name) or _NEVER.get(name) or _NOTED[name]
    if insecure:
        return f"--{name} is ignored under --insecure-dev: {reason}"
    if name in _WEAKENING and not harmless:
        raise ConfigError(f"--{name} would weaken this member: {reason}", "leave it out")
    return f"--{name} is ignored: {reason}"


def _judge_gates(value: str) -> str:
    names = [part.partition("=")[0].strip() for part in value.split(",") if part.strip()]
    unknown = sorted(set(names) - GATES)
    if unknown:
        raise ConfigError(f"--feature-gates: unknown gate {unknown[0][:60]!r}", "leave it out")
    return f"--feature-gates is ignored ({', '.join(names) or 'none'}): {_NO_EFFECT}"
