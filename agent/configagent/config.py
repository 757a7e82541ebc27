"""Reads ``agent.toml`` (agent.md 6.1): strict, local, and only from files nobody else may write.

Commands, destinations, owners and roots come from here alone (I4, C4); the store can name none
of them. All problems are reported at once, each with file and line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import Final, cast

from configagent.config_services import NAME, command_of, gid_of, services_of, uid_of
from configagent.errors import InsecureError, SettingsError
from configagent.settings import (
    Command,
    CommitMode,
    DriftPolicy,
    FileSpec,
    Guard,
    Limits,
    Service,
    SetSpec,
    Settings,
    Store,
)
from configagent.toml_text import Reader, Table
from configsvc import limits
from configsvc.client import EndpointError, parse_endpoint

MODE_MAX: Final = 0o640  # wider only in a file's own entry (B5)
FORMATS: Final = ("", "json", "yaml", "toml", "ini", "xml")
_FILE_NAME: Final = re.compile(r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")


def load(path: str) -> Settings:
    """Read and judge a configuration file.

    Raises:
        SettingsError: what is wrong, with lines.
        InsecureError: others may write it, or an endpoint is plaintext.
    """
    path = os.path.abspath(path)
    data = _read_own(path, limits.AGENT_CONFIG_BYTES_MAX)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{os.path.basename(path)}:{line}: is not UTF-8") from None
    return parse(text, path)


def _read_own(path: str, most: int) -> bytes:
    """A file that only root or we can have written, in a folder of the same kind."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        raise SettingsError(f"{path}: not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        _check_own(path, info, secret=False)
        folder = os.path.dirname(path)
        _check_own(folder, os.stat(folder), secret=False)
        data = file.read(most + 1)
    if len(data) > most:
        raise SettingsError(f"{path}: larger than {most} bytes")
    return data


def _check_own(path: str, info: os.stat_result, *, secret: bool) -> None:
    if info.st_uid not in (0, os.geteuid()):
        raise InsecureError(f"{path}: owned by uid {info.st_uid}, not by root or the agent")
    if info.st_mode & (0o077 if secret else 0o022):
        what = "readable" if secret else "writable"
        raise InsecureError(f"{path}: mode {stat.S_IMODE(info.st_mode):04o} is {what} for others")
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        raise InsecureError(f"{path}: not a regular file")


