"""Questions about the past on one read transaction: events, logs, blame, differences, hashes.

Each function takes a ``Session``: a cursor inside one transaction, and the vault and key index of
its connection. The pool of connections is ``reader``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google_crc32c import extend
from sqlalchemy import bindparam, select

from configsvc.errors import NotFoundError
from configsvc.limits import HISTORY_EVENTS_BYTES_MAX, HISTORY_LOG_ROWS_MAX
from configsvc.mvcc.messages import Event, KeyValue, RangeOp, Row
from configsvc.storage.history.messages import (
    Actor,
    CommitInfo,
    Difference,
    EventPage,
    LogPage,
    LogRow,
    Opening,
)
from configsvc.storage.history.ranges import key_value, live_rows, raw_live_rows
from configsvc.storage.history.scans import Stretch, scan
from configsvc.storage.history.schema import ACTORS, COMMITS, OPENINGS
from configsvc.storage.history.session import Session
from configsvc.storage.history.statements import ROW_LIST, compiled
from configsvc.types import KeySpan

_PREVIOUS: Final = f"""
SELECT {ROW_LIST} FROM {{places}} p CROSS JOIN revisions r
ON r.revision = p.revision AND r.sub = p.sub
WHERE p.key = ? AND p.revision <= ? ORDER BY p.revision DESC, p.sub DESC LIMIT 1
"""  # noqa: S608 - names of ours
COMMIT_COLUMNS: Final = tuple(COMMITS.c[name] for name in CommitInfo._fields)
_COMMIT: Final = compiled(select(*COMMIT_COLUMNS).where(COMMITS.c.seq == bindparam("seq"))).sql
_OPENING: Final = compiled(select(OPENINGS.c.sealed).where(OPENINGS.c.seq == bindparam("seq"))).sql
_ACTOR: Final = compiled(
    select(ACTORS.c.hash, ACTORS.c.record, ACTORS.c.salt, ACTORS.c.seq).where(
        ACTORS.c.hash == bindparam("hash")
    )
).sql
_TIME: Final = compiled(
    select(COMMITS.c.time_ns, COMMITS.c.revision).where(COMMITS.c.seq == bindparam("seq"))
).sql
_SEQ: Final = 8  # place of ``seq`` in ROW_COLUMNS
_OVERHEAD: Final = 64  # bytes counted per row besides key and value


def events(
    session: Session,
    span: KeySpan | None,
    low: int,
    high: int,
    *,
    revisions_max: int,
    with_previous: bool,
) -> EventPage:
    """See ``HistoryReader.events``."""
    high = min(high, session.visible)
    raws: list[tuple[Any, ...]] = []
    size, revisions, last, through = 0, 0, -1, high
    for raw in scan(session, span, Stretch(low, high)):
        if raw[0] != last:
            if revisions == revisions_max or size > HISTORY_EVENTS_BYTES_MAX:
                through = last
                break
            revisions, last = revisions + 1, raw[0]
        size += len(raw[2]) + len(raw[3]) + _OVERHEAD
        raws.append(raw)
    groups = _group(session.vault.open_rows(raws))
    before = _Previous(session)
    found: list[tuple[int, list[Event]]] = []
    for revision, rows in groups:
        if with_previous:
            found.append((revision, [Event(row, before.of(row)) for row in rows]))
            before.advance(rows)
        else:
            found.append((revision, [Event(row, None) for row in rows]))
    return EventPage(found, max(through, low - 1))


class _Previous:
    """The value of a key before a revision; a key met again in one page is not read again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[bytes, KeyValue | None] = {}

    def of(self, row: Row) -> KeyValue | None:
        if row.key not in self._known:
            self._known[row.key] = _value_at(self._session, row.key, row.revision - 1)
        return self._known[row.key]

    def advance(self, rows: Iterable[Row]) -> None:
        """All rows of one revision have been asked for: they are the past now."""
        for row in rows:
            self._known[row.key] = None if row.tombstone else key_value(row)


def _group(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at].revision != rows[start].revision:
            yield rows[start].revision, rows[start:at]
            start = at


def key_log(
    session: Session, span: KeySpan, stretch: Stretch, *, limit: int, newest_first: bool
) -> LogPage:
    """See ``HistoryReader.key_history``."""
    most = min(limit, HISTORY_LOG_ROWS_MAX) if limit > 0 else HISTORY_LOG_ROWS_MAX
    high = min(stretch.high, session.visible)
    raws: list[tuple[Any, ...]] = []
    size, more = 0, False
    for raw in scan(session, span, Stretch(stretch.low, high), newest_first=newest_first):
        full = len(raws) >= most or size > HISTORY_EVENTS_BYTES_MAX
        if full and raw[0] != raws[-1][0]:  # a page ends between revisions: it is asked on by them
            more = True
            break
        size += len(raw[2]) + len(raw[3]) + _OVERHEAD
        raws.append(raw)
    return LogPage(_with_authors(session, raws), more)


