"""The next segment's file, made in advance, a step at a time.

A segment must be zero-filled and not only allocated: the first touch of an unwritten extent costs
a metadata commit on every sync. Filling takes long, so it is cut into synced steps that fit
between two frames. A file has its final name ``SPARE_NAME`` only when it is whole; a segment that
compaction gave up becomes the spare as it is.

Rules of the directory: at most one spare and one file in the making; neither holds anything.
"""

from __future__ import annotations

from typing import Final

from configsvc import limits
from configsvc.errors import ensure
from configsvc.storage.disk import Disk, File
from configsvc.storage.wal.segments import MAKING_NAME, SPARE_NAME

_ZEROS: Final = bytes(limits.WAL_PREPARE_STEP_BYTES)


class Spare:
    """Makes and hands out segment files of ``size`` bytes."""

    def __init__(self, disk: Disk, size: int) -> None:
        self._disk = disk
        self._size = size
        self._making: File | None = None
        self._filled = 0
        self.ready = False
        self.recycled = False  # the ready one had another life

    def adopt(self) -> None:
        """Take what an earlier process left: a whole spare, or rubbish to remove."""
        names = self._disk.names()
        rubbish = [name for name in (MAKING_NAME,) if name in names]
        if SPARE_NAME in names:
            file = self._disk.open(SPARE_NAME)
            whole = file.size() == self._size
            file.close()
            if whole:
                self.ready = self.recycled = True  # who knows how far it was written
            else:
                rubbish.append(SPARE_NAME)
        for name in rubbish:
            self._disk.unlink(name)
        if rubbish:
            self._disk.sync_dir()  # before others take their names

    def step(self) -> bool:
        """Fill some more of the next file; True while there is more to do.

        Raises:
            OSError: among others, no space; the step may be tried again later.
        """
        if self.ready:
            return False
        if self._making is None:
            self._making = self._disk.create(MAKING_NAME)
            self._filled = 0
        chunk = min(len(_ZEROS), self._size - self._filled)
        self._making.pwrite(_ZEROS if chunk == len(_ZEROS) else _ZEROS[:chunk], self._filled)
        self._making.sync()
        self._filled += chunk
        if self._filled < self._size:
            return True
        self._making.close()
        self._making = None
        self._disk.rename(MAKING_NAME, SPARE_NAME)
        self.ready, self.recycled = True, False
        return False

    def take(self, size: int) -> tuple[File, bool]:
        """(a file of at least ``size`` bytes under ``SPARE_NAME``, whether it is recycled).

        The caller writes the header, syncs, and gives it its name.
        """
        if size > self._size:
            return self._oversize(size), False
        while self.step():
            pass
        ensure(self.ready, "a spare that was filled is ready")
        self.ready = False
        return self._disk.open(SPARE_NAME), self.recycled

    def recycle(self, name: str, size: int) -> None:
        """A segment that is given up becomes the spare, or goes if there is one already."""
        if self.ready or size != self._size:
            self._disk.unlink(name)
        else:
            self._disk.rename(name, SPARE_NAME)
            self.ready = self.recycled = True
        self._disk.sync_dir()  # one by one: a crash must leave a contiguous run (W4)

    def close(self) -> None:
        """Close the file in the making; the next start removes it."""
        if self._making is not None:
            self._making.close()
            self._making = None

    def _oversize(self, size: int) -> File:
        """For a frame that no ordinary segment holds; made on the spot."""
        if self.ready:
            self._disk.unlink(SPARE_NAME)
            # Were the new one named before this is on disk, the old one might get its name (W4).
            self._disk.sync_dir()
            self.ready = False
        file = self._disk.create(SPARE_NAME)
        for at in range(0, size, len(_ZEROS)):
            file.pwrite(_ZEROS[: size - at], at)
        return file