def check_secret_file(path: str) -> None:
    """Raise unless the key file is private.

    Raises:
        SettingsError: missing.
        InsecureError: others may read it.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & 0o037:
        raise InsecureError(f"{path}: a key file must be private (mode 0600)")


def parse(text: str, path: str) -> Settings:
    """Judge the text of a configuration; ``path`` is where relative sources are looked up.

    Raises:
        SettingsError: what is wrong, with lines.
        InsecureError: an endpoint is plaintext.
    """
    reader = Reader(os.path.basename(path), text)
    root = reader.root
    root.number("version", 1, 1, 1)
    agent = root.table("agent")
    state_dir = _absolute(agent, "state_dir", agent.text("state_dir", required=True))
    cache = root.table("cache")
    store = _store(root.table("store"))
    security = root.table("security")
    roots = tuple(_absolute(security, "allow_roots", r) for r in security.texts("allow_roots"))
    _check_roots(security, roots)
    templates_from = security.texts("templates_from", ("file", "store"))
    allow_env = security.texts("allow_env")
    bounds = _limits(security.table("limits"))
    log = agent.table("log")
    log.choice("format", "json", ("json",))
    metrics = agent.text("metrics")
    group = agent.text("socket_group")
    if metrics and not metrics.startswith("unix:/"):
        agent.problem("metrics", 'must be "unix:" and an absolute path')
    services = services_of(root)
    defaults = _Defaults(root.table("defaults"), bounds)
    base = os.path.dirname(path)
    sets = [_set(t, defaults, services, roots, templates_from, base) for t in root.tables("set")]
    settings = Settings(
        path=path,
        node=agent.text("node") or node_of(store.cert),
        state_dir=state_dir,
        socket=agent.text("socket") or os.path.join(state_dir, "agent.sock"),
        socket_group=gid_of(agent, "socket_group", group) if group else None,
        metrics=metrics.removeprefix("unix:"),
        log_level=log.choice("level", "info", ("debug", "info", "warning", "error")),
        cache_key=_secret_path(cache, "key", cache.text("key")),
        offline_start=cache.flag("offline_start", True),
        store=store,
        allow_roots=roots,
        templates_from=templates_from,
        allow_env=allow_env,
        limits=bounds,
        sets=tuple(sets),
    )
    if not settings.node:
        agent.problem("node", "is required: the certificate names no agent")
    for table in (log, agent, cache, security, defaults.table, root):
        table.done()
    _check_sets(reader, settings)
    reader.finish()
    return settings


# --- parts ----------------------------------------------------------------------------------------


def _absolute(table: Table, key: str, value: str) -> str:
    if value and (not value.startswith("/") or os.path.normpath(value) != value):
        table.problem(key, "must be an absolute path without . and .. parts")
    return value


def _check_roots(table: Table, roots: tuple[str, ...]) -> None:
    for one in roots:
        if one == "/":
            table.problem("allow_roots", "/ allows everything: name the folders")
        if any(other != one and one.startswith(other.rstrip("/") + "/") for other in roots):
            table.problem("allow_roots", f"{one} lies inside another root")
    if len(set(roots)) != len(roots):
        table.problem("allow_roots", "a root is listed twice")


def _store(table: Table) -> Store:
    tls = table.table("tls")
    endpoints = table.texts("endpoints")
    if not endpoints:
        table.problem("endpoints", "at least one is required")
    for one in endpoints:
        try:
            parse_endpoint(one)
        except EndpointError as error:
            if "plaintext" in str(error):
                raise InsecureError(str(error)) from None
            table.problem("endpoints", str(error))
    table.choice("read", "linearizable", ("linearizable",))
    backoff = table.table("backoff")
    made = Store(
        endpoints=endpoints,
        ca=_absolute(tls, "ca", tls.text("ca")),
        cert=_absolute(tls, "cert", tls.text("cert")),
        key=_secret_path(tls, "key", tls.text("key")),
        backoff_min_s=backoff.seconds("min", 0.1),
        backoff_max_s=backoff.seconds("max", 30.0),
        heartbeat_s=table.seconds("heartbeat", 10.0),
        reconcile_s=table.seconds("reconcile", 300.0),
        renew=_renew(table, tls) if "renew" in table else None,
    )
    if not 0 < made.backoff_min_s <= made.backoff_max_s:
        backoff.problem("min", "must be above 0 and at most max")
    if made.heartbeat_s <= 0 or made.reconcile_s <= 0:
        table.problem("heartbeat", "heartbeat and reconcile must be above 0")
    for part in (tls, backoff, table):
        part.done()
    return made


def _renew(table: Table, tls: Table) -> Command:
    """The command that gets a new certificate; it runs as the agent, who owns the request."""
    renew = table.table("renew")
    argv = renew.texts("cmd")
    if not argv or not argv[0].startswith("/") or not any("{csr}" in one for one in argv):
        renew.problem("cmd", "must start with the absolute path of a program, and name {csr}")
    if not tls.text("cert") or tls.text("key").startswith("credential:"):
        renew.problem("cmd", "needs tls.cert and tls.key as files that can be replaced")
    timeout = renew.seconds("timeout", 60.0)
    if timeout <= 0:
        renew.problem("timeout", "must be above 0")
    renew.done()
    return Command(argv, timeout, "")


def _secret_path(table: Table, key: str, value: str) -> str:
    if value.startswith("credential:"):
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        name = value.removeprefix("credential:")
        if not folder or "/" in name or name in ("", ".", ".."):
            table.problem(key, "credential: needs a unit with LoadCredential= of that name")
            return ""
        return os.path.join(folder, name)
    return _absolute(table, key, value.removeprefix("file:"))


def node_of(certificate: str) -> str:
    """The name in the certificate's URI; "" when there is none."""
    from cryptography import x509

    try:
        with open(certificate, "rb") as file:
            leaf = x509.load_pem_x509_certificate(file.read(limits.TRUST_BUNDLE_BYTES_MAX))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return ""
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        match = re.fullmatch(r"spiffe://[^/]+/agent/([^/]+)", uri)
        if match:
            return match[1]
    return ""


def _limits(table: Table) -> Limits:
    made = Limits(
        value=table.size("value", limits.AGENT_VALUE_BYTES_MAX, limits.AGENT_SET_BYTES_MAX),
        set=table.size("set", limits.AGENT_SET_BYTES_MAX, 4 * limits.AGENT_SET_BYTES_MAX),
        keys=table.number("keys", limits.AGENT_KEYS_MAX, 1, 10 * limits.AGENT_KEYS_MAX),
        files=table.number("files", limits.AGENT_FILES_MAX, 1, 10 * limits.AGENT_FILES_MAX),
    )
    table.done()
    return made


