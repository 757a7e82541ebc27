"""Key ranges as they stood at some revision, answered by SQL alone.

The list of keys is a loose scan: one seek to the next key and one to its newest version per key,
so that a key with a million versions costs as much as a key with one. Counting stays inside the
index. Filters run in SQL; sorting in memory, because values can only be compared opened.

Semantics: wire/behaviour.md R1 to R15; floors and rights are checked by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from configsvc.mvcc.messages import KeyValue, RangeOp, RangeResult, Row
from configsvc.storage.history.statements import ROW_LIST
from configsvc.storage.history.values import Vault
from configsvc.types import KeySpan

# ``{end}`` is the upper bound, absent for an open span. Parameters are named: they repeat.
_KEYS: Final = """
WITH RECURSIVE names(key) AS (
  SELECT (SELECT n.key FROM revisions n WHERE n.key >= :start {end} ORDER BY n.key LIMIT 1)
  UNION ALL
  SELECT (SELECT n.key FROM revisions n WHERE n.key > names.key {end} ORDER BY n.key LIMIT 1)
  FROM names WHERE names.key IS NOT NULL
)
SELECT {columns} FROM names CROSS JOIN revisions r
ON r.key = names.key AND (r.revision, r.sub) = (
  SELECT v.revision, v.sub FROM revisions v
  WHERE v.key = names.key AND v.revision <= :revision
  ORDER BY v.revision DESC, v.sub DESC LIMIT 1
)
WHERE names.key IS NOT NULL AND r.tombstone = 0 {filters}
"""
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


def read_range(cursor: Any, vault: Vault, op: RangeOp, revision: int) -> RangeResult:
    """``op.span`` at ``revision``, which the database holds. Raises SealBroken on a bad row."""
    if op.span.is_empty():
        return RangeResult((), 0, more=False, revision=revision)
    count = _count(cursor, op.span, revision)
    if op.count_only:
        return RangeResult((), count, more=False, revision=revision)
    limit = max(op.limit, 0)
    # Without an order the limit comes first, and only what it lets through is sorted (R11).
    early = limit + 1 if limit and op.sort_order == _UNSORTED else 0
    kvs = [key_value(row) for row in live_rows(cursor, vault, op, revision, early)]
    if op.sort_order != _UNSORTED or op.sort_target != _BY_KEY:
        kvs.sort(key=_SORT_KEYS[op.sort_target], reverse=op.sort_order == _DESCENDING)
    more = bool(limit) and len(kvs) > limit
    if limit:
        del kvs[limit:]
    if op.keys_only:
        kvs = [_bare(kv, op.sort_target) for kv in kvs]
    return RangeResult(tuple(kvs), count, more=more, revision=revision)


def live_rows(
    cursor: Any, vault: Vault, op: RangeOp, revision: int, rows_max: int = 0
) -> list[Row]:
    """Rows of the keys that exist at ``revision``, filtered, in key order; ``rows_max`` 0: all."""
    return vault.open_rows(raw_live_rows(cursor, op, revision, rows_max))


def raw_live_rows(
    cursor: Any, op: RangeOp, revision: int, rows_max: int = 0
) -> list[tuple[Any, ...]]:
    """``live_rows``, still sealed."""
    filters = [(name, clause) for name, clause in _FILTERS if getattr(op, name)]
    parameters = _parameters(op.span, revision)
    parameters.update((name, getattr(op, name)) for name, _ in filters)
    sql = _KEYS.format(
        end=_END if op.span.end is not None else "",
        columns=ROW_LIST,
        filters=" ".join(clause for _, clause in filters),
    )
    if rows_max:
        sql += f" LIMIT {int(rows_max)}"
    rows: list[tuple[Any, ...]] = cursor.execute(sql, parameters).fetchall()
    return rows


def key_value(row: Row) -> KeyValue:
    return KeyValue(row.key, row.value, row.create_revision, row.revision, row.version, row.lease)


def _count(cursor: Any, span: KeySpan, revision: int) -> int:
    end = _END if span.end is not None else ""
    sql = _KEYS.format(end=end, columns="count(*)", filters="")
    return int(cursor.execute(sql, _parameters(span, revision)).fetchone()[0])


def _parameters(span: KeySpan, revision: int) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "revision": revision}


def _bare(kv: KeyValue, sort_target: int) -> KeyValue:
    """``keys_only``: no value, and no lease unless the value had to be read to sort (R8)."""
    return kv._replace(value=b"", lease=kv.lease if sort_target == _BY_VALUE else 0)
