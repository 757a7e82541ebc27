"""Envelopes, and a small honest log with its rows, for tests of the audit room."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from configsvc.audit.binding import RevisionRow
from configsvc.audit.changes import ChangeRecords, KeyChange
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.record import CommitValues, Position, Recorder, Resource
from configsvc.audit.verify import ActorRow, Columns, Entry, Opening
from configsvc.types import Principal, Source

ORIGIN = "test/00000000000000aa/audit/1"
HANA = Principal(
    "user",
    "hana",
    "hana",
    "01",
    "spiffe://test/user/hana",
    "0a",
    "ff" * 32,
    "certificate",
    "",
    "",
    0,
)
HOME = Source("10.20.1.2", "TLSv1.3", "etcdctl", "3.5.1")


class Envelope(NamedTuple):
    request_id: int = 7
    principal: Principal = HANA
    source: Source = HOME
    reason: str = ""
    ticket: str = ""
    salt: bytes = bytes(range(32))
    time_ns: int = 1_700_000_000_000_000_000
    time_suspect: bool = False
    accepted_by: int = 0xABCDEF


class Log:
    """Writes a stream as apply would, and keeps what storage would."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.revision = 1
        self.live: dict[bytes, tuple[int, bytes]] = {}
        self.entries: list[Entry] = []
        self.actors: dict[bytes, ActorRow] = {}

    def envelope(self, **parts: object) -> Envelope:
        """Strictly later than the one before, with a salt of its own."""
        number = len(self.entries)
        base = Envelope(
            request_id=number + 1,
            salt=sha256(b"salt%d" % number).digest(),
            time_ns=1_700_000_000_000_000_000 + number,
        )
        return base._replace(**parts)  # type: ignore[arg-type]

    def put(self, key: bytes, value: bytes, lease: int = 0, **parts: object) -> None:
        self.revision += 1
        mod, before = self.live.get(key, (0, None))
        envelope = self.envelope(**parts)
        leaf, values = self.recorder.put(
            envelope, self._position(), "root", key, value, lease, mod, before
        )
        row = RevisionRow(self.revision, 0, key, value, lease, False)
        self._keep(envelope, leaf, values, (row,))

    def delete(self, key: bytes) -> None:
        self.revision += 1
        mod, before = self.live[key]
        envelope = self.envelope()
        leaf, values = self.recorder.record(
            envelope,
            self._position(),
            "kv.delete",
            resource=Resource(key),
            change=KeyChange(0, key, None, 0, mod, before),
        )
        self._keep(envelope, leaf, values, (RevisionRow(self.revision, 0, key, b"", 0, True),))

    def txn(self, *changes: tuple[bytes, bytes | None]) -> None:
        if changes:
            self.revision += 1
        made, rows = [], []
        for sub, (key, value) in enumerate(changes):
            mod, before = self.live.get(key, (0, None))
            made.append(KeyChange(sub, key, value, 0, mod, before))
            rows.append(RevisionRow(self.revision, sub, key, value or b"", 0, value is None))
        envelope = self.envelope()
        leaf, values = self.recorder.record(
            envelope, self._position(), "kv.txn", changes=ChangeRecords(envelope.salt, made)
        )
        self._keep(envelope, leaf, values, tuple(rows))

    def event(self, event: str, code: str = "OK", **parts: object) -> None:
        envelope = self.envelope()
        leaf, values = self.recorder.record(
            envelope,
            self._position(),
            event,
            code=code,
            resource=Resource(**parts),  # type: ignore[arg-type]
        )
        self._keep(envelope, leaf, values, ())

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(ORIGIN, self.recorder.frontier.size, self.recorder.frontier.root())

    def _position(self) -> Position:
        return Position(len(self.entries) + 1, 2, self.revision, 3, 1)

    def _keep(
        self, envelope: Envelope, leaf: bytes, values: CommitValues, rows: tuple[RevisionRow, ...]
    ) -> None:
        seq, index, term, revision, time_ns, event, actor, record, salt, code, *_ = values
        if record:
            self.actors[actor] = ActorRow(salt, record)
        for row in rows:
            if row.tombstone:
                del self.live[row.key]
            else:
                self.live[row.key] = (row.revision, row.value)
        opening = Opening(envelope.salt, envelope.reason, envelope.ticket)
        columns = Columns(index, term, revision, time_ns, event, actor, code)
        self.entries.append(Entry(seq, leaf, values[13], opening, rows, columns))


def sample() -> Log:
    """A bit of everything."""
    log = Log()
    log.event("bootstrap")
    log.put(b"/a", b"one")
    log.put(b"/a", b"two", reason="rotate", ticket="CHG-1")
    log.put(b"/b" * 600, b"long key", lease=9)
    log.event("kv.put", "PERMISSION_DENIED", key=b"/secret")
    log.txn((b"/a", b"three"), (b"/c", b""), (b"/b" * 600, None))
    log.txn()
    log.event("user.add", user="omar")
    log.delete(b"/a")
    log.event("audit.anchor", object="test/local/1", size=4, digest=bytes(32))
    log.put(b"/a", b"again", time_suspect=True)
    return log
