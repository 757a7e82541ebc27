"""The file operations that durability depends on, as a port: the product, and simulated disks.

A ``Disk`` is one directory. Every write is positioned, every sync is explicit, and a name is
durable once its directory was synced. Errors are ``OSError``; what they mean is decided by the
caller (reliability.md W8). Also here: who else may reach a path of ours (DEF-6, N11).

Not here: what the files hold (``wal``), files of the database engine (``history``).
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from configsvc.errors import ConfigError

LOCK_NAME: Final = "lock"


class File(Protocol):
    """An open file."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes; short only at the end of the file."""

    def sync(self) -> None:
        """Make the written bytes and the size durable; never retried after an error."""

    def size(self) -> int: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One directory's worth of files; names have no slashes."""

    def lock(self) -> bool:
        """Take the directory for the life of the process; False: somebody else has it."""

    def open(self, name: str) -> File:
        """An existing file, for reading and writing."""

    def create(self, name: str) -> File:
        """A new, empty file; one of that name is emptied. The name is not durable yet."""

    def rename(self, old: str, new: str) -> None:
        """Atomic; replaces ``new``."""

    def unlink(self, name: str) -> None: ...

    def sync_dir(self) -> None:
        """Make names durable: creations, renames and unlinks so far."""

    def names(self) -> list[str]:
        """Sorted."""

    def free_bytes(self) -> int: ...

    def close(self) -> None:
        """Give the lock back."""


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_fd", "_sync")

    def __init__(self, descriptor: int, *, sync: bool = True) -> None:
        self._fd = descriptor
        self._sync = sync

    def pwrite(self, data: bytes, offset: int) -> None:
        done = os.pwrite(self._fd, data, offset)
        if done == len(data):
            return
        view = memoryview(data)[done:]
        while view:
            offset += done
            done = os.pwrite(self._fd, view, offset)
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
        path: The directory; it exists and was checked (``check_private_path``).
        sync: False only under ``--unsafe-no-fsync``.
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        self.path = Path(path)
        self._sync = sync
        self._dir = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock: int | None = None

    def lock(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(LOCK_NAME, flags, 0o600, dir_fd=self._dir)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def open(self, name: str) -> OsFile:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        return OsFile(os.open(name, flags, dir_fd=self._dir), sync=self._sync)

    def create(self, name: str) -> OsFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return OsFile(os.open(name, flags, 0o600, dir_fd=self._dir), sync=self._sync)

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
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        os.close(self._dir)


# --- who else may reach a path -------------------------------------------------------------------


def check_private_path(
    path: str | os.PathLike[str], what: str = "data directory", *, create_mode: int | None = 0o700
) -> Path:
    """Check that only we can reach the directory or file ``path``; make a missing directory.

    Refused are: an owner that is not us, any bit for group or others, a symlink, and a parent that
    is neither ours nor root's or that others may write without the sticky bit. Modes of what
    exists are never changed: somebody may have looked inside already.

    Args:
        path: A directory, or an existing file.
        what: What it is called in messages.
        create_mode: Mode of a directory to be made; None: it must exist.

    Returns:
        The absolute path.

    Raises:
        ConfigError: exit 78, naming the fix.
    """
    target = Path(os.path.abspath(path))
    check_parents(target, what)
    if create_mode is not None and not os.path.lexists(target):
        _make(target, what, create_mode)
    try:
        facts = os.lstat(target)
    except OSError as error:
        raise ConfigError(f"{what} {target}: {error.strerror}", "name one that exists") from None
    if stat.S_ISLNK(facts.st_mode):
        raise ConfigError(
            f"{what} {target}: is a symlink", f"name its target: {os.readlink(target)}"
        )
    is_directory = stat.S_ISDIR(facts.st_mode)
    if not is_directory and not stat.S_ISREG(facts.st_mode):
        raise ConfigError(f"{what} {target}: neither directory nor file", "name another path")
    if facts.st_uid != os.geteuid():
        raise ConfigError(
            f"{what} {target}: belongs to user id {facts.st_uid}, not to us ({os.geteuid()})",
            f"chown {os.geteuid()} {target}",
        )
    if facts.st_mode & 0o077:
        mode = "700" if is_directory else "600"
        raise ConfigError(
            f"{what} {target}: mode {stat.S_IMODE(facts.st_mode):04o} lets others in",
            f"chmod {mode} {target}",
        )
    return target


def check_parents(target: Path, what: str) -> None:
    """Every existing parent is ours or root's, and others may write it only if it is sticky.

    A parent that is a symlink is judged by where it leads; the link itself lies in a directory
    that is judged as well.

    Raises:
        ConfigError: exit 78, naming the fix.
    """
    chain = dict.fromkeys([*target.parents, *target.parent.resolve().parents])
    chain[target.parent.resolve()] = None
    for parent in chain:
        try:
            facts = os.stat(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{what} {target}: {parent}: {error.strerror}", "") from None
        if facts.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"{what} {target}: its parent {parent} belongs to user id {facts.st_uid}",
                "move it below a directory of root's or of this user's",
            )
        if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
            raise ConfigError(
                f"{what} {target}: others may write its parent {parent}", f"chmod go-w {parent}"
            )


def _make(target: Path, what: str, mode: int) -> None:
    try:
        for parent in [p for p in reversed(target.parents) if not p.exists()]:
            _make_named(parent, 0o755)
        _make_named(target, mode)
    except OSError as error:
        raise ConfigError(
            f"{what} {target}: cannot be made: {error.strerror}", "name another path"
        ) from None


def _make_named(path: Path, mode: int) -> None:
    """Make a directory whose name outlives a power loss."""
    os.mkdir(path, mode)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
