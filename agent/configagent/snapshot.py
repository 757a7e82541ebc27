"""The keys of one set as they stood at one revision. Pure.

Keys are relative to the set's prefix and start with a slash. Bounds are judged here: a set that
is too large is held as a whole, never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from configagent.settings import Limits


class Entry(NamedTuple):
    """One key's value and the revision that wrote it."""

    value: bytes
    mod_revision: int


class Change(NamedTuple):
    """A key that changed; ``entry`` None: deleted."""

    key: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys of a set at ``revision``."""

    revision: int
    keys: Mapping[str, Entry] = field(default_factory=dict)
    size: int = field(default=-1, compare=False)  # bytes of keys and values; -1: to be counted

    def __post_init__(self) -> None:
        if self.size < 0:
            size = sum(len(name) + len(entry.value) for name, entry in self.keys.items())
            object.__setattr__(self, "size", size)

    def after(self, changes: Iterable[Change], revision: int) -> Snapshot:
        """The snapshot with changes applied in order."""
        keys, size = dict(self.keys), self.size
        for change in changes:
            before = keys.pop(change.key, None)
            if before is not None:
                size -= len(change.key) + len(before.value)
            if change.entry is not None:
                keys[change.key] = change.entry
                size += len(change.key) + len(change.entry.value)
        return Snapshot(max(revision, self.revision), keys, size)

    def differing(self, other: Snapshot) -> set[str]:
        """Keys that are not the same in both."""
        names = self.keys.keys() | other.keys.keys()
        return {name for name in names if self.keys.get(name) != other.keys.get(name)}

    def doubts(self, listed: Snapshot) -> dict[tuple[str, int], int]:
        """What a newer list has otherwise, deleted keys included.

        By key and the revision that we know of it (0: none), since which revision at the latest:
        when ``self.revision`` is past that, an event was lost.
        """
        ours = {key: entry.mod_revision for key, entry in self.keys.items()}
        found = {
            (key, ours.get(key, 0)): entry.mod_revision
            for key, entry in listed.keys.items()
            if ours.get(key, 0) < entry.mod_revision
        }
        for key, revision in ours.items():
            if key not in listed.keys and revision <= listed.revision:
                found[key, revision] = listed.revision
        return found

    def values(self) -> dict[str, bytes]:
        """Plain values by key."""
        return {name: entry.value for name, entry in self.keys.items()}

    def too_large(self, bounds: Limits) -> str:
        """Which bound is broken, with numbers; "" when none is."""
        if len(self.keys) > bounds.keys:
            return f"{len(self.keys)} keys, more than {bounds.keys}"
        if self.size <= min(bounds.value, bounds.set):
            return ""
        for name, entry in self.keys.items():
            if len(entry.value) > bounds.value:
                return f"key {name}: {len(entry.value)} bytes, more than {bounds.value}"
        return f"{self.size} bytes, more than {bounds.set}" if self.size > bounds.set else ""


def content_revision(keys: Mapping[str, Entry], read: Iterable[str]) -> int:
    """The highest revision among the keys that were really read; 0 when none of them exists."""
    return max((keys[name].mod_revision for name in read if name in keys), default=0)


def redact(text: str, snapshot: Snapshot, most: int) -> str:
    """A text of a program without the values of the set, at most ``most`` characters."""
    text = " ".join(text.split())
    for entry in snapshot.keys.values():
        if len(entry.value) >= 4:
            for part in entry.value.decode(errors="replace").split("\n"):
                if len(part.strip()) >= 4:
                    text = text.replace(" ".join(part.split()), "…")
    return text[:most]