class _Look:
    """Mode, owner and group, from the defaults down to a set."""

    def __init__(self, table: Table, above: _Look | None) -> None:
        self.mode: int = table.mode("mode", above.mode if above else MODE_MAX)
        self.owner: str = table.text("owner", above.owner if above else "")
        self.group: str = table.text("group", above.group if above else "")
        if self.mode & ~MODE_MAX:
            table.problem("mode", "a mode wider than 0640 belongs into the file's own entry")
        table.done()


class _Defaults:
    def __init__(self, table: Table, bounds: Limits) -> None:
        self.table = table
        self.bounds = bounds
        settle = table.table("settle")
        self.settle = settle.seconds("min", 0.2), settle.seconds("max", 5.0)
        self.look = _Look(table.table("files"), None)
        self.keep = table.number("keep_generations", 3, 2, 100)
        drift = table.table("drift")
        self.drift = _drift(drift, "repair", 60.0)
        self.guard = _guard(table.table("guard"), Guard())
        settle.done()


def _drift(table: Table, policy: str, interval: float) -> tuple[DriftPolicy, float]:
    found = table.choice("policy", policy, ("repair", "report", "ignore"))
    every = table.seconds("interval", interval)
    if every < 1:
        table.problem("interval", "must be 1s or more")
    table.done()
    return cast(DriftPolicy, found), every


def _guard(table: Table, above: Guard) -> Guard:
    most = limits.AGENT_OUTPUT_BYTES_LIMIT
    made = Guard(
        forbid_empty=table.flag("forbid_empty", above.forbid_empty),
        min_bytes=table.size("min_bytes", above.min_bytes, most),
        max_bytes=table.size("max_bytes", above.max_bytes, most),
        max_shrink=table.percent("max_shrink", above.max_shrink),
        max_grow=table.percent("max_grow", above.max_grow),
        min_keys=table.number("min_keys", above.min_keys, 0, limits.AGENT_KEYS_MAX),
    )
    table.done()
    return made


# --- sets -----------------------------------------------------------------------------------------


def _set(
    table: Table,
    defaults: _Defaults,
    services: dict[str, Service],
    roots: tuple[str, ...],
    templates_from: tuple[str, ...],
    base: str,
) -> SetSpec:
    name = table.text("name", required=True)
    if not NAME.match(name):
        table.problem("name", "must be of a-z, 0-9, '.', '_' and '-'")
    prefix = table.text("prefix", required=True)
    if not prefix.startswith("/") or prefix.endswith("/") or "//" in prefix:
        table.problem("prefix", 'must be such as "/prod/web"')
    folder = _absolute(table, "dir", table.text("dir"))
    commit = table.choice("commit", "dir" if folder else "files", ("files", "dir"))
    if (commit == "dir") != bool(folder):
        table.problem("commit", '"dir" and only "dir" needs dir = "/…"')
    look = _Look(table.table("files"), defaults.look)
    guard = _guard(table.table("guard"), defaults.guard)
    files = [
        _file(t, commit, prefix, look, guard, templates_from, base) for t in table.tables("file")
    ]
    if not 1 <= len(files) <= defaults.bounds.files:
        table.problem("file", f"must have from 1 to {defaults.bounds.files} entries")
    settle = table.table("settle")
    check = table.table("check")
    drift_policy, drift_interval = _drift(table.table("drift"), *defaults.drift)
    made = SetSpec(
        name=name,
        prefix=prefix,
        keys=_narrowing(table),
        commit=cast(CommitMode, commit),
        dir=folder,
        files=tuple(files),
        services=_notified(table, services),
        check=command_of(check, "cmd", check.texts("cmd"), check.seconds("timeout", 30.0))
        if "check" in table
        else None,
        settle_min_s=settle.seconds("min", defaults.settle[0]),
        settle_max_s=settle.seconds("max", defaults.settle[1]),
        keep_generations=table.number("keep_generations", defaults.keep, 2, 100),
        drift_policy=drift_policy,
        drift_interval_s=drift_interval,
        on_missing_key="hold"
        if table.choice("on_missing_key", "fail", ("fail", "hold")) == "hold"
        else "fail",
        prune=table.flag("prune", False),
    )
    for part in (settle, check, table):
        part.done()
    _check_inside(table, made, roots)
    return made


