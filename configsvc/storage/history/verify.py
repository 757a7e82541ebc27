"""Stream M in order: commits, leaves, hashes, and all that a leaf is compared with (TE-7).

Read in slices of a bounded number of leaves, a transaction each, so that verifying a long history
never holds a snapshot open. What it means is decided in ``audit``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from configsvc.audit.binding import RevisionRow
from configsvc.audit.merkle import leaf_hash
from configsvc.audit.verify import Columns, Entry, Opening
from configsvc.errors import DecodeError
from configsvc.mvcc.messages import Row
from configsvc.storage.history import messages
from configsvc.storage.history.messages import CommitInfo
from configsvc.storage.history.questions import COMMIT_COLUMNS
from configsvc.storage.history.schema import COMMITS, OPENINGS, REVISIONS, TILES
from configsvc.storage.history.session import Session
from configsvc.storage.history.soundness import whole_leaf
from configsvc.storage.history.statements import ROW_COLUMNS, ROW_LIST, compiled
from configsvc.storage.seal.errors import SealBroken

_SEQ: Final = 8  # place of ``seq`` in ROW_COLUMNS
SLICE: Final = 256  # leaves per transaction

_COMMITS: Final = compiled(
    select(*COMMIT_COLUMNS)
    .where(COMMITS.c.seq >= bindparam("first"), COMMITS.c.seq < bindparam("end"))
    .order_by(COMMITS.c.seq)
).sql
_LEAVES: Final = compiled(
    select(COMMITS.c.leaf)
    .where(COMMITS.c.seq >= bindparam("first"), COMMITS.c.seq < bindparam("end"))
    .order_by(COMMITS.c.seq)
).sql
_OPENINGS: Final = compiled(
    select(OPENINGS.c.seq, OPENINGS.c.sealed).where(
        OPENINGS.c.seq >= bindparam("first"), OPENINGS.c.seq < bindparam("end")
    )
).sql
# Rows are given to leaves by revision, not by the seq they claim: every row of the table is then
# looked at once, also one that no commit knows.
_ROWS: Final = compiled(
    select(*ROW_COLUMNS)
    .where(REVISIONS.c.revision > bindparam("low"), REVISIONS.c.revision <= bindparam("high"))
    .order_by(REVISIONS.c.revision, REVISIONS.c.sub)
).sql
# Those alone that carry an opening: the highest bit of what stands behind the batch is set
# (``values``). Looked for in SQL, where other threads run meanwhile.
_SALTED_ROWS: Final = f"""
SELECT {ROW_LIST} FROM revisions r
WHERE r.revision > ? AND r.revision <= ? AND substr(r.value, 9, 1) >= x'80'
ORDER BY r.revision, r.sub
"""  # noqa: S608 - a text of ours
# The key index is ours to keep: a row that is missing there would be hidden from who asks by key.
_UNLISTED: Final = """
SELECT r.revision, r.sub FROM revisions r
WHERE r.revision > ? AND r.revision <= ? AND NOT EXISTS (
  SELECT 1 FROM versions v WHERE v.key = r.key
  AND v.revision = r.revision AND v.sub = r.sub AND v.tombstone = r.tombstone
) LIMIT 1
"""
_LISTED: Final = "SELECT count(*) FROM versions"
_FOLDED: Final = "SELECT count(*) FROM revisions WHERE revision <= ?"
_TILE: Final = compiled(
    select(TILES.c.hashes).where(
        TILES.c.level == bindparam("level"), TILES.c.number == bindparam("number")
    )
).sql
# Two questions: SQLite seeks to one end of a table, but walks it for both at once.
_FIRST: Final = compiled(select(func.min(COMMITS.c.seq))).sql
_LAST: Final = compiled(select(func.max(COMMITS.c.seq))).sql
_REVISION: Final = compiled(select(COMMITS.c.revision).where(COMMITS.c.seq == bindparam("seq"))).sql


def commits(session: Session, first: int, end: int) -> list[CommitInfo]:
    """Commits of leaves ``[first, end)``."""
    return [CommitInfo._make(raw) for raw in session.cursor.execute(_COMMITS, (first, end))]


def leaf_hashes(session: Session, first: int, end: int) -> list[bytes]:
    """Level-0 hashes of leaves ``[first, end)``."""
    raws = session.cursor.execute(_LEAVES, (first, end))
    return [leaf_hash(whole_leaf(raw[0])) for raw in raws]


def tile(session: Session, level: int, number: int) -> bytes:
    """The hashes of a full tile; empty while it is not full."""
    raw = session.cursor.execute(_TILE, (level, number)).fetchone()
    return b"" if raw is None else raw[0]


def bounds(session: Session) -> tuple[int, int]:
    """First leaf held, and one past the last."""
    first = session.cursor.execute(_FIRST).fetchone()[0]
    last = session.cursor.execute(_LAST).fetchone()[0]
    return (0, 0) if first is None else (first, last + 1)


def entries(session: Session, first: int, end: int) -> list[Entry]:
    """Leaves ``[first, end)`` with openings and revision rows, as the verifier takes them.

    Raises:
        SealBroken: a row or opening is not what was written; names it.
    """
    held = commits(session, first, end)
    if not held:
        return []
    stretch = _stretch(session, held)
    raws = session.cursor.execute(_ROWS, stretch).fetchall()
    rows = deque(session.vault.open_rows(raws))
    opened = _openings(session, held, raws)
    _check_listed(session, stretch)
    found = []
    for commit in held:
        own = []
        while rows and rows[0].revision <= commit.revision:
            own.append(_bound(rows.popleft()))
        found.append(_entry(commit, opened.get(commit.seq), own))
    if rows:  # behind the last leaf of all
        found[-1] = found[-1]._replace(rows=[*(found[-1].rows or ()), *map(_bound, rows)])
    return found


def check_key_index(session: Session) -> None:
    """That the key index lists no row which is not there. ``entries`` finds what it lacks.

    Raises:
        DecodeError: it does; a key's newest row could hide behind it.
    """
    listed = session.cursor.execute(_LISTED).fetchone()[0]
    held = session.cursor.execute(_FOLDED, (session.folded,)).fetchone()[0]
    if listed != held:
        raise DecodeError(f"the key index lists {listed} rows, the history holds {held}")


def _check_listed(session: Session, stretch: tuple[int, int]) -> None:
    low, high = stretch
    found = session.cursor.execute(_UNLISTED, (low, min(high, session.folded))).fetchone()
    if found is not None:
        raise SealBroken(f"row {found[0]}.{found[1]} of the history is not in the key index")


def openings(session: Session, held: list[CommitInfo]) -> dict[int, messages.Opening]:
    """What opens the leaves of ``held``, neighbours, by seq; erased ones are not there.

    Only rows that say they carry an opening are looked at: whoever opens the rows finds the rest.

    Raises:
        SealBroken: a row or opening is not what was written.
    """
    if not held:
        return {}
    return _openings(session, held, session.cursor.execute(_SALTED_ROWS, _stretch(session, held)))


def _openings(
    session: Session, held: list[CommitInfo], raws: Iterable[tuple[Any, ...]]
) -> dict[int, messages.Opening]:
    found = {}
    for raw in raws:
        carried = session.vault.row_opening(raw)
        if carried is not None:
            found[raw[_SEQ]] = carried
    for seq, sealed in session.cursor.execute(_OPENINGS, (held[0].seq, held[-1].seq + 1)):
        if seq not in found:
            found[seq] = session.vault.open_opening(seq, sealed)
    return found


def _entry(commit: CommitInfo, opened: messages.Opening | None, rows: list[RevisionRow]) -> Entry:
    opening, changes = None, b""
    if opened is not None:
        salt, reason, ticket, changes = opened
        opening = Opening(salt, reason, ticket)
    columns = Columns(
        raft_index=commit.raft_index,
        raft_term=commit.raft_term,
        revision=commit.revision,
        time_ns=commit.time_ns,
        event=commit.event,
        actor=commit.actor,
        outcome=commit.outcome,
    )
    return Entry(commit.seq, commit.leaf, changes, opening, rows, columns)


def _bound(row: Row) -> RevisionRow:
    return RevisionRow(row.revision, row.sub, row.key, row.value, row.lease, row.tombstone)


def _stretch(session: Session, held: list[CommitInfo]) -> tuple[int, int]:
    """Revisions (above, up to) whose rows belong to the leaves ``held``."""
    before = session.cursor.execute(_REVISION, (held[0].seq - 1,)).fetchone()
    after = session.cursor.execute(_REVISION, (held[-1].seq + 1,)).fetchone()
    return (before[0] if before else 0), (held[-1].revision if after else 2**63 - 1)
