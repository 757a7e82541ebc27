"""Connections to one SQLite file, and what must hold for each of them.

Owns PRAGMAs, file modes and the two ways in: one connection that writes and checkpoints, any
number that only read (reliability.md Q4). Exception texts carry no parameters, and statement
logging is not offered: both would show values.

Not here: tables (``schema``), what is written (``store``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from configsvc.errors import ConfigError
from configsvc.limits import HISTORY_CACHE_KIB, HISTORY_PAGE_BYTES, HISTORY_READER_CACHE_KIB
from configsvc.storage.disk import check_parents, check_private_path

BUSY_TIMEOUT_S: Final = 5.0  # how long a lock that another connection holds is waited for
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_FIXED: Final = (3, 51, 3)  # the first release without the WAL-reset bug
_BACKPORTS: Final = ((3, 50, 7), (3, 44, 6))


def sqlite_path(url_or_path: str | os.PathLike[str]) -> Path:
    """The file behind a path or a ``sqlite:///`` URL.

    Raises:
        ConfigError: a URL of another database; this version keeps its history in SQLite only.
    """
    text = os.fspath(url_or_path)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme.split("+")[0] == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return Path(rest[1:])
    raise ConfigError(
        f"history database of kind {scheme!r} is not supported",
        "use a file: sqlite:////path/to/file",
    )


def sqlite_warnings() -> list[str]:
    """Known faults of the linked SQLite, for the start log; empty when there are none."""
    version = sqlite3.sqlite_version_info
    fixed = version >= _FIXED or any(version[:2] == b[:2] and version >= b for b in _BACKPORTS)
    if fixed:
        return []
    return [
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug; this program is not exposed to it"
        " (one connection writes and checkpoints), 3.51.3 or newer is better"
    ]


def sync_dir(directory: Path) -> None:
    """Make creations and deletions in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def private_files() -> Iterator[None]:
    """Whatever is created inside is for the owner alone (SQLite's side files included)."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def check_private(path: Path) -> None:
    """Refuse a database that others can reach, or could replace (DEF-6). A missing one may be made.

    Raises:
        ConfigError: not a regular file, foreign owner, group or other bits, or such a parent.
    """
    check_parents(path.absolute(), "history")
    for name in (path, *(Path(f"{path}{side}") for side in _SIDE_FILES)):
        if not os.path.lexists(name):
            continue
        check_private_path(name, "history", create_mode=None)
        if not name.is_file():
            raise ConfigError(f"history {name}: not a regular file", "move it away")


def open_writer(path: Path) -> Engine:
    """Engine whose only connection writes and checkpoints. Transactions take the lock at once."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(f"file:{quote(str(path))}?mode=rwc"),
        poolclass=StaticPool,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def open_reader(path: Path, *, alone: bool = False) -> Engine:
    """Engine for reading: a new connection each time, ``mode=ro``, one snapshot per transaction.

    ``alone``: nobody writes meanwhile. A database that was closed cleanly is then read without
    making its side files, so that a refused start leaves the directory as it was.
    """
    clean = alone and not os.path.exists(f"{path}-wal")
    uri = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if clean else "")
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(uri),
        poolclass=NullPool,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_reader)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def _connect(uri: str) -> sqlite3.Connection:
    # Autocommit at the driver: BEGIN is ours (the events below). Connections move between
    # threads, never shared by two at a time.
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 0").fetchall()  # reads the schema
    except UnicodeDecodeError:
        # SQLite's message quotes the damaged schema, and the driver chokes on the quotation.
        connection.close()
        raise sqlite3.DatabaseError("malformed database schema") from None
    except BaseException:
        connection.close()
        raise
    return connection


def set_busy_timeout(connection: Any, seconds: float) -> None:
    """Set SQLite's wait for locks on a driver connection or cursor."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").fetchall()


def _prepare_writer(connection: Any, _record: object) -> None:
    set_busy_timeout(connection, BUSY_TIMEOUT_S)
    for pragma in (
        # These two take effect in an empty file only, so before all others.
        f"page_size = {HISTORY_PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "synchronous = NORMAL",
        "wal_autocheckpoint = 0",
        f"cache_size = -{HISTORY_CACHE_KIB}",
        *_COMMON_PRAGMAS,
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigError(
            f"the file system of the history cannot share memory (journal mode {mode})",
            "put the data directory on a local file system",
        )


def _prepare_reader(connection: Any, _record: object) -> None:
    # Not ``query_only``, which would forbid temporary tables; ``mode=ro`` guards the file.
    set_busy_timeout(connection, BUSY_TIMEOUT_S)
    for pragma in (
        f"cache_size = -{HISTORY_READER_CACHE_KIB}",
        *_COMMON_PRAGMAS,
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


_COMMON_PRAGMAS: Final = (
    "foreign_keys = ON",
    "recursive_triggers = ON",
    "trusted_schema = OFF",
    "temp_store = MEMORY",  # a sort must not spill clear key names into a temporary file
)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
