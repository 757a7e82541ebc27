"""Taking the directory, and having no space for the first write of a start."""

from __future__ import annotations

import errno
from typing import Final

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.disk import Disk

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def take_lock(disk: Disk) -> None:
    """Hold the directory for the life of the process (W4).

    Raises:
        FatalError: 84, somebody else holds it.
    """
    if not disk.lock():
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            "stores disagree: another process holds the lock of the log directory",
            "stop the other process first",
        )


class SpaceAtStart:
    """Context in which "no space" becomes exit 81, which says how much is needed."""

    def __init__(self, disk: Disk, needed: int) -> None:
        self._disk = disk
        self._needed = needed

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise FatalError(
                ExitCode.NO_SPACE,
                f"no space for the next log segment: it takes {self._needed} bytes, "
                f"{self._disk.free_bytes()} are free",
                f"free {2 * self._needed} bytes on the disk of the log",
            ) from None
