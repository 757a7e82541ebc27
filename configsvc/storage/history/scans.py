"""Rows of a span of keys over a stretch of revisions, in order of revision.

Two ways lead there: along the revisions, dropping other keys, or through the key index, sorting.
Which is shorter depends on how many versions the span has, so that is counted first, up to a
bound; a single key always goes through the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from configsvc.limits import HISTORY_PLAN_ROWS_MAX
from configsvc.storage.history.session import Session
from configsvc.storage.history.statements import ROW_LIST
from configsvc.types import KeySpan

_END: Final = "AND r.key < :end"

# A unary plus keeps a term away from the index.
_ALONG: Final = """
SELECT {columns} FROM revisions r
WHERE r.revision >= :low AND r.revision <= :high AND +r.key >= :start {end}
ORDER BY r.revision {order}, r.sub {order}
"""
# The limit of -1 keeps SQLite from dropping the order of a part of a join.
_THROUGH: Final = """
WITH place(revision, sub) AS MATERIALIZED (
  SELECT r.revision, r.sub FROM {places} r
  WHERE r.key >= :start {end} AND r.revision >= :low AND r.revision <= :high
  ORDER BY r.revision {order}, r.sub {order} LIMIT -1
)
SELECT {columns} FROM place CROSS JOIN revisions r
ON r.revision = place.revision AND r.sub = place.sub
"""
# For one key the index is already in the right order: nothing is sorted, a page reads a page.
_ONE_KEY: Final = """
SELECT {columns} FROM {places} p CROSS JOIN revisions r
ON r.revision = p.revision AND r.sub = p.sub
WHERE p.key = :start AND p.revision >= :low AND p.revision <= :high
ORDER BY p.revision {order}, p.sub {order}
"""
_VERSIONS: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM versions r WHERE r.key >= :start {end} LIMIT :most
)
"""


class Stretch(NamedTuple):
    """Revisions ``low`` to ``high``, both included."""

    low: int
    high: int


def is_single(span: KeySpan) -> bool:
    """Whether only one key can lie in the span."""
    return span.end == span.start + b"\0"


def scan(
    session: Session, span: KeySpan | None, stretch: Stretch, *, newest_first: bool = False
) -> Iterator[tuple[Any, ...]]:
    """Raw rows (``ROW_COLUMNS``, sealed) of ``span`` (None: all keys), read as they are taken."""
    if stretch.high < stretch.low or (span is not None and span.is_empty()):
        return iter(())
    span = span or KeySpan(b"", None)
    end = "" if span.end is None else _END
    template = _choose(session.cursor, span, stretch, end)
    order = "DESC" if newest_first else "ASC"
    parameters = {
        "start": span.start,
        "end": span.end,
        "low": stretch.low,
        "high": stretch.high,
    }
    # Either way the newer table's rows are all newer.
    tables = ("",) if template is _ALONG else session.places(*stretch)
    return chain.from_iterable(
        session.cursor.execute(
            template.format(places=table, columns=ROW_LIST, end=end, order=order), parameters
        )
        for table in (reversed(tables) if newest_first else tables)
    )


def _choose(cursor: Any, span: KeySpan, stretch: Stretch, end: str) -> str:
    if is_single(span):
        return _ONE_KEY
    if not span.start and span.end is None:
        return _ALONG
    # A revision has one row or more, so its number is a fair guess of the rows on the other way.
    most = min(stretch.high - stretch.low + 1, HISTORY_PLAN_ROWS_MAX)
    parameters = {"start": span.start, "end": span.end, "most": most}
    versions = cursor.execute(_VERSIONS.format(end=end), parameters).fetchone()[0]
    return _THROUGH if versions < most else _ALONG
