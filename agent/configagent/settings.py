"""The agent's settings as frozen values, checked as a whole before anything is touched.

Durations are seconds, sizes bytes. Empty text and 0 mean "none" unless said otherwise.

Not here: reading them (``config``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configsvc import limits

CommitMode = Literal["files", "dir"]
DriftPolicy = Literal["repair", "report", "ignore"]


@dataclass(frozen=True, slots=True)
class Command:
    """A program with arguments, never a shell line. ``user`` "" runs as the agent's own user."""

    argv: tuple[str, ...]
    timeout_s: float
    user: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How to see that a service took a change: a command or a TCP connect, until it held."""

    command: Command | None
    tcp: tuple[str, int] | None
    every_s: float
    window_s: float
    successes: int


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is told when files changed."""

    name: str
    reload: Command
    restart: Command | None  # the second try; None: reload again
    health: Health | None
    min_interval_s: float  # between two notifications; later ones wait, none is dropped
    splay_s: float


@dataclass(frozen=True, slots=True)
class Guard:
    """What a rendered file must look like. Shares are percent; 0 switches a rule off."""

    forbid_empty: bool = True
    min_bytes: int = 0
    max_bytes: int = limits.AGENT_OUTPUT_BYTES_MAX
    max_shrink: int = 50
    max_grow: int = 300
    min_keys: int = 0


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One managed file. Exactly one of ``template``, ``text``, ``key`` says where it comes from."""

    name: str  # in "dir": below the generation; in "files": the destination itself
    template: str  # "file:/absolute/path" or "store:/full/key"
    text: str  # an inline template
    key: str  # relative key whose value is the file, byte for byte
    mode: int
    uid: int
    gid: int
    owner: str  # "user:group" as written, for people
    format: str  # "json", "yaml", "toml", "ini", "xml" or ""
    link: str  # "dir" only: absolute path that points here
    guard: Guard
    wide: bool  # the file's own entry allows a mode wider than 0640


@dataclass(frozen=True, slots=True)
class SetSpec:
    """Files that belong together."""

    name: str
    prefix: str  # without a slash at its end; nothing outside can be read
    keys: tuple[str, ...]  # relative prefixes that narrow it; empty: everything
    commit: CommitMode
    dir: str  # "dir" only
    files: tuple[FileSpec, ...]
    services: tuple[Service, ...]
    check: Command | None
    settle_min_s: float
    settle_max_s: float
    keep_generations: int
    drift_policy: DriftPolicy
    drift_interval_s: float
    on_missing_key: Literal["fail", "hold"]
    prune: bool

    @property
    def span_prefix(self) -> bytes:
        """What every key of the scope starts with."""
        return self.prefix.encode() + b"/"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one set (agent.md I9)."""

    value: int = limits.AGENT_VALUE_BYTES_MAX
    set: int = limits.AGENT_SET_BYTES_MAX
    keys: int = limits.AGENT_KEYS_MAX
    files: int = limits.AGENT_FILES_MAX


@dataclass(frozen=True, slots=True)
class Store:
    """How to reach the cluster, and as whom."""

    endpoints: tuple[str, ...]
    ca: str
    cert: str
    key: str
    backoff_min_s: float
    backoff_max_s: float
    heartbeat_s: float
    reconcile_s: float
    renew: Command | None = None  # prints a new certificate for the request ``{csr}``


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything."""

    path: str
    node: str
    state_dir: str
    socket: str
    socket_group: int | None  # whose members may look at both sockets; None: nobody else
    metrics: str  # path of a unix socket, or ""
    log_level: str
    cache_key: str  # path of the node's secret key; "" is node.key in the state directory
    offline_start: bool
    store: Store
    allow_roots: tuple[str, ...]
    templates_from: tuple[str, ...]
    allow_env: tuple[str, ...]
    limits: Limits
    sets: tuple[SetSpec, ...]

    def set_named(self, name: str) -> SetSpec | None:
        """The set of that name."""
        return next((one for one in self.sets if one.name == name), None)
