"""``configagent doctor``: what the kernel gives this agent, and what is weaker than its default.

It says what holds and changes nothing. Whether the node can work at all is ``checkup``'s matter;
here everything works, only less safely than it could.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from configagent import confine
from configagent.child import Child, ChildLostError
from configagent.config import MODE_MAX
from configagent.settings import FileSpec, Guard, Limits, SetSpec, Settings

_WATCHES: Final = "/proc/sys/fs/inotify/max_user_watches"
_DRIFT_S: Final = 60.0
_RECONCILE_S: Final = 300.0
_HEARTBEAT_S: Final = 10.0
_KEEP: Final = 3


class Note(NamedTuple):
    """One thing that was looked at."""

    what: str
    weaker: bool
    text: str


def examine(settings: Settings) -> list[Note]:
    """Everything, in a fixed order."""
    weak = weak_settings(settings)
    well = Note("settings", False, "none is weaker than its default")
    return [*_kernel(), *_renderer(), *_account(settings), *(weak or [well])]


def weak_settings(settings: Settings) -> list[Note]:
    """Every setting that is weaker than its default."""
    found = list(_node_settings(settings))
    for spec in settings.sets:
        found += [Note(f"set {spec.name}", True, text) for text in _weak_set(spec)]
    return found


# --- the node -------------------------------------------------------------------------------------


def _kernel() -> Iterator[Note]:
    version = confine.landlock_version()
    text = (
        f"version {version}: the writer is held to allow_roots by the kernel"
        if version
        else "none: a path is walked without following links, nothing else holds the writer"
    )
    yield Note("landlock", not version, text)
    try:
        with open(_WATCHES, encoding="ascii") as file:
            watches = int(file.read())
    except (OSError, ValueError):
        watches = 0
    text = f"{watches} watches: hand edits are seen at once" if watches else "none: by scans only"
    yield Note("file events", not watches, text)


def _renderer() -> Iterator[Note]:
    """What a render worker of this configuration really got: one is started and asked."""

    async def one() -> list[int]:
        child = Child("configagent.render_worker")
        try:
            answer = await child.start()
        finally:
            await child.close()
        return list(answer.get("level", ()))

    try:
        landlock, seccomp, unprivileged = asyncio.run(one())
    except (ChildLostError, ValueError) as error:
        yield Note("render worker", True, f"did not start: {error}")
        return
    missing = [
        text
        for held, text in (
            (landlock, "Landlock"),
            (seccomp, "the filter of system calls"),
            (unprivileged, "an account without rights"),
        )
        if not held
    ]
    text = f"without {' and '.join(missing)}" if missing else "no files, programs, network, rights"
    yield Note("render worker", bool(missing), text)


def _account(settings: Settings) -> Iterator[Note]:
    root = os.geteuid() == 0
    text = "root: an account of its own is enough unless files get other owners"
    yield Note("account", root, text if root else f"uid {os.geteuid()}")
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    kept = bool(credentials) and settings.cache_key.startswith(credentials + "/")
    text = (
        "a credential of the unit" if kept else "a file with mode 0600: who copies the disk has it"
    )
    yield Note("node key", False, text)


# --- settings -------------------------------------------------------------------------------------


def _node_settings(settings: Settings) -> Iterator[Note]:
    for text in _weak_store(settings):
        yield Note("settings", True, text)
    if settings.allow_env:
        names = ", ".join(settings.allow_env)
        yield Note("settings", True, f"allow_env: templates may read {names}")
    for name in Limits.__slots__:
        now, default = getattr(settings.limits, name), getattr(Limits(), name)
        if now > default:
            yield Note("settings", True, f"limits.{name}: {now}, default {default}")
    if settings.log_level in ("warning", "error"):
        yield Note("settings", True, f"log.level {settings.log_level}: commits are not logged")


def _weak_store(settings: Settings) -> Iterator[str]:
    store = settings.store
    plain = [one for one in store.endpoints if urlsplit(one).scheme == "http"]
    if plain:
        yield f"endpoints: {', '.join(plain)} without TLS (loopback only)"
    elif not store.ca:
        yield "tls.ca: none, any certificate of the system's authorities is taken"
    if not store.cert:
        yield "tls.cert: none, the agent has no identity"
    if store.heartbeat_s > _HEARTBEAT_S:
        yield f"heartbeat {store.heartbeat_s:g}s: a dead stream is noticed later than in 20s"
    if store.reconcile_s > _RECONCILE_S:
        yield f"reconcile {store.reconcile_s:g}s: a lost event stays longer than 300s"


def _weak_set(spec: SetSpec) -> Iterator[str]:
    if spec.drift_policy != "repair":
        yield f"drift.policy {spec.drift_policy}: a hand edit stays"
    elif spec.drift_interval_s > _DRIFT_S:
        yield f"drift.interval {spec.drift_interval_s:g}s, default {_DRIFT_S:g}s"
    if spec.keep_generations < _KEEP:
        yield f"keep_generations {spec.keep_generations}, default {_KEEP}"
    for file in spec.files:
        for text in _weak_file(file):
            yield f"{file.name}: {text}"


def _weak_file(file: FileSpec) -> Iterator[str]:
    if file.mode & ~MODE_MAX:
        yield f"mode {file.mode:04o} is wider than {MODE_MAX:04o}"
    default, guard = Guard(), file.guard
    if default.forbid_empty and not guard.forbid_empty:
        yield "guard.forbid_empty is off"
    if guard.max_bytes > default.max_bytes:
        yield f"guard.max_bytes {guard.max_bytes}, default {default.max_bytes}"
    for name in ("max_shrink", "max_grow"):
        now, usual = getattr(guard, name), getattr(default, name)
        if not now or now > usual:
            yield f"guard.{name} {f'{now}%' if now else 'off'}, default {usual}%"
