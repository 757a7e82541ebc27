"""The hot statements: compiled by Core once, run with plain tuples afterwards.

Core's own executemany costs three times the driver's; compiled text with positional parameters
costs nothing and still comes from the one description in ``schema``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnClause,
    Table,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ClauseElement

from configsvc.errors import ensure
from configsvc.storage.history.schema import (
    ACTORS,
    COMMITS,
    OPENINGS,
    PROGRESS,
    REVISIONS,
    SEAL_BATCHES,
    SMALL,
    TILES,
)
from configsvc.storage.history.small_tables import SMALL_TABLES

BLOCK_ROWS: Final = (128, 16, 4, 1)  # rows of one insert, as far as they go

# Of commits that follow each other and say the same of who did what: what they share, and what of
# it is counted up.
_COUNTED: Final = ("seq", "raft_index", "revision")
_RUN_SHARED: Final = (*_COUNTED, "raft_term", "event", "actor", "outcome")

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


def constant(value: int) -> ColumnClause[int]:
    """An integer as part of the text instead of a bound parameter."""
    return literal_column(str(int(value)))


class Statement(NamedTuple):
    """SQL text and the names of its positional parameters, in order."""

    sql: str
    parameters: tuple[str, ...]


def compiled(element: ClauseElement) -> Statement:
    """``element`` as text. Its parameters are all named: constants are ``constant(n)``."""
    result: Any = element.compile(dialect=_DIALECT)
    bound = [value for value in result.params.values() if value is not None]
    ensure(not bound, "a compiled statement binds no constants")
    return Statement(str(result), tuple(result.positiontup or ()))


class Insert(NamedTuple):
    """Inserts of whole rows, whose values are given one behind the other."""

    width: int  # values of a row
    blocks: tuple[tuple[int, str], ...]  # number of rows to text, in the order of BLOCK_ROWS


def _insert_rows(table: Table) -> Insert:
    """Inserts of whole rows, in the order of the table's columns.

    The driver gives up the interpreter's lock for every statement and must win it back from the
    serving loop: a block of rows does so once.
    """
    text = _insert_all(table)
    head, word, row = text.partition(" VALUES ")
    marks = ", ".join("?" for _ in table.columns)
    ensure(row == f"({marks})", "an insert ends with one mark per column")
    blocks = ((size, head + word + ", ".join([row] * size)) for size in BLOCK_ROWS)
    return Insert(len(table.columns), tuple(blocks))


def _insert_run(size: int) -> str:
    """Insert of ``size`` commits that follow each other and say the same of who did what.

    What SQLite counts up or was given for the row before need not be bound, and binding is half
    of what such a row costs. Parameters are those of ``commit_run``.
    """
    place = {name: at for at, name in enumerate(_RUN_SHARED, start=1)}
    rows = []
    for row in range(size):
        own = len(_RUN_SHARED) + 2 * row
        place |= {"time_ns": own + 1, "leaf": own + 2}
        marks = (
            f"?{place[column.name]} + {row}"
            if column.name in _COUNTED
            else f"?{place[column.name]}"
            for column in COMMITS.columns
        )
        rows.append(f"({', '.join(marks)})")
    return _insert_all(COMMITS).partition(" VALUES ")[0] + " VALUES " + ", ".join(rows)


def is_commit_run(values: Sequence[Any]) -> bool:
    """Whether ``INSERT_COMMIT_RUN`` can say what these rows of ``commits`` say."""
    width = len(COMMITS.columns)
    first, last = values[:width], values[-width:]
    steps = len(values) // width - 1
    # All three grow, and revisions by one at most: their ends tell what lies between.
    if last[1] - first[1] != steps or last[2] != first[2] or last[3] - first[3] != steps:
        return False
    for column in (6, 5, 7):  # actor, event, outcome
        said = values[column::width]
        if said.count(said[0]) != len(said):
            return False
    return True


def commit_run(values: Sequence[Any]) -> list[Any]:
    """The parameters of ``INSERT_COMMIT_RUN`` for these rows."""
    width = len(COMMITS.columns)
    seq, index, term, revision, _, event, actor, outcome, _ = values[:width]
    own: list[Any] = [None] * (2 * (len(values) // width))
    own[::2], own[1::2] = values[4::width], values[8::width]  # time and leaf of each
    return [seq, index, revision, term, event, actor, outcome, *own]


def _insert_all(table: Table) -> str:
    """Insert of whole rows; the tuple is in the order of the table's columns."""
    statement = compiled(insert(table))
    ensure(
        statement.parameters == tuple(column.name for column in table.columns),
        "an insert takes the table's columns in order",
    )
    return statement.sql


def _upsert_all(table: Table) -> str:
    """Insert or replace by primary key; the tuple is in the order of the table's columns."""
    keys = [column.name for column in table.primary_key.columns]
    statement = upsert(table)
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    if others:
        return compiled(statement.on_conflict_do_update(index_elements=keys, set_=others)).sql
    return compiled(statement.on_conflict_do_nothing(index_elements=keys)).sql


def _delete_key(table: Table) -> str:
    """Delete by primary key; the tuple is the key columns in order."""
    keys = table.primary_key.columns
    return compiled(delete(table).where(*(c == bindparam(f"b_{c.name}") for c in keys))).sql


def _select_key(table: Table) -> str:
    """A whole row by primary key; the tuple is the key columns in order."""
    keys = table.primary_key.columns
    return compiled(select(table).where(*(c == bindparam(f"b_{c.name}") for c in keys))).sql


INSERT_REVISIONS: Final = _insert_rows(REVISIONS)
INSERT_COMMITS: Final = _insert_rows(COMMITS)
INSERT_COMMIT_RUN: Final = _insert_run(BLOCK_ROWS[0])
INSERT_OPENINGS: Final = _insert_rows(OPENINGS)
INSERT_ACTOR: Final = _insert_all(ACTORS)
INSERT_TILE: Final = _insert_all(TILES)
INSERT_SEAL_BATCH: Final = _insert_all(SEAL_BATCHES)
UPSERT_SMALL: Final = {name: _upsert_all(SMALL[name]) for name in SMALL_TABLES}
DELETE_SMALL: Final = {name: _delete_key(SMALL[name]) for name in SMALL_TABLES}
SELECT_SMALL: Final = {name: _select_key(SMALL[name]) for name in SMALL_TABLES}

# The guard of Q1: takes effect only from the state this process last wrote.
GUARD: Final = compiled(
    update(PROGRESS)
    .where(PROGRESS.c.applied == bindparam("previous"), PROGRESS.c.owner_epoch == bindparam("mine"))
    .values(
        {
            column: bindparam(f"new_{column}")
            for column in (
                "applied",
                "term",
                "visible_revision",
                "conf_state",
                "digest",
                "tree_size",
                "last_batch",
                "sealed",
                "mark",
            )
        }
    )
)

# Columns of a revision row in the order that ``Vault.open_rows`` takes.
ROW_COLUMNS: Final = tuple(
    REVISIONS.c[name]
    for name in (
        "revision",
        "sub",
        "key",
        "value",
        "create_revision",
        "version",
        "lease",
        "tombstone",
        "seq",
    )
)
# The same as SQL text, for hand-written statements that call the table ``r``.
ROW_LIST: Final = ", ".join(f'r."{column.name}"' for column in ROW_COLUMNS)
SELECT_SEAL_BATCH: Final = compiled(
    select(SEAL_BATCHES.c.seed, SEAL_BATCHES.c.info).where(SEAL_BATCHES.c.id == bindparam("id"))
).sql
