"""``configagent check``: whether this node is as its configuration needs it (M2). Read only."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from configagent import confine
from configagent.config import check_secret_file, destinations, node_of
from configagent.errors import Exit, RefusedError, RenderError, SettingsError
from configagent.paths import Roots
from configagent.render import check_version, read_template
from configagent.report import certificate_lifetime_ns
from configagent.settings import SetSpec, Settings
from configagent.state import last_saved
from configsvc.client import EndpointError, TlsFiles, parse_endpoint
from configsvc.client.tls import channel_credentials

_FREE_BYTES_MIN: Final = 16 * 1024 * 1024
_DIAL_S: Final = 2.0
_CLOCK_S: Final = 60.0  # what a clock may differ


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    code: Exit
    text: str


def check_node(settings: Settings) -> list[Finding]:
    """Everything, in a fixed order."""
    found = [Finding("configuration", Exit.CONVERGED, settings.path)]
    found += _identity(settings)
    found += _tls(settings)
    for problem in Roots(settings.allow_roots).check():
        found.append(Finding("root", Exit.REFUSED, problem))
    for spec in settings.sets:
        found += _set(settings, spec)
    found += _endpoints(settings)
    found += _kernel()
    found += _disk(settings)
    found += _clock(settings)
    return found


def _identity(settings: Settings) -> Iterator[Finding]:
    try:
        check_version()
        if settings.store.key:
            check_secret_file(settings.store.key)
    except SettingsError as error:
        text = str(error)
        if not os.path.exists(settings.store.key):
            text += f": issue one, as with `configctl pki issue DIR agent {settings.node}`"
        yield Finding("identity", error.exit, text)
        return
    if not settings.store.cert:
        yield Finding("identity", Exit.CONVERGED, "none: only a loopback development server")
        return
    expires = certificate_lifetime_ns(settings.store.cert)[1]
    left = expires / 1e9 - time.time()
    code = Exit.CONVERGED if left > 0 else Exit.REFUSED
    text = (
        f"certificate of {settings.node} ends in {left / 3600:.1f} h"
        if expires
        else "no certificate"
    )
    yield Finding("identity", code if expires else Exit.REFUSED, text)


def _tls(settings: Settings) -> Iterator[Finding]:
    """Whether a connection could be made with the files as they are, and for this node."""
    store = settings.store
    if not any(parse_endpoint(one).secure for one in store.endpoints):
        return
    try:
        channel_credentials(TlsFiles(store.ca, store.cert, store.key))
    except EndpointError as error:
        yield Finding("tls", Exit.REFUSED, str(error))
    named = node_of(store.cert)
    if named and named != settings.node:
        text = f"the certificate is of {named}, node is {settings.node}: it may not report as that"
        yield Finding("identity", Exit.REFUSED, text)


def _set(settings: Settings, spec: SetSpec) -> Iterator[Finding]:
    roots = Roots(settings.allow_roots)
    for path in destinations(spec):
        try:
            with roots.folder_of(path) if path not in settings.allow_roots else roots.folder(path):
                pass
        except RefusedError as error:
            yield Finding(f"set {spec.name}", Exit.REFUSED, str(error))
    for file in spec.files:
        if file.template.startswith("file:"):
            try:
                read_template(file.template.removeprefix("file:"))
            except RenderError as error:
                yield Finding(f"set {spec.name}", Exit.RENDER, str(error))
    programs = [service.reload for service in spec.services]
    programs += [s.restart for s in spec.services if s.restart is not None]
    if spec.check is not None:
        programs.append(spec.check)
    for command in programs:
        if not os.access(command.argv[0], os.X_OK):
            yield Finding(f"set {spec.name}", Exit.USAGE, f"{command.argv[0]}: cannot be run")


def _endpoints(settings: Settings) -> Iterator[Finding]:
    for text in settings.store.endpoints:
        one = parse_endpoint(text)
        try:
            with socket.create_connection((one.host, one.port), _DIAL_S):
                yield Finding("endpoint", Exit.CONVERGED, text)
        except OSError as error:
            yield Finding("endpoint", Exit.OFFLINE, f"{text}: {error.strerror or error}")


def _kernel() -> Iterator[Finding]:
    version = confine.landlock_version()
    text = f"Landlock version {version}" if version else "no Landlock: O_NOFOLLOW walk only"
    yield Finding("kernel", Exit.CONVERGED, text)


def _disk(settings: Settings) -> Iterator[Finding]:
    for path in dict.fromkeys((settings.state_dir, *settings.allow_roots)):
        try:
            free = shutil.disk_usage(path).free
        except OSError:
            continue  # made at the first start, or already reported as a root
        code = Exit.CONVERGED if free >= _FREE_BYTES_MIN else Exit.DISK
        yield Finding("disk", code, f"{path}: {free // 1024 // 1024} MiB free")


def _clock(settings: Settings) -> Iterator[Finding]:
    """Whether the time can be true: not before what was signed or saved already."""
    now = time.time()
    issued = certificate_lifetime_ns(settings.store.cert)[0] / 1e9 if settings.store.cert else 0.0
    for what, past in (
        ("the certificate", issued),
        ("the agent's last save", last_saved(settings.state_dir)),
    ):
        if now < past - _CLOCK_S:
            text = f"{(past - now) / 3600:.1f} h before {what}: set the time"
            yield Finding("clock", Exit.REFUSED, text)
            return
    yield Finding("clock", Exit.CONVERGED, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))