def _narrowing(table: Table) -> tuple[str, ...]:
    keys = table.texts("keys")
    if not all(key.startswith("/") for key in keys):
        table.problem("keys", "each must start with / and is relative to the prefix")
    return keys


def _notified(table: Table, services: dict[str, Service]) -> tuple[Service, ...]:
    found = []
    for name in dict.fromkeys(table.texts("notify")):
        if name in services:
            found.append(services[name])
        else:
            table.problem("notify", f"there is no [[service]] named {name}")
    return tuple(found)


def _file(
    table: Table,
    commit: str,
    prefix: str,
    look: _Look,
    guard: Guard,
    templates_from: tuple[str, ...],
    base: str,
) -> FileSpec:
    place = "name" if commit == "dir" else "dest"
    name = table.text(place, required=True)
    if commit == "dir":
        parts = name.split("/")
        if not _FILE_NAME.match(name) or any(part.startswith(".") for part in parts):
            table.problem("name", "must be a relative path of plain names")
    else:
        _absolute(table, "dest", name)
    template = _source(table, prefix, templates_from, base)
    text, key = table.text("text"), table.text("key")
    if sum((bool(template), "text" in table, bool(key))) != 1:
        table.problem("", "needs exactly one of src, text, key")
    if key and not key.startswith("/"):
        table.problem("key", "must start with /")
    mode = table.mode("mode", look.mode)
    owner, group = table.text("owner", look.owner), table.text("group", look.group)
    output = table.choice("format", "", FORMATS)
    made = FileSpec(
        name=name,
        template=template,
        text=text,
        key=key.removeprefix(prefix) if key.startswith(prefix + "/") else key,
        mode=mode,
        uid=uid_of(table, "owner", owner),
        gid=gid_of(table, "group", group),
        owner=f"{owner or os.geteuid()}:{group or os.getegid()}",
        format=output,
        link=_absolute(table, "link", table.text("link")) if commit == "dir" else "",
        guard=_guard(table.table("guard"), guard),
        wide="mode" in table,
    )
    table.done()
    return made


def _source(table: Table, prefix: str, allowed: tuple[str, ...], base: str) -> str:
    source = table.text("src")
    kind, _, rest = source.partition(":")
    if not source:
        return ""
    if kind not in ("file", "store") or not rest:
        table.problem("src", 'must be "file:path" or "store:/key"')
    elif kind not in allowed:
        table.problem("src", f"templates_from does not allow {kind}:")
    elif kind == "store" and not rest.startswith(prefix + "/"):
        table.problem("src", f"lies outside the prefix {prefix}")
    return f"file:{os.path.normpath(os.path.join(base, rest))}" if kind == "file" else source


def destinations(spec: SetSpec) -> Iterable[str]:
    """Every path that a set occupies."""
    if spec.commit == "dir":
        yield spec.dir
        yield from (file.link for file in spec.files if file.link)
    else:
        yield from (file.name for file in spec.files)


def _check_inside(table: Table, spec: SetSpec, roots: tuple[str, ...]) -> None:
    for path in destinations(spec):
        inside = any(path == r or path.startswith(r.rstrip("/") + "/") for r in roots)
        below = any(path.startswith(r.rstrip("/") + "/") for r in roots)
        if not (inside if path == spec.dir else below):
            table.problem("", f"{path} lies outside allow_roots")


def _check_sets(reader: Reader, settings: Settings) -> None:
    names: set[str] = set()
    taken: dict[str, str] = {}
    for place, spec in enumerate(settings.sets):
        if spec.name in names:
            reader.problem(("set", place, "name"), f"{spec.name} is used twice")
        names.add(spec.name)
        inner = [file.name for file in spec.files] if spec.commit == "dir" else []
        for name in {one for one in inner if inner.count(one) > 1}:
            reader.problem(("set", place, "file"), f"{name} is written twice")
        for path in destinations(spec):
            for other, owner in taken.items():
                if path == other or (
                    owner != spec.name
                    and (path.startswith(other + "/") or other.startswith(path + "/"))
                ):
                    reader.problem(("set", place), f"{path} collides with {other} of {owner}")
            taken[path] = spec.name
    for path in (settings.state_dir,):
        if any(path == r or path.startswith(r + "/") for r in settings.allow_roots):
            reader.problem(("agent", "state_dir"), "must not lie inside allow_roots")
