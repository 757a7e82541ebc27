"""Key ranges as they stood at some revision, answered by SQL alone.

The list of keys is a loose scan: one seek to the next key and one to its newest version per key,
so that a key with a million versions costs as much as a key with one. Counting stays inside the
index. Filters run in SQL; sorting in memory, because values can only be compared opened.

Semantics: wire/behaviour.md R1 to R15; floors and rights are checked by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from configsvc.mvcc.messages import KeyValue, RangeOp, RangeResult, Row
from configsvc.storage.history.session import Session
from configsvc.storage.history.statements import ROW_LIST
from configsvc.types import KeySpan

_ROWS_MAX: Final = 2**63 - 1  # SQL counts no further; a client may ask for so many
# ``{end}`` is the upper bound, absent for an open span. Parameters are named: they repeat.
_NAMES: Final = """
WITH RECURSIVE names(key) AS (
  SELECT {first}
  UNION ALL
  SELECT {next} FROM names WHERE names.key IS NOT NULL
)
"""
_NAME: Final = "(SELECT n.key FROM {table} n WHERE n.key {beyond} {end} ORDER BY n.key LIMIT 1)"
_ONE: Final = "SELECT {name} AS key"
_SMALLEST: Final = "(SELECT min(key) FROM ({each}))"
_KEYS: Final = """
{names}
SELECT {columns} FROM names CROSS JOIN revisions r
ON r.key = names.key AND (r.revision, r.sub) = ({newest})
WHERE names.key IS NOT NULL AND r.tombstone = 0 {filters}
"""
_COUNT: Final = """
{names}
SELECT count(*) FROM names WHERE names.key IS NOT NULL AND ({newest}) = 0
"""
_NEWEST: Final = """
SELECT {columns} FROM {table} v WHERE v.key = names.key AND v.revision <= :revision
ORDER BY v.revision DESC, v.sub DESC LIMIT 1
"""
_FIRST: Final = "SELECT * FROM ({place})"
_END: Final = "AND n.key < :end"
_FILTERS: Final = (
    ("min_mod_revision", "AND r.revision >= :min_mod_revision"),
    ("max_mod_revision", "AND r.revision <= :max_mod_revision"),
    ("min_create_revision", "AND r.create_revision >= :min_create_revision"),
    ("max_create_revision", "AND r.create_revision <= :max_create_revision"),
)
_SORT_KEYS: Final[dict[int, Callable[[KeyValue], Any]]] = {
    0: lambda kv: kv.key,
    1: lambda kv: kv.version,
    2: lambda kv: kv.create_revision,
    3: lambda kv: kv.mod_revision,
    4: lambda kv: kv.value,
}
_BY_KEY: Final = 0
_BY_VALUE: Final = 4
_UNSORTED: Final = 0
_DESCENDING: Final = 2


def read_range(session: Session, op: RangeOp, revision: int) -> RangeResult:
    """``op.span`` at ``revision``, which the database holds. Raises SealBroken on a bad row."""
    if op.span.is_empty():
        return RangeResult((), 0, more=False, revision=revision)
    count = _count(session, op.span, revision)
    if op.count_only:
        return RangeResult((), count, more=False, revision=revision)
    limit = max(op.limit, 0)
    # Without an order the limit comes first, and only what it lets through is sorted (R11).
    early = limit + 1 if limit and op.sort_order == _UNSORTED else 0
    kvs = [key_value(row) for row in live_rows(session, op, revision, early)]
    if op.sort_order != _UNSORTED or op.sort_target != _BY_KEY:
        kvs.sort(key=_SORT_KEYS[op.sort_target], reverse=op.sort_order == _DESCENDING)
    more = bool(limit) and len(kvs) > limit
    if limit:
        del kvs[limit:]
    if op.keys_only:
        kvs = [_bare(kv, op.sort_target) for kv in kvs]
    return RangeResult(tuple(kvs), count, more=more, revision=revision)


def live_rows(session: Session, op: RangeOp, revision: int, rows_max: int = 0) -> list[Row]:
    """Rows of the keys that exist at ``revision``, filtered, in key order; ``rows_max`` 0: all."""
    return session.vault.open_rows(raw_live_rows(session, op, revision, rows_max))


def raw_live_rows(
    session: Session, op: RangeOp, revision: int, rows_max: int = 0
) -> list[tuple[Any, ...]]:
    """``live_rows``, still sealed."""
    filters = [(name, clause) for name, clause in _FILTERS if getattr(op, name)]
    parameters = _parameters(op.span, revision)
    parameters.update((name, getattr(op, name)) for name, _ in filters)
    tables = session.places(0, revision)
    sql = _KEYS.format(
        names=_names(tables, op.span),
        newest=_newest(tables, "v.revision, v.sub"),
        columns=ROW_LIST,
        filters=" ".join(clause for _, clause in filters),
    )
    if rows_max:
        sql += f" LIMIT {min(int(rows_max), _ROWS_MAX)}"
    rows: list[tuple[Any, ...]] = session.cursor.execute(sql, parameters).fetchall()
    return rows


def key_value(row: Row) -> KeyValue:
    return KeyValue(row.key, row.value, row.create_revision, row.revision, row.version, row.lease)


def _count(session: Session, span: KeySpan, revision: int) -> int:
    tables = session.places(0, revision)
    sql = _COUNT.format(names=_names(tables, span), newest=_newest(tables, "v.tombstone"))
    return int(session.cursor.execute(sql, _parameters(span, revision)).fetchone()[0])


def _names(tables: Sequence[str], span: KeySpan) -> str:
    """The keys of ``tables`` in order, each found by a seek behind the one before."""
    end = _END if span.end is not None else ""

    def smallest(beyond: str) -> str:
        found = [_NAME.format(table=table, beyond=beyond, end=end) for table in tables]
        if len(found) == 1:
            return found[0]
        return _SMALLEST.format(each=" UNION ALL ".join(_ONE.format(name=one) for one in found))

    return _NAMES.format(first=smallest(">= :start"), next=smallest("> names.key"))


def _newest(tables: Sequence[str], columns: str) -> str:
    """``columns`` of a name's newest place; later tables hold newer places only."""
    found = [_NEWEST.format(table=table, columns=columns) for table in reversed(tables)]
    if len(found) == 1:
        return found[0]
    return " UNION ALL ".join(_FIRST.format(place=one) for one in found) + " LIMIT 1"


def _parameters(span: KeySpan, revision: int) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "revision": revision}


def _bare(kv: KeyValue, sort_target: int) -> KeyValue:
    """``keys_only``: no value, and no lease unless the value had to be read to sort (R8)."""
    return kv._replace(value=b"", lease=kv.lease if sort_target == _BY_VALUE else 0)
