"""A consistent copy of the whole database file, sealed as it lies: for backups and snapshots.

The copy is made by SQLite's own backup in one read transaction, into a private file beside the
database that has no name any more when it is handed out: nothing is left behind, however the
reader of the copy ends. What a killed process left is removed at start (``snapshot.generations``).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import BinaryIO, Final

from configsvc.storage.history.engine import private_files

COPY_PREFIX: Final = "copy-"


def open_copy(source: sqlite3.Connection, directory: Path) -> BinaryIO:
    """Copy the database of ``source``; the caller reads and closes the result.

    Raises:
        sqlite3.Error: the source cannot be read, or the disk is full.
    """
    path = directory / f"{COPY_PREFIX}{os.urandom(8).hex()}.db"
    try:
        with private_files():
            target = sqlite3.connect(path, isolation_level=None)
            try:
                # The copy is thrown away if this process dies: it needs no journal of its own.
                target.execute("PRAGMA journal_mode = OFF").fetchall()
                target.execute("PRAGMA synchronous = OFF").fetchall()
                source.backup(target)
            finally:
                target.close()
        return open(path, "rb")
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
