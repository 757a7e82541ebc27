"""Putting new stores in the place of a data directory's old ones, in steps that a kill may stop.

New stores are made in ``reborn/``. Once its mark is durable the change counts: what is there takes
its place, at once or at the next start, and what was there before is kept in ``before-<id>/`` for
the operator to delete. Without the mark nothing has happened, and ``reborn/`` is deleted.

Not here: what the new stores hold (``server.restore``).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from configsvc.storage.history.engine import sync_dir

REBORN_DIR: Final = "reborn"
STORE_DIRS: Final = ("log", "sql", "local")
_MARK: Final = "ready"


def begin(data: Path) -> Path:
    """An empty place for new stores."""
    place = data / REBORN_DIR
    if place.exists():
        shutil.rmtree(place)
    for name in ("", *STORE_DIRS):
        (place / name).mkdir(mode=0o700)
    return place


def commit(data: Path, old_cluster: str) -> None:
    """The new stores are whole and synced: from here on they count.

    Args:
        data: The data directory.
        old_cluster: Names the folder that keeps what was there before.
    """
    mark = data / REBORN_DIR / _MARK
    for name in STORE_DIRS:
        sync_dir(data / REBORN_DIR / name)
    with open(mark, "w", encoding="ascii") as file:
        file.write(old_cluster)
        file.flush()
        os.fsync(file.fileno())
    sync_dir(mark.parent)
    sync_dir(data)
    finish(data)


def finish(data: Path) -> bool:
    """Do, or go on with, the change that counts; throw away one that does not.

    Returns:
        Whether new stores took their place.
    """
    place = data / REBORN_DIR
    mark = place / _MARK
    if not mark.is_file():
        if place.exists():
            shutil.rmtree(place)
        return False
    before = data / f"before-{mark.read_text('ascii')}"
    before.mkdir(mode=0o700, exist_ok=True)
    for name in STORE_DIRS:
        if not (place / name).is_dir():
            continue  # moved before the last kill
        if (data / name).is_dir():
            os.rename(data / name, before / name)
            sync_dir(before)
        os.rename(place / name, data / name)
        sync_dir(data)
    mark.unlink()
    sync_dir(place)
    shutil.rmtree(place)
    if not any(before.iterdir()):
        before.rmdir()
    return True
