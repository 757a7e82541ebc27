"""What a start believes and no seal covers: that it is there, and of the kind it was written as.

``live`` names the newest row of every present key. A bit turned there would hide a key, or serve an
older value of it, until somebody compares. ``versions`` says the same a second time, on other
pages. Whether ``versions`` lists every row is the verifier's question (``verify``).

A damaged page may hold anything, whatever the schema says: NULL where there can be none. The tables
that a start reads whole are small, and SQLite looks them through first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Connection

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.history.schema import ACTORS, PROGRESS, SEAL_BATCHES, SEEDS, SMALL, STORE
from configsvc.storage.seal.errors import SealBroken

_READ_WHOLE: Final = (STORE, PROGRESS, SEEDS, SEAL_BATCHES, ACTORS, *SMALL.values())

_WIDTH: Final = "SELECT coalesce(max(sub), 0) + 1 FROM versions"
# What stands beside the only max() of a group is of the row that has it; the groups come in the
# order of both tables. One walk through each, without a sorter.
_COMPARED: Final = """
SELECT count(*), count(l.key), (SELECT count(*) FROM live)
FROM (SELECT key, revision, sub, tombstone, max(revision * :width + sub) FROM versions GROUP BY key)
AS n LEFT JOIN live l ON l.key = n.key AND l.revision = n.revision AND l.sub = n.sub
WHERE n.tombstone = 0
"""


def refuse_damaged(connection: Connection, path: Path) -> None:
    """Look through the tables that are read whole: their pages, and that each column has its type.

    Raises:
        FatalError: exit 84, SQLite found something.
    """
    for table in _READ_WHOLE:
        found = connection.exec_driver_sql(f"PRAGMA quick_check('{table.name}')").scalars().all()
        if found != ["ok"]:
            raise damaged(path, f"table {table.name}: {'; '.join(map(str, found[:3]))}")


def damaged(path: Path, what: str) -> FatalError:
    """How a start ends that finds its history damaged."""
    return FatalError(
        ExitCode.STORES_DISAGREE,
        f"history {path}: {what}",
        "keep the file as evidence, wipe the data directory and let the member join again",
    )


def whole_leaf(leaf: object) -> bytes:
    """A leaf as SQLite gave it.

    Raises:
        SealBroken: it is no bytes.
    """
    if type(leaf) is not bytes:
        raise SealBroken("a leaf of the audit stream is not what was written")
    return leaf


def check_live(connection: Connection) -> int:
    """How many keys are present, by both tables.

    Everything must be folded in (``folding``). For a million keys of five versions each it takes a
    second of CPU.

    Raises:
        SealBroken: the tables do not agree, so one of them is damaged.
    """
    cursor = cast(Any, connection.connection.cursor())
    try:
        width = cursor.execute(_WIDTH).fetchone()[0]
        present, agreed, live = cursor.execute(_COMPARED, {"width": width}).fetchone()
    finally:
        cursor.close()
    if not present == agreed == live:
        raise SealBroken(
            f"its tables of keys do not agree: {present} keys by one, {live} by the other,"
            f" {agreed} of them the same"
        )
    return int(live)
