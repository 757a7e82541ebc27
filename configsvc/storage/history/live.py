"""Keeps ``live`` in step with ``revisions``: which row holds a key's present value.

Writing it with every put would touch a second random page per row, so the rows since the last
time are folded in together, in SQL, before each checkpoint and at start. Between two folds ``live``
is a true picture of the past: of revision ``progress.folded``.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select, text, update

from configsvc.storage.history.schema import PROGRESS
from configsvc.storage.history.values import SEALED_OVERHEAD

# In order of revision and sub, so that the last change of a key stays; tombstones go in, too, and
# out again: a key deleted and made anew must not be lost.
_TAKE_IN: Final = text(
    """
INSERT INTO live (key, revision, sub)
SELECT key, revision, sub FROM revisions
WHERE revision > :folded AND revision <= :visible ORDER BY revision, sub
ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, sub = excluded.sub
"""
)
_DROP_DEAD: Final = text(
    """
DELETE FROM live WHERE key IN (
  SELECT key FROM revisions WHERE revision > :folded AND revision <= :visible AND tombstone = 1
) AND (
  SELECT tombstone FROM revisions
  WHERE revisions.revision = live.revision AND revisions.sub = live.sub
) = 1
"""
)

_ALL_BYTES: Final = text(
    """
SELECT coalesce(sum(:row + length(key) + length(value) - :overhead), 0)
FROM revisions WHERE revision > :floor
"""
)
_LIVE_BYTES: Final = text(
    """
SELECT coalesce(sum(:row + length(r.key) + length(r.value) - :overhead), 0)
FROM live CROSS JOIN revisions r ON r.revision = live.revision AND r.sub = live.sub
WHERE live.revision > :floor
"""
)


def superseded_bytes(connection: Connection, floor: int, row_bytes: int) -> int:
    """Size of the rows above ``floor`` that are no key's present value (``History``)."""
    bounds = {"floor": floor, "row": row_bytes, "overhead": SEALED_OVERHEAD}
    everything, living = (
        connection.execute(statement, bounds).scalar_one()
        for statement in (_ALL_BYTES, _LIVE_BYTES)
    )
    return int(everything) - int(living)


def fold_live(connection: Connection) -> None:
    """Bring ``live`` up to the visible revision, in the caller's transaction."""
    folded, visible = connection.execute(
        select(PROGRESS.c.folded, PROGRESS.c.visible_revision)
    ).one()
    if folded == visible:
        return
    bounds = {"folded": folded, "visible": visible}
    connection.execute(_TAKE_IN, bounds)
    connection.execute(_DROP_DEAD, bounds)
    connection.execute(update(PROGRESS).values(folded=visible))
