"""Keeps ``versions`` and ``live`` in step with ``revisions``: which rows a key has, and its newest.

Rows come in the order of revisions, keys in any order: writing the two with every put would touch
a random page of each per row. So the rows since the last time are folded in together, sorted by
key, in SQL: when enough have gathered (``fold_due``), at start, and when it has become quiet. The
larger the index, the more rows wait: a fold touches a page for nearly each of them until it touches
them all, and each page touched is written twice.

Always true, in every transaction that a reader can see:
  * ``versions`` holds exactly the places of the rows up to revision ``progress.folded``, and
    ``live`` is a true picture of that revision.
  * At most ``SQL_FOLD_ROWS_MAX`` rows lie above it; who asks by key looks at those, too
    (``session``).
"""

from __future__ import annotations

from typing import Any, Final

from configsvc.limits import (
    SQL_FOLD_ROWS_MAX,
    SQL_FOLD_ROWS_MIN,
    SQL_FOLD_SHARE,
    SQL_FOLD_SLICE_ROWS,
)

_FOLDED: Final = "SELECT folded FROM progress"
_SET_FOLDED: Final = "UPDATE progress SET folded = :high"
_SLICE_END: Final = """
SELECT revision FROM revisions WHERE revision > :low
ORDER BY revision, sub LIMIT 1 OFFSET :rows
"""
# One slice, in a table of this connection's memory: sorted once for both.
_MAKE_FRESH: Final = """
CREATE TEMP TABLE IF NOT EXISTS fresh (
  key BLOB NOT NULL, revision INTEGER NOT NULL, sub INTEGER NOT NULL, tombstone INTEGER NOT NULL,
  PRIMARY KEY (key, revision, sub)
) STRICT, WITHOUT ROWID
"""
_TAKE: Final = """
INSERT INTO temp.fresh (key, revision, sub, tombstone)
SELECT key, revision, sub, tombstone FROM revisions WHERE revision > :low AND revision <= :high
"""
_INDEX: Final = """
INSERT INTO versions (key, revision, sub, tombstone)
SELECT key, revision, sub, tombstone FROM temp.fresh ORDER BY key, revision, sub
"""
# A key's newest row: what stands beside the only max() of a group is of the row that has it. One
# revision may hold a key twice, deleted and made anew. A slice is short: the product stays small.
_NEWEST: Final = """
SELECT key, revision, sub, tombstone, max((revision - :low) * :width + sub)
FROM temp.fresh GROUP BY key
"""
_SET_LIVE: Final = f"""
INSERT INTO live (key, revision, sub)
SELECT key, revision, sub FROM ({_NEWEST}) WHERE tombstone = 0
ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, sub = excluded.sub
"""  # noqa: S608 - a text of ours
_DROP_DEAD: Final = f"""
DELETE FROM live WHERE key IN (SELECT key FROM ({_NEWEST}) WHERE tombstone = 1)
"""  # noqa: S608 - a text of ours
_SHAPE: Final = "SELECT max(sub) + 1, max(tombstone) FROM temp.fresh"
_CLEAR: Final = "DELETE FROM temp.fresh"


def fold_due(rows: int, revision: int) -> bool:
    """Whether ``rows`` that the key index lacks are too many for a history of ``revision``."""
    share = revision // SQL_FOLD_SHARE
    return rows > min(max(share, SQL_FOLD_ROWS_MIN), SQL_FOLD_ROWS_MAX)


def fold(cursor: Any, through: int, slice_rows: int = SQL_FOLD_SLICE_ROWS) -> None:
    """Fold the rows up to revision ``through`` in, in the caller's transaction.

    Every row up to there must have been written. Sorted in slices: the sorter's memory is bounded,
    but for a single revision that is larger than one (about 100 bytes and the key for a row).
    """
    low = cursor.execute(_FOLDED).fetchone()[0]
    if low < through:
        cursor.execute(_MAKE_FRESH)
    while low < through:
        end = cursor.execute(_SLICE_END, {"low": low, "rows": slice_rows}).fetchone()
        high = through if end is None else min(end[0], through)
        bounds = {"low": low, "high": high}
        cursor.execute(_TAKE, bounds)
        cursor.execute(_INDEX)
        width, dead = cursor.execute(_SHAPE).fetchone()
        newest = {"low": low, "width": width}
        cursor.execute(_SET_LIVE, newest)
        if dead:
            cursor.execute(_DROP_DEAD, newest)
        cursor.execute(_CLEAR)
        cursor.execute(_SET_FOLDED, {"high": high})
        low = high
