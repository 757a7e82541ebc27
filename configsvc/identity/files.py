"""Writing and reading the PKI's files: whole or not at all, and keys for nobody else's eyes."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from configsvc.errors import ConfigError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
_READ_BYTES_MAX: Final = 64 * 1024


def make_private_directory(path: Path) -> None:
    """Make ``path`` with mode 0700, or check that it is a directory of ours without other bits.

    Raises:
        ConfigError: it is a symlink, somebody else's, or reachable by others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not stat.S_ISDIR(facts.st_mode):
        raise ConfigError(f"{path}: not a directory", "name a directory")
    if facts.st_uid != os.geteuid():
        raise ConfigError(f"{path}: owned by somebody else", "name a directory of your own")
    if facts.st_mode & 0o077:
        raise ConfigError(f"{path}: others may reach it", f"chmod 700 {path}")


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write ``data`` to ``path`` in one step and make it durable.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, mode)
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror}", "name a directory of your own") from None


def read_file(path: Path) -> bytes:
    """The bytes of a small file.

    Raises:
        ConfigError: missing, unreadable or too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_READ_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > _READ_BYTES_MAX:
        raise ConfigError(f"{path}: too long")
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
