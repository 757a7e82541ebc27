"""Reading the stream back: one snapshot, opened row by row.

Not here: who may read it (``api.audit``), what a record says (``audit.render``).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from configsvc.audit.merkle import Frontier, leaf_hash
from configsvc.errors import ensure
from configsvc.storage.local import sealing
from configsvc.storage.local.messages import LocalActor, LocalRecord
from configsvc.storage.local.schema import ACTORS, BATCHES, HEAD, RECORDS
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.rows import RowSealer


class LocalReader:
    """Reads one snapshot of the stream."""

    def __init__(self, connection: Connection, sealers: dict[str, RowSealer]) -> None:
        self._connection = connection
        self._sealers = sealers
        self._batches: dict[int, tuple[str, bytes]] = {}

    def size(self) -> int:
        """Leaves."""
        return int(self._connection.execute(select(HEAD.c.size)).scalar() or 0)

    def records(self, first: int, end: int) -> list[LocalRecord]:
        """Records ``[first, end)`` as far as they are held, in order.

        Raises:
            SealBroken: a row is not what was written; names its seq.
        """
        rows = self._connection.execute(
            select(RECORDS).where(RECORDS.c.seq >= first, RECORDS.c.seq < end).order_by("seq")
        )
        found = []
        for seq, hashed, batch, number, blob in rows.all():
            clear = self._open(batch, number, sealing.record_aad(seq, hashed), blob, seq)
            record = sealing.unpack_record(seq, clear)
            if leaf_hash(record.leaf) != hashed:
                raise SealBroken(f"local record {seq} has another hash")
            found.append(record)
        return found

    def actors(self, first: int, end: int) -> list[LocalActor]:
        """Actor records met first by leaves ``[first, end)``."""
        return self._actors(
            select(ACTORS).where(ACTORS.c.seq >= first, ACTORS.c.seq < end).order_by("seq")
        )

    def newest_actors(self, count: int) -> list[LocalActor]:
        """The last ``count`` actor records made, oldest first."""
        found = self._actors(select(ACTORS).order_by(ACTORS.c.seq.desc()).limit(count))
        return found[::-1]

    def root_at(self, size: int) -> bytes:
        """Root over the first ``size`` leaf hashes, recomputed from the rows."""
        frontier = Frontier()
        for (hashed,) in self._connection.execute(
            select(RECORDS.c.hash).where(RECORDS.c.seq < size).order_by("seq")
        ):
            frontier.append_hash(hashed)
        ensure(frontier.size == size, "a root is asked for leaves that are held")
        return frontier.root()

    def _actors(self, query: Any) -> list[LocalActor]:
        found = []
        for seq, hashed, batch, number, blob in self._connection.execute(query).all():
            clear = self._open(batch, number, sealing.actor_aad(seq, hashed), blob, seq)
            found.append(sealing.unpack_actor(seq, hashed, clear))
        return found

    def _open(self, batch: int, number: int, aad: bytes, blob: bytes, seq: int) -> bytes:
        known = self._batches.get(batch)
        if known is None:
            row = self._connection.execute(
                select(BATCHES.c.seed, BATCHES.c.info).where(BATCHES.c.id == batch)
            ).first()
            if row is None or row[0] not in self._sealers:
                raise SealBroken(f"local record {seq}: its seal batch is missing")
            known = self._batches[batch] = (row[0], row[1])
        seed, info = known
        try:
            return self._sealers[seed].open(info, number, aad, blob)
        except SealBroken as error:
            raise SealBroken(f"local record {seq} cannot be opened") from error
