"""Small helpers of the commit protocols: what is on disk already, and waiting for the disk.

Not here: which files there are and in which order they become visible (``commits``).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import time
from typing import Final, NamedTuple

from configagent.paths import SURE_NS, look_at, read_regular, step_error
from configsvc import limits

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Wanted(NamedTuple):
    """What a file should be."""

    size: int
    mode: int
    uid: int
    gid: int
    digest: str


def digest(key: bytes, content: bytes) -> str:
    """Keyed digest of a file's content: says nothing to those without the node's key."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


class Seen:
    """Files whose content was compared by digest, and what the kernel said of them then.

    A file of which the kernel says the same is not read again for a commit. The drift scan reads
    everything, always: what escapes here (a change through a mapping of memory) is found there.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, tuple[int, ...]]] = {}

    def is_same(self, folder: int, leaf: str, path: str, wanted: Wanted, key: bytes) -> bool:
        """Whether the file at ``path`` is as wanted.

        Raises:
            RefusedError: something else than a plain file is there.
        """
        info = look_at(folder, leaf, path)
        rights = (wanted.mode, wanted.uid, wanted.gid)
        if info is None or info.st_size != wanted.size or _rights(info) != rights:
            return False
        if self._known.get(path) == (wanted.digest, _stamp(info)):
            return True
        found, info = read_regular(folder, leaf, wanted.size + 1)
        if _rights(info) != rights or digest(key, found) != wanted.digest:
            return False
        if time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > SURE_NS:
            if len(self._known) >= limits.AGENT_SEEN_FILES_MAX:
                self._known.clear()
            self._known[path] = (wanted.digest, _stamp(info))
        return True


def _rights(info: os.stat_result) -> tuple[int, int, int]:
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid


def _stamp(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class Mounts:
    """What is mounted where, as the kernel says now. Opened before this process is confined."""

    def __init__(self) -> None:
        try:
            self._table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._table = -1  # the rename will say so, later

    def points(self) -> set[str]:
        """Every mount point; a file among them cannot be replaced by a rename."""
        if self._table < 0:
            return set()
        os.lseek(self._table, 0, os.SEEK_SET)
        pieces = []
        while piece := os.read(self._table, 64 * limits.KIB):
            pieces.append(piece)
        lines = b"".join(pieces).decode(errors="replace").splitlines()
        return {_ESCAPED.sub(_unescaped, line.split(" ")[4]) for line in lines}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))


class Together:
    """Files that are written and wait for the disk: it puts many of them down in one turn.

    Folders come after the files, so that no name is on disk before its content.
    """

    def __init__(self) -> None:
        self._files: list[tuple[int, str]] = []
        self._folders: list[tuple[int, str]] = []

    def __enter__(self) -> Together:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(self._files)
        self._close(self._folders)

    def add(self, descriptor: int, name: str) -> None:
        """One more file; the descriptor is ours from here on.

        Raises:
            StepError: as ``sync``.
        """
        self._files.append((descriptor, name))
        if len(self._files) >= limits.AGENT_FILES_OPEN_MAX:
            self._sync(self._files)

    def add_folder(self, descriptor: int, name: str) -> None:
        """One more folder; the descriptor stays the caller's.

        Raises:
            StepError: as ``sync``.
        """
        self._folders.append((os.dup(descriptor), name))
        if len(self._folders) >= limits.AGENT_FILES_OPEN_MAX:
            self.sync()

    def sync(self) -> None:
        """Wait until all of them are on disk.

        Raises:
            StepError: one may not be.
        """
        self._sync(self._files)
        self._sync(self._folders)

    def _sync(self, what: list[tuple[int, str]]) -> None:
        for descriptor, name in what:
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise step_error(error, name) from None
        self._close(what)

    def _close(self, what: list[tuple[int, str]]) -> None:
        for descriptor, _ in what:
            os.close(descriptor)
        what.clear()