def blame(session: Session, span: KeySpan, revision: int, limit: int) -> LogPage:
    """The last change of every key of ``span`` that exists at ``revision``, in key order."""
    most = min(limit, HISTORY_LOG_ROWS_MAX) if limit > 0 else HISTORY_LOG_ROWS_MAX
    raws = raw_live_rows(session, RangeOp(span), revision, most + 1)
    return LogPage(_with_authors(session, raws[:most]), len(raws) > most)


def _with_authors(session: Session, raws: list[tuple[Any, ...]]) -> list[LogRow]:
    authors = _Authors(session)
    rows = session.vault.open_rows(raws)
    return [authors.log_row(row, raw) for row, raw in zip(rows, raws, strict=True)]


class _Authors:
    """Commits, openings and actors of one page; rows of one commit share them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commits: dict[int, tuple[CommitInfo, Opening | None]] = {}
        self._actors: dict[bytes, Actor | None] = {}

    def log_row(self, row: Row, raw_row: tuple[Any, ...]) -> LogRow:
        seq = raw_row[_SEQ]
        if seq not in self._commits:
            raw = self._session.cursor.execute(_COMMIT, (seq,)).fetchone()
            if raw is None:
                raise NotFoundError(f"leaf {seq} is not held any more")
            opening = opening_of(self._session, raw_row)
            self._commits[seq] = (CommitInfo._make(raw), opening)
        commit, opening = self._commits[seq]
        if commit.actor not in self._actors:
            self._actors[commit.actor] = actor_of(self._session, commit.actor)
        return LogRow(row, commit, self._actors[commit.actor], opening)


def opening_of(session: Session, raw_row: tuple[Any, ...]) -> Opening | None:
    """The opening of the leaf that a sealed row (``ROW_COLUMNS``) belongs to; None: erased."""
    carried = session.vault.row_opening(raw_row)
    if carried is not None:
        return carried
    seq = raw_row[_SEQ]
    raw = session.cursor.execute(_OPENING, (seq,)).fetchone()
    return None if raw is None else session.vault.open_opening(seq, raw[0])


def actor_of(session: Session, actor_hash: bytes) -> Actor | None:
    """An actor record by its hash; None once it was erased."""
    raw = session.cursor.execute(_ACTOR, (actor_hash,)).fetchone()
    return None if raw is None else Actor(*raw)


def difference(session: Session, span: KeySpan, older: int, newer: int) -> list[Difference]:
    """Keys of ``span`` that differ between two revisions, in key order."""
    changed = {raw[2] for raw in scan(session, span, Stretch(older + 1, newer))}
    found = []
    for key in sorted(changed):
        before = _value_at(session, key, older)
        after = _value_at(session, key, newer)
        if before != after:
            found.append(Difference(key, before, after))
    return found


def _value_at(session: Session, key: bytes, revision: int) -> KeyValue | None:
    for table in reversed(session.places(0, revision)):
        sql = _PREVIOUS.format(places=table)
        raws = session.cursor.execute(sql, (key, revision)).fetchall()
        if raws:
            (row,) = session.vault.open_rows(raws)
            return None if row.tombstone else key_value(row)
    return None


def revision_at(session: Session, time_ns: int, tree_size: int, first_seq: int) -> int:
    """The newest revision not later than ``time_ns``; 1 (the empty store) before the first."""
    low, high = first_seq, tree_size  # leader times grow strictly with seq (TIME-1)
    while low < high:
        middle = (low + high) // 2
        stamp = session.cursor.execute(_TIME, (middle,)).fetchone()[0]
        low, high = (middle + 1, high) if stamp <= time_ns else (low, middle)
    if low == first_seq:
        return 1
    return int(session.cursor.execute(_TIME, (low - 1,)).fetchone()[1])


def hash_kv(session: Session, revision: int, compact_revision: int) -> int:
    """See ``HistoryReader.hash_kv``."""
    crc = 0
    if compact_revision > 0:
        kept = live_rows(session, RangeOp(KeySpan(b"", None)), compact_revision)
        crc = _extend(crc, kept)
    page: list[tuple[Any, ...]] = []
    for raw in scan(session, None, Stretch(max(compact_revision + 1, 0), revision)):
        page.append(raw)
        if len(page) == 256:
            crc = _extend(crc, session.vault.open_rows(page))
            page.clear()
    return _extend(crc, session.vault.open_rows(page))


def _extend(crc: int, rows: Iterable[Row]) -> int:
    for row in rows:
        numbers = (row.revision, row.sub, row.create_revision, row.version, row.lease)
        head = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
        flag = b"\1" if row.tombstone else b"\0"
        lengths = len(row.key).to_bytes(4, "big") + len(row.value).to_bytes(4, "big")
        crc = extend(crc, b"".join((head, flag, lengths, row.key, row.value)))
    return crc
