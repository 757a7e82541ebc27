"""A member's audit log, read through the API: leaves, openings, and the rows they bind.

Leaves come from ``Audit.Export``; the values, without which no commitment can be checked, from
``History.Log`` in order of revisions. Both are asked of one and the same member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from configsvc.audit.binding import RevisionRow
from configsvc.audit.checkpoint import NoteKey, encode_key
from configsvc.audit.leaf import decode_leaf
from configsvc.audit.proof_text import decode_proof
from configsvc.audit.verify import ActorRow, Columns, Entry, Opening
from configsvc.cli.exits import CliError, Exit
from configsvc.errors import CorruptError, DecodeError

if TYPE_CHECKING:
    from configsvc.client import Client, Endpoint
    from configsvc.proto import v1_pb2

_PAGE: Final = 1_000  # changes in one answer, and then the rest of the last revision


class RowReader:
    """Revision rows in ascending order, a page at a time."""

    def __init__(self, client: Client, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint
        self._rows: deque[RevisionRow] = deque()
        self._after = 0
        self._done = False

    def up_to(self, revision: int) -> list[RevisionRow]:
        """All rows not handed out yet of revisions up to this one.

        Raises:
            DecodeError: the member cannot read its own rows; names the revision.
        """
        found: list[RevisionRow] = []
        while True:
            while self._rows and self._rows[0].revision <= revision:
                found.append(self._rows.popleft())
            if self._rows or self._done:
                return found
            self._fill()

    def _fill(self) -> None:
        records, more = self._page()  # pages end between revisions
        if more and not records:
            raise DecodeError(f"{self._endpoint}: an empty page after revision {self._after}")
        self._done = not more
        sub, revision = 0, 0
        for record in records:
            sub = sub + 1 if record.revision == revision else 0
            revision = record.revision
            self._rows.append(
                RevisionRow(revision, sub, record.key, record.value, record.lease, record.tombstone)
            )
        self._after = revision if records else self._after

    def _page(self) -> tuple[list[v1_pb2.Record], bool]:
        limit = _PAGE
        while True:
            try:
                return self._ask(limit)
            except CorruptError:
                if limit == 1:
                    raise DecodeError(
                        f"{self._endpoint} cannot read its rows after revision {self._after}"
                    ) from None
                limit = max(1, limit // 10)

    def _ask(self, limit: int) -> tuple[list[v1_pb2.Record], bool]:
        from configsvc.client import inquiries

        operation = inquiries.log(
            b"\0", b"\0", limit=limit, after_revision=self._after, ascending=True, values=True
        )
        answer = self._client.do(operation, endpoint=self._endpoint)
        return [record for record in answer.records if record.revision], answer.more


def note_at(client: Client, endpoint: Endpoint, size: int) -> str:
    """A member's signed head at a size above 0, so that several members sign the same one.

    Raises:
        DecodeError: what it answers is no proof.
        NotFoundError: its log is not that long yet.
    """
    from configsvc.client import inquiries

    answer = client.do(inquiries.inclusion(0, size), endpoint=endpoint)
    return decode_proof(answer.proof).note


class MemberLog:
    """One member's log. ``actors`` and ``keys`` fill up while ``entries`` is read."""

    def __init__(self, client: Client, endpoint: Endpoint, *, values: bool) -> None:
        from configsvc.client import inquiries

        self.client = client
        self.endpoint = endpoint
        self._values = values
        self.actors: dict[bytes, ActorRow] = {}
        self.keys: list[v1_pb2.ExportedKey] = []
        self.note = client.do(inquiries.checkpoint(), endpoint=endpoint).note

    def verifier_keys(self, origin: str) -> list[NoteKey]:
        """The keys that the member names, as they would sign for ``origin``.

        Only of who signs today: keys of members that were replaced would count in a majority that
        nobody can reach any more.
        """
        return [NoteKey(origin, key.public) for key in self.keys if key.state == "active"]

    def key_lines(self, origin: str) -> list[str]:
        """The same as text."""
        return [encode_key(key) for key in self.verifier_keys(origin)]

    def read_keys(self) -> None:
        """Fetch only the keys.

        Raises:
            CliError: the member names none.
        """
        for chunk in self._chunks(0, 1):
            self.keys.extend(chunk.keys)
        if not self.keys:
            raise CliError(Exit.NO, f"{self.endpoint}: names no log keys")

    def entries(self) -> Iterator[Entry]:
        """All leaves, ascending, with what the caller may see beside them.

        Raises:
            DecodeError: the member cannot read back what it stored.
        """
        rows = RowReader(self.client, self.endpoint) if self._values else None
        seq = -1
        try:
            for entry in self._entries(rows, 0, 0):
                seq = entry.seq
                yield entry
            return
        except CorruptError:
            pass
        # Chunks are read as a whole: one by one from here names the record.
        while True:
            seq += 1
            try:
                found = list(self._entries(rows, seq, 1))
            except CorruptError:
                raise DecodeError(f"seq {seq}: the member cannot read it back") from None
            if not found:
                return
            yield from found

    def _entries(self, rows: RowReader | None, first: int, limit: int) -> Iterator[Entry]:
        for chunk in self._chunks(first, limit):
            if chunk.keys:
                self.keys = list(chunk.keys)
            for actor in chunk.actors:
                self.actors[actor.hash] = ActorRow(actor.salt, actor.record)
            for exported in chunk.leaves:
                opening = None
                if exported.salt:
                    opening = Opening(exported.salt, exported.reason, exported.ticket)
                own = None
                if rows is not None:
                    own = rows.up_to(int(decode_leaf(exported.leaf).get("revision", 0)))
                columns = _columns(exported)
                yield Entry(exported.seq, exported.leaf, exported.changes, opening, own, columns)

    def _chunks(self, first: int, limit: int) -> Iterator[v1_pb2.ExportChunk]:
        from configsvc.proto import v1_pb2

        return self.client.stream(
            "/configsvc.v1.Audit/Export",
            v1_pb2.ExportRequest(from_seq=first, limit=limit),
            v1_pb2.ExportChunk,
            endpoint=self.endpoint,
        )


def _columns(exported: v1_pb2.ExportedLeaf) -> Columns | None:
    """The member's searchable copy of the leaf's fields, to be held against the leaf."""
    if not exported.HasField("columns"):
        return None
    c = exported.columns
    return Columns(c.raft_index, c.raft_term, c.revision, c.time_ns, c.event, c.actor, c.outcome)
