"""Takes back what a killed process never synced, as a power cut may.

``recorder.c`` writes down the former content of what a process overwrites, and its syncs. Per
sector that was written since the last sync of its file, the newest or the synced content stays:
all of one kind, or any mixture, so writes are lost, torn and reordered. The file's length is the
synced one or the newest. Names are left as the process made them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

SECTOR = 512
_RECORD = struct.Struct("=6Q")
_WRITE, _SYNC = ord("w"), ord("s")


def take_back(undo: Path, directory: Path, chance: Random, lost: float) -> int:
    """Roll files below ``directory`` back; how many sectors lost their newest content.

    Args:
        undo: What the recorder wrote; it is removed.
        directory: Where the files are.
        chance: Which sectors.
        lost: Share of sectors that are lost: 0 none, 1 all that were not synced.
    """
    places = {path.stat().st_ino: path for path in directory.rglob("*") if path.is_file()}
    writes, synced = _read(undo)
    fates: dict[tuple[int, int], bool] = {}
    lengths: dict[int, int] = {}
    for inode, sequence, offset, size, former in reversed(writes):
        if sequence <= synced.get(inode, 0) or inode not in places:
            continue
        lengths[inode] = size  # the earliest wins: the length at the last sync
        with places[inode].open("r+b") as file:
            end = offset + len(former)
            for sector in range(offset // SECTOR, -(-end // SECTOR)):
                if not fates.setdefault((inode, sector), chance.random() < lost):
                    continue
                low, high = max(offset, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                file.seek(low)
                file.write(former[low - offset : high - offset])
    shortened = 0
    for inode, size in lengths.items():
        if size < places[inode].stat().st_size and chance.random() < lost:
            shortened += -(-(places[inode].stat().st_size - size) // SECTOR)
            with places[inode].open("r+b") as file:
                file.truncate(size)
    for path in places.values():
        if path.name.endswith("-shm"):
            path.unlink()  # shared memory: gone with the machine
    undo.unlink(missing_ok=True)
    return sum(fates.values()) + shortened


def _read(undo: Path) -> tuple[list[tuple[int, int, int, int, bytes]], dict[int, int]]:
    """(inode, sequence, offset, former size, former content) of writes; last sync by inode."""
    data = undo.read_bytes() if undo.exists() else b""
    writes: list[tuple[int, int, int, int, bytes]] = []
    synced: dict[int, int] = {}
    at = 0
    while at + _RECORD.size <= len(data):
        kind, inode, sequence, offset, length, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        former = data[at : at + length]
        at += length
        if len(former) < length:
            break  # killed while it wrote this down: the write itself never began
        if kind == _WRITE:
            writes.append((inode, sequence, offset, size, former))
        elif kind == _SYNC:
            synced[inode] = max(synced.get(inode, 0), sequence)
    return writes, synced
