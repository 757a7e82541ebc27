"""Do the revision rows say what the leaf committed to? (security.md TE-7, TE-8)

Pure comparison of one leaf, its change records, its rows and its salt; ``verify`` walks the
stream and keeps the values of live keys, so that the commitment to the value *before* a change is
checked too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from configsvc.audit.changes import (
    DELETE,
    PREV_VALUE,
    PUT,
    REASON,
    TICKET,
    VALUE,
    key_fields,
    split_records,
)
from configsvc.audit.commitments import commit_entry
from configsvc.audit.leaf import Value, decode_leaf
from configsvc.audit.merkle import root_of
from configsvc.audit.problems import Bad

_CHANGE_FIELDS = ("commit", "prev_commit", "length", "value_lease", "prev_mod_rev")


class RevisionRow(NamedTuple):
    """A row of the history, as far as a leaf binds it."""

    revision: int
    sub: int
    key: bytes
    value: bytes
    lease: int
    tombstone: bool


class LiveValues:
    """Key -> (mod revision, value) as of the leaf before. ``complete`` False: some rows were not
    held, so an absent or old value proves nothing any more.
    """

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        self.values: dict[bytes, tuple[int, bytes]] = {}

    def carry(self, rows: Sequence[RevisionRow]) -> None:
        """Take over the rows of one revision."""
        for row in rows if self.complete else ():
            if row.tombstone:
                self.values.pop(row.key, None)
            else:
                self.values[row.key] = (row.revision, row.value)

    def give_up(self) -> None:
        """Rows are missing: forget."""
        self.complete = False
        self.values.clear()


def check_openings(fields: Mapping[str, Value], salt: bytes, reason: str, ticket: str) -> None:
    """Raise ``Bad`` unless reason and ticket are those committed to; both empty has no field."""
    for name, field, text in (
        ("reason_commit", REASON, reason),
        ("ticket_commit", TICKET, ticket),
    ):
        wanted = commit_entry(salt, field, 0, text.encode()) if text else None
        if fields.get(name) != wanted:
            raise Bad(f"{field} differs from its commitment")


def check_changes(
    fields: Mapping[str, Value],
    changes: bytes,
    rows: Sequence[RevisionRow] | None,
    salt: bytes | None,
    live: LiveValues,
) -> bool:
    """Compare what is held of a leaf's changes; returns whether it produced a revision.

    ``rows`` or ``salt`` None: not held, so only the rest is compared. ``live`` is brought up to
    date with the rows.
    """
    records = _records(fields, changes)
    if rows is None:
        if records:
            live.give_up()
        return bool(records)
    if len(rows) != len(records):
        raise Bad(f"{len(rows)} revision rows where the leaf has {len(records)}")
    for sub, (record, row) in enumerate(zip(records, rows, strict=True)):
        if row.revision != fields["revision"] or row.sub != sub:
            raise Bad("a revision row is out of place")
        _check_row(record, row)
        if salt is not None:
            _check_commitments(record, row, salt, live)
    live.carry(rows)
    return bool(records)


def _records(fields: Mapping[str, Value], changes: bytes) -> list[Mapping[str, Value]]:
    """The changes as field tables: the leaf's own one, or the records beside it."""
    inline = any(name in fields for name in _CHANGE_FIELDS)
    if "count" not in fields:
        if changes:
            raise Bad("change records where the leaf has none")
        return [fields] if inline else []
    found = list(split_records(changes))
    if len(found) != fields["count"] or inline:
        raise Bad(f"{len(found)} change records, which is not the leaf's count")
    if fields.get("root") != (root_of(found) if found else None):
        raise Bad("change records differ from their root")
    tables: list[Mapping[str, Value]] = [decode_leaf(record) for record in found]
    for sub, table in enumerate(tables):
        if table.get("sub") != sub or table.get("kind") not in (PUT, DELETE):
            raise Bad("change records are out of order")
    return tables


def _check_row(record: Mapping[str, Value], row: RevisionRow) -> None:
    for name, value in key_fields(row.key).items():
        if record.get(name) != value:
            raise Bad("a row's key differs from the record")
    deleted = "commit" not in record
    if row.tombstone != deleted or ("kind" in record and (record["kind"] == DELETE) != deleted):
        raise Bad("a row's kind differs from the record")
    if not deleted and record.get("length") != len(row.value):
        raise Bad("a row's value has another length than recorded")
    if record.get("value_lease", 0) != (0 if deleted else row.lease):
        raise Bad("a row's lease differs from the record")


def _check_commitments(
    record: Mapping[str, Value], row: RevisionRow, salt: bytes, live: LiveValues
) -> None:
    if not row.tombstone and record["commit"] != commit_entry(salt, VALUE, row.sub, row.value):
        raise Bad("a row's value differs from its commitment")
    if not live.complete:
        return
    before = live.values.get(row.key)
    if before is None:
        if "prev_commit" in record:
            raise Bad("the record has a value before, the rows have none")
        return
    mod_revision, value = before
    if record.get("prev_mod_rev") != mod_revision:
        raise Bad("the record follows another revision of the key than the rows")
    if record.get("prev_commit") != commit_entry(salt, PREV_VALUE, row.sub, value):
        raise Bad("the value before differs from its commitment")
