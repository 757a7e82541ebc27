"""The rules of the verifier (security.md TE-7, TE-13): does the record prove what it claims?

``verify_log`` reads a stream from its first leaf: exact bytes, tree, actors, order, time, and, for
the revision rows still held, that each value is the one that was committed to. It trusts nothing
but the checkpoint it is given, whose signatures the caller has checked against pinned keys
(``checkpoint.verify_checkpoint``).

The answer is a report, never an exception: anything unexpected is INTERNAL, and only INTACT means
intact (V5). The first bad leaf is named with what differs. What could not be looked at, because
it was not there, makes the result INCOMPLETE and is counted.

Not here: reading exports and databases, signatures (``cli``, ``identity``), rendering (``render``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from configsvc.audit.actors import actor_hash, decode_actor
from configsvc.audit.binding import LiveValues, RevisionRow, check_changes, check_openings
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.events import CODES, EVENT_NAMES
from configsvc.audit.leaf import Value, decode_leaf
from configsvc.audit.merkle import Frontier
from configsvc.audit.problems import Bad
from configsvc.errors import DecodeError

FIRST_REVISION = 2  # of a fresh store, which is at 1

_REQUIRED = ("seq", "time_ns", "raft_term", "raft_index", "revision", "actor", "event", "code")


class Verdict(IntEnum):
    """Exit codes of ``configctl audit verify``; 2 is a wrong call and never comes from here."""

    INTACT = 0
    TAMPERED = 1
    INCOMPLETE = 3
    INTERNAL = 4


class Opening(NamedTuple):
    """What was sealed beside a leaf. ``salt`` is the entry's."""

    salt: bytes
    reason: str
    ticket: str


class Columns(NamedTuple):
    """The searchable copy of a leaf's fields in the table of commits; it must not lie either."""

    raft_index: int
    raft_term: int
    revision: int
    time_ns: int
    event: str
    actor: bytes
    outcome: str


class Entry(NamedTuple):
    """One leaf with all that is still held about it; None or absent: not held."""

    seq: int
    leaf: bytes
    changes: bytes  # concatenated change records
    opening: Opening | None
    rows: Sequence[RevisionRow] | None  # of the revision that the leaf produced; () when none
    columns: Columns | None = None


class ActorRow(NamedTuple):
    salt: bytes
    record: bytes


class Anchor(NamedTuple):
    """A local stream's head as stream M holds it: to be compared with that stream's export."""

    seq: int
    origin: str
    size: int
    root: bytes


class Report(NamedTuple):
    verdict: Verdict
    problem: str  # first thing wrong; empty when intact
    bad_seq: int  # -1: none, or not about one leaf
    leaves: int  # looked at
    revisions: int  # whose rows were compared with their commitments
    missing: Mapping[str, int]  # what was not held -> how often
    anchors: tuple[Anchor, ...]


def verify_log(
    entries: Iterable[Entry],
    actors: Mapping[bytes, ActorRow],
    checkpoint: Checkpoint,
    *,
    older: Checkpoint | None = None,
    first_revision: int = FIRST_REVISION,
) -> Report:
    """Verify a stream from leaf 0 up to ``checkpoint``.

    Args:
        entries: ascending by seq; later ones than the checkpoint's size are not looked at.
        actors: actor records by hash.
        checkpoint: a head whose signatures are already checked.
        older: an earlier checked head that this one must extend.
        first_revision: of the first change in the stream: 2, or higher after a restore.
    """
    run = _Run(actors, first_revision)
    try:
        problem = run.all(entries, checkpoint, older)
    except Bad as bad:
        return run.report(Verdict.TAMPERED, str(bad))
    except DecodeError as error:
        return run.report(Verdict.TAMPERED, str(error))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong here must never look intact
        return run.report(Verdict.INTERNAL, f"verifier failed: {type(error).__name__}")
    return problem


