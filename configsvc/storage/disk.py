"""The file operations that durability depends on, as a port: the product, and simulated disks.

Every write is a positioned write, every sync is explicit, and names become durable by syncing
their directory. Errors are ``OSError``; what they mean is decided by the caller (W8).
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Protocol

from configsvc.errors import ConfigError

ZERO_BLOCK = bytes(1 << 20)


class File(Protocol):
    """An open file."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes; short only at the end of the file."""

    def sync(self) -> None:
        """Make the written bytes durable (fdatasync)."""

    def size(self) -> int: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One directory's worth of files; names have no slashes."""

    def open(self, name: str) -> File:
        """An existing file, for reading and writing."""

    def create_zeroed(self, name: str, size: int) -> File:
        """A new file filled with zeros, synced; its name is not durable yet."""

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, name: str) -> None: ...

    def sync_dir(self) -> None: ...

    def names(self) -> list[str]:
        """Sorted."""

    def free_bytes(self) -> int: ...


class OsFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int, *, sync: bool = True) -> None:
        self._fd = descriptor
        self._sync = sync

    def pwrite(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset += done
            view = view[done:]

    def pread(self, length: int, offset: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def sync(self) -> None:
        if self._sync:
            os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)


class OsDisk:
    """A directory of the operating system.

    Args:
        path: The directory; it exists and was checked.
        sync: False only under ``--unsafe-no-fsync``.
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        self.path = Path(path)
        self._sync = sync
        self._dir = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock: int | None = None

    def lock(self) -> bool:
        """Take the directory's lock for the life of the process; False: somebody has it."""
        self._lock = os.open(
            "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._dir
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            return False
        return True

    def open(self, name: str) -> OsFile:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        return OsFile(os.open(name, flags, dir_fd=self._dir), sync=self._sync)

    def create_zeroed(self, name: str, size: int) -> OsFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        made = OsFile(os.open(name, flags, 0o600, dir_fd=self._dir), sync=self._sync)
        for at in range(0, size, len(ZERO_BLOCK)):
            made.pwrite(ZERO_BLOCK[: size - at], at)
        made.sync()
        return made

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._dir, dst_dir_fd=self._dir)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._dir)

    def sync_dir(self) -> None:
        if self._sync:
            os.fsync(self._dir)

    def names(self) -> list[str]:
        return sorted(os.listdir(self._dir))

    def free_bytes(self) -> int:
        facts = os.fstatvfs(self._dir)
        return facts.f_bavail * facts.f_frsize

    def close(self) -> None:
        os.close(self._dir)
        if self._lock is not None:
            os.close(self._lock)


def private_directory(path: str | os.PathLike[str], what: str) -> Path:
    """Make ``path`` a directory of ours, 0700, or check that it is one (DEF-6, N11).

    Raises:
        ConfigError: wrong owner or mode, a symlink, or a parent that others may write; exit 78.
    """
    target = Path(os.path.abspath(path))
    if not os.path.lexists(target):
        try:
            os.makedirs(target, mode=0o700)
        except OSError as error:
            raise ConfigError(f"{what} {target}: {error.strerror}", "name another path") from None
    facts = os.lstat(target)
    if not stat.S_ISDIR(facts.st_mode):
        raise ConfigError(f"{what} {target}: not a directory, or a symlink", "name a directory")
    if facts.st_uid != os.geteuid():
        raise ConfigError(f"{what} {target}: owned by somebody else", f"chown it: {target}")
    if facts.st_mode & 0o077:
        raise ConfigError(f"{what} {target}: others may reach it", f"chmod 700 {target}")
    check_parents(target, what)
    return target


def check_parents(target: Path, what: str) -> None:
    """Every parent is ours or root's, and nobody else may write it unless it is sticky."""
    for parent in target.parents:
        facts = os.stat(parent)
        if facts.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{what} {target}: {parent} is somebody else's", "move it elsewhere")
        if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
            raise ConfigError(f"{what} {target}: others may write {parent}", f"chmod go-w {parent}")
