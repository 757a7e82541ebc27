"""Reaching a destination safely (agent.md B1, B2, B8).

Every path is walked from ``/`` one component at a time with ``O_NOFOLLOW``, and everything after
that happens relative to the descriptor of its folder: a folder exchanged for a symlink in the
meantime changes nothing. The only symlinks ever touched are those that the agent made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from configagent.errors import RefusedError, StepError, WriteError
from configsvc import limits

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSAGE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # walked, not read
SURE_NS: Final = 2_000_000_000  # of a file that changed this long ago stat shows the next change
_REFUSED: Final = {
    errno.ELOOP: "a symlink is in the way",
    errno.ENOTDIR: "a part of the path is no folder, or a symlink",
    errno.ENOENT: "the folder does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EBUSY: "it is a mount point: mount its folder instead",
    errno.EXDEV: "it lies on another filesystem than its folder",
    errno.EISDIR: "it is a folder",
    errno.ENOTEMPTY: "it is a folder",
    errno.EEXIST: "something is there already",
}


def step_error(error: OSError, path: str) -> StepError:
    """The outcome of a failed system call on a destination."""
    reason = _REFUSED.get(error.errno or 0)
    if reason is not None:
        return RefusedError(f"{path}: {reason}", path)
    return WriteError(f"{path}: {error.strerror}", path)


def open_folder(path: str) -> int:
    """Descriptor of a folder, no symlink in any component.

    Raises:
        OSError: ELOOP or ENOTDIR for a symlink, ENOENT for nothing.
    """
    parts = [part for part in path.split("/") if part]
    descriptor = os.open("/", _PASSAGE)
    try:
        for place, part in enumerate(parts, start=1):
            flags = _FOLDER if place == len(parts) else _PASSAGE
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Roots:
    """The folders below which the agent may write."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.roots = roots

    def check(self) -> list[str]:
        """What is wrong with the roots themselves; empty when all is well."""
        found = []
        for root in self.roots:
            try:
                descriptor = open_folder(root)
            except OSError as error:
                reason = _REFUSED.get(error.errno or 0, error.strerror or "")
                real = os.path.realpath(root)
                if real != root and os.path.isdir(real):
                    reason = f"a part of it is a symlink: write the real path {real}"
                found.append(f"{root}: {reason}")
                continue
            reason = _foreign(os.fstat(descriptor))
            os.close(descriptor)
            if reason:
                found.append(f"{root}: {reason}")
        return found

    @contextmanager
    def folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder that holds ``path``, and the last component.

        Raises:
            RefusedError: outside the roots, a symlink in the way, a root that others may write.
        """
        folder, leaf = _split(path)
        with self.folder(folder, path) as descriptor:
            yield descriptor, leaf

    @contextmanager
    def folder(self, folder: str, shown: str = "") -> Iterator[int]:
        """Descriptor of a folder at or below a root; raises as ``folder_of``."""
        shown = shown or folder
        root = next((r for r in self.roots if folder == r or folder.startswith(r + "/")), None)
        if root is None or os.path.normpath(folder) != folder:
            raise RefusedError(f"{shown}: outside allow_roots", shown)
        descriptor = -1
        try:
            descriptor = open_folder(root)
            reason = _foreign(os.fstat(descriptor))
            if reason:
                raise RefusedError(f"{root}: {reason}", shown)
            for part in folder[len(root) :].split("/"):
                if part:
                    inner = os.open(part, _FOLDER, dir_fd=descriptor)
                    os.close(descriptor)
                    descriptor = inner
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise step_error(error, shown) from None
        except RefusedError:
            os.close(descriptor)
            raise
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class OpenFolders:
    """Folders below the roots that stay open for the length of one step, each walked to once."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._stack = ExitStack()
        self._open: dict[str, int] = {}

    def __enter__(self) -> OpenFolders:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, path: str) -> tuple[int, str]:
        """As ``Roots.folder_of``; the descriptor stays ours, and open until the next call at least.

        Raises:
            RefusedError: as there.
        """
        folder, leaf = _split(path)
        if folder not in self._open:
            if len(self._open) >= limits.AGENT_FOLDERS_OPEN_MAX:
                self._stack.close()
                self._open.clear()
            self._open[folder] = self._stack.enter_context(self._roots.folder(folder, path))
        return self._open[folder], leaf


def _split(path: str) -> tuple[str, str]:
    folder, _, leaf = path.rpartition("/")
    if not leaf or leaf in (".", "..") or "\0" in path:
        raise RefusedError(f"{path}: not a file name", path)
    return folder or "/", leaf


def _foreign(info: os.stat_result) -> str:
    if info.st_uid not in (0, os.geteuid()):
        return f"owned by uid {info.st_uid}, not by root or the agent"
    if info.st_mode & 0o022:
        return f"mode {stat.S_IMODE(info.st_mode):04o} lets others write"
    return ""


def look_at(folder: int, leaf: str, path: str) -> os.stat_result | None:
    """The regular file at a destination; None when nothing is there.

    Raises:
        RefusedError: a symlink, device, fifo, folder, or a file with a second name.
    """
    try:
        info = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise step_error(error, path) from None
    if stat.S_ISLNK(info.st_mode):
        raise RefusedError(f"{path}: is a symlink", path)
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError(f"{path}: is no regular file", path)
    if info.st_nlink > 1:
        raise RefusedError(f"{path}: has {info.st_nlink} names (hard links)", path)
    return info


def read_regular(folder: int, leaf: str, most: int) -> tuple[bytes, os.stat_result]:
    """Content of a regular file, at most ``most`` bytes; never waits on a fifo.

    Raises:
        OSError: it cannot be opened, or is no regular file (EINVAL).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(leaf, flags, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        return file.read(most), info


def write_new(folder: int, leaf: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    """A new file; owner and mode are right before the first byte, all of it is on disk after.

    Raises:
        OSError: nothing of it stays.
    """
    descriptor = write_unsynced(folder, leaf, content, mode, uid, gid)
    try:
        os.fsync(descriptor)
    except OSError:
        os.unlink(leaf, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)


def write_unsynced(folder: int, leaf: str, content: bytes, mode: int, uid: int, gid: int) -> int:
    """The same without waiting for the disk; returns the descriptor to sync and close.

    Raises:
        OSError: nothing of it stays.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(leaf, flags, 0o600, dir_fd=folder)
    try:
        info = os.fstat(descriptor)
        if (info.st_uid, info.st_gid) != (uid, gid):
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.close(descriptor)
        os.unlink(leaf, dir_fd=folder)
        raise
    return descriptor