class _Run:
    """State of one pass."""

    def __init__(self, actors: Mapping[bytes, ActorRow], first_revision: int) -> None:
        self.frontier = Frontier()
        self.actors = actors
        self.known: set[bytes] = set()  # actor hashes found good
        self.revision = first_revision - 1
        self.last: dict[str, int] = {"time_ns": -1, "raft_index": -1, "raft_term": -1}
        # Only a stream that starts with an empty key space tells every value before a change.
        self.live = LiveValues(complete=first_revision == FIRST_REVISION)
        self.checked = 0
        self.missing: dict[str, int] = {}
        self.anchors: dict[str, Anchor] = {}
        self.found_anchors: list[Anchor] = []
        self.seq = -1

    def all(
        self, entries: Iterable[Entry], checkpoint: Checkpoint, older: Checkpoint | None
    ) -> Report:
        if older is not None and older.origin != checkpoint.origin:
            raise Bad("older checkpoint is of another origin")
        if older is not None and older.size > checkpoint.size:
            raise Bad("older checkpoint is larger")
        heads = [head for head in (older, checkpoint) if head is not None]
        self._compare_heads(heads)
        for entry in entries:
            if self.frontier.size == checkpoint.size:
                break
            self.seq = entry.seq
            self._entry(entry)
            self.frontier.append(entry.leaf)
            self._compare_heads(heads)
        self.seq = -1
        if self.frontier.size < checkpoint.size:
            self.miss("leaves", checkpoint.size - self.frontier.size)
        return self.report(Verdict.INCOMPLETE if self.missing else Verdict.INTACT, "")

    def report(self, verdict: Verdict, problem: str) -> Report:
        if verdict is Verdict.INCOMPLETE:
            counts = ", ".join(f"{count} {what}" for what, count in sorted(self.missing.items()))
            problem = f"not held: {counts}"
        return Report(
            verdict,
            problem,
            self.seq if verdict in (Verdict.TAMPERED, Verdict.INTERNAL) else -1,
            self.frontier.size,
            self.checked,
            dict(self.missing),
            tuple(self.found_anchors),
        )

    def miss(self, what: str, count: int = 1) -> None:
        self.missing[what] = self.missing.get(what, 0) + count

    def _compare_heads(self, heads: list[Checkpoint]) -> None:
        for head in heads:
            if head.size == self.frontier.size and head.root != self.frontier.root():
                raise Bad(f"root at size {head.size} differs from the signed one")

    def _entry(self, entry: Entry) -> None:
        if entry.seq != self.frontier.size:
            raise Bad(f"leaf {self.frontier.size} is missing")
        fields = decode_leaf(entry.leaf)
        for name in _REQUIRED:
            if name not in fields:
                raise Bad(f"leaf has no {name}")
        if fields["seq"] != entry.seq:
            raise Bad("leaf carries another seq")
        if fields["event"] not in EVENT_NAMES or int(fields["code"]) >= len(CODES):
            raise Bad("leaf has an unknown event or code")
        self._order(fields)
        self._actor(fields)
        self._anchor(fields)
        if entry.columns is not None:
            _check_columns(entry.columns, fields)
        salt = None if entry.opening is None else entry.opening.salt
        if entry.opening is None:
            self.miss("openings")
        else:
            check_openings(fields, entry.opening.salt, entry.opening.reason, entry.opening.ticket)
        self._changes(fields, entry, salt)

    def _order(self, fields: Mapping[str, Value]) -> None:
        """Index and time strictly grow in stream M; in a local stream (index 0) time may stand."""
        local = fields["raft_index"] == 0
        for name, strict in (
            ("raft_index", not local),
            ("raft_term", False),
            ("time_ns", not local),
        ):
            value = int(fields[name])
            if value < self.last[name] or (strict and value == self.last[name]):
                raise Bad(f"{name} goes back")
            self.last[name] = value

    def _actor(self, fields: Mapping[str, Value]) -> None:
        hashed = fields["actor"]
        if not isinstance(hashed, bytes) or hashed in self.known:
            return
        row = self.actors.get(hashed)
        if row is None:
            self.miss("actor records")
            return
        if actor_hash(row.salt, row.record) != hashed:
            raise Bad("actor record differs from its hash")
        decode_actor(row.record)
        self.known.add(hashed)

    def _anchor(self, fields: Mapping[str, Value]) -> None:
        if EVENT_NAMES[int(fields["event"])] != "audit.anchor" or fields["code"] != 0:
            return
        origin, root = str(fields.get("object", "")), fields.get("digest")
        if not isinstance(root, bytes):
            raise Bad("anchor has no root")
        anchor = Anchor(int(fields["seq"]), origin, int(fields.get("size", 0)), root)
        before = self.anchors.get(origin)
        if before is not None and (
            anchor.size < before.size or (anchor.size == before.size and root != before.root)
        ):
            raise Bad(f"local stream {origin} goes back")
        self.anchors[origin] = anchor
        self.found_anchors.append(anchor)

    def _changes(self, fields: Mapping[str, Value], entry: Entry, salt: bytes | None) -> None:
        revision = int(fields["revision"])
        changed = check_changes(fields, entry.changes, entry.rows, salt, self.live)
        if fields["raft_index"] == 0:
            return  # a local stream makes no revisions
        wanted = self.revision + 1 if changed else self.revision
        if revision != wanted:
            raise Bad(f"revision {revision} where {wanted} follows")
        self.revision = revision
        if not changed:
            return
        if entry.rows is None or salt is None:
            self.miss("revisions with rows and salt")
        else:
            self.checked += 1


def _check_columns(columns: Columns, fields: Mapping[str, Value]) -> None:
    wanted = Columns(
        int(fields["raft_index"]),
        int(fields["raft_term"]),
        int(fields["revision"]),
        int(fields["time_ns"]),
        EVENT_NAMES[int(fields["event"])],
        fields["actor"] if isinstance(fields["actor"], bytes) else b"",
        CODES[int(fields["code"])],
    )
    for name, held, said in zip(Columns._fields, columns, wanted, strict=True):
        if held != said:
            raise Bad(f"column {name} differs from the leaf")
