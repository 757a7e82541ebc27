"""Noticing that somebody changed a managed file (agent.md H1, H2).

The truth is the writer's hash scan, every interval and whenever a hint came. The hint is the
kernel's file events through watchdog; when there are none, detection is merely slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Final

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from configagent.settings import SetSpec

_READS: Final = frozenset({EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE})


def watched_folders(spec: SetSpec) -> set[str]:
    """Folders whose events hint at a change of the set."""
    if spec.commit == "dir":
        links = {os.path.dirname(file.link) for file in spec.files if file.link}
        return {spec.dir, *links}
    return {os.path.dirname(file.name) for file in spec.files}


class _Handler(FileSystemEventHandler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _READS:
            for path in (event.src_path, event.dest_path):
                if path:
                    self._tell(os.fsdecode(path))


class Hints:
    """File events for several sets; ``tell`` is called on the event loop with a set's name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[str], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._observer: BaseObserver | None = None
        self._folders: dict[str, set[str]] = {}
        self._recursive: set[str] = set()
        self._unwatched: set[str] = set()

    def start(self, specs: Iterable[SetSpec]) -> list[str]:
        """Watch the sets' folders; returns those that cannot be watched (yet)."""
        chosen = list(specs)
        self._folders = {spec.name: watched_folders(spec) for spec in chosen}
        self._recursive = {spec.dir for spec in chosen if spec.commit == "dir"}
        self._unwatched = set().union(*self._folders.values())
        # A folder made under a recursive watch is met twice when its event and the library's own
        # walk cross; the second callback is the first one again. Nothing is lost by it.
        warnings.filterwarnings("ignore", r"Callback with id '\d+' already exists", RuntimeWarning)
        observer = Observer()
        try:
            observer.start()
        except OSError:
            return sorted(self._unwatched)
        self._observer = observer
        return self.try_again()

    def try_again(self) -> list[str]:
        """Watch what could not be watched before; returns what still cannot."""
        if self._observer is None:
            return sorted(self._unwatched)
        for folder in sorted(self._unwatched):
            try:
                recursive = folder in self._recursive
                self._observer.schedule(_Handler(self._event), folder, recursive=recursive)
            except OSError:
                continue
            self._unwatched.discard(folder)
        return sorted(self._unwatched)

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(2.0)

    def _event(self, path: str) -> None:
        """From watchdog's thread."""
        if os.path.basename(path).startswith(".configagent-"):
            return
        for name, folders in self._folders.items():
            if any(path == f or path.startswith(f.rstrip("/") + "/") for f in folders):
                with contextlib.suppress(RuntimeError):  # the loop is closing
                    self._loop.call_soon_threadsafe(self._tell, name)
