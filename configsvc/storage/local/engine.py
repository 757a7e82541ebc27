"""Connections to the member-local file: one that writes with full sync, any number that read.

Exception texts carry no parameters, and statement logging is not offered.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from configsvc.errors import ConfigError
from configsvc.storage.disk import check_parents, check_private_path

BUSY_TIMEOUT_MS: Final = 2_000
CACHE_KIB: Final = 512
_SIDE_FILES: Final = ("", "-wal", "-shm", "-journal")
_PRAGMAS: Final = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",
    f"cache_size = -{CACHE_KIB}",
    "trusted_schema = OFF",
    "temp_store = MEMORY",
)


@contextmanager
def private_files() -> Iterator[None]:
    """Whatever is created inside is for the owner alone (SQLite's side files included)."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def check_private(path: Path) -> None:
    """Refuse a file that others can reach, or could replace (DEF-6); a missing one may be made.

    Raises:
        ConfigError: exit 78, naming the fix.
    """
    check_parents(path.absolute(), "local audit log")
    for side in _SIDE_FILES:
        name = Path(f"{path}{side}")
        if os.path.lexists(name):
            check_private_path(name, "local audit log", create_mode=None)


def open_writer(path: Path, *, sync: bool) -> Engine:
    """The engine whose only connection writes. ``sync`` False only under --unsafe-no-fsync."""

    def prepare(connection: Any, _record: object) -> None:
        # FULL: in WAL mode each commit is synced; NORMAL would lose the newest with the power.
        _run(connection, f"synchronous = {'FULL' if sync else 'OFF'}")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigError(
                f"the file system of {path} cannot share memory (journal mode {mode})",
                "put the data directory on a local file system",
            )

    return _engine(f"file:{quote(str(path))}?mode=rwc", prepare, "BEGIN IMMEDIATE", StaticPool)


def open_reader(path: Path, *, alone: bool = False) -> Engine:
    """An engine that only reads; one snapshot per transaction.

    ``alone``: nobody writes meanwhile, and a file that was closed cleanly gets no side files.
    """
    clean = alone and not os.path.exists(f"{path}-wal")
    return _engine(
        f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if clean else ""),
        lambda connection, _record: _run(connection, "query_only = ON"),
        "BEGIN",
        NullPool,
    )


def _engine(uri: str, prepare: Callable[[Any, object], None], begin: str, pool: Any) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False
        ),
        poolclass=pool,
        hide_parameters=True,
    )

    def on_connect(connection: Any, record: object) -> None:
        for pragma in _PRAGMAS:
            _run(connection, pragma)
        prepare(connection, record)

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _run(connection: Any, pragma: str) -> None:
    connection.execute(f"PRAGMA {pragma}").fetchall()


def sync_dir(directory: Path) -> None:
    """Make the file's name durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
