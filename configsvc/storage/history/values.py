"""Sealing of the fields that hold values: the only place where they change form.

A sealed field is ``seal batch (8 bytes) ‖ number (4 bytes) ‖ ciphertext``; both numbers big
endian. One batch is one SQL transaction: it has its own derived key, and ``number`` counts its
sealed fields from 0 (ENC-2); its highest bit says that a salt lies behind the value. The
associated data binds table and field and every other column of the row (the sealer adds seed,
cluster and epoch; ENC-3), so that a row of ``revisions`` authenticates itself as a whole,
tombstones included (Q6).

Not here: the ciphers and the key file (``storage.seal``), when a new seed is due (``seeds``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from configsvc.errors import ensure
from configsvc.limits import SEAL_BATCHES_CACHED
from configsvc.mvcc.messages import Row
from configsvc.storage.history.messages import Opening, StoreIdentity
from configsvc.storage.seal.aead import TAG_BYTES
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.rows import RowSealer, SealBatch

HEAD: Final = struct.Struct(">QI")
_BATCH: Final = struct.Struct(">Q")
ROW_AAD: Final = struct.Struct(">QIQQqQB")  # revision, sub, create, version, lease, seq, tombstone
SEQ_AAD: Final = struct.Struct(">Q")

SEALED_OVERHEAD: Final = HEAD.size + TAG_BYTES  # bytes that a sealed field is longer

VALUE_FIELD: Final = b"revisions.value"
SALTED_FIELD: Final = b"revisions.value+salt"
OPENING_FIELD: Final = b"openings.sealed"

# A row whose leaf has nothing else to open carries the entry's salt behind its value, under the
# same seal: one field and one row less. The number's highest bit, as stored, says so.
SALT_BYTES: Final = 32
_SALTED: Final = 1 << 31
_NUMBER: Final = _SALTED - 1

_LENGTHS: Final = struct.Struct(">HHHI")

# What damaged columns of any kind do to those who take them for what they were written as.
_NOT_AS_WRITTEN: Final = (struct.error, TypeError, OverflowError)

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


class _Batch(NamedTuple):
    """What opens the fields of one transaction."""

    sealer: RowSealer
    info: bytes

    def open(self, number: int, aad: bytes, ciphertext: bytes) -> bytes:
        return self.sealer.open(self.info, number, aad, ciphertext)

    def opener(self) -> Callable[[int, bytes, bytes], bytes]:
        return self.sealer.opener(self.info)


def context_of(identity: StoreIdentity) -> bytes:
    """What ties a seed and its rows to one cluster and epoch."""
    return struct.pack(">QQ", identity.cluster_id, identity.epoch)


@cache
def prefix_of(field: bytes) -> bytes:
    """Front of the associated data of ``field``: no two fields share one."""
    return b"configsvc/sql/v1" + len(field).to_bytes(2, "big") + field


class Vault:
    """Opens sealed fields of one database, and begins batches that seal them.

    Not safe for two threads at a time: the writer and each reader have their own.
    """

    def __init__(
        self,
        load_sealers: Callable[[], Mapping[str, RowSealer]],
        find_batch: Callable[[int], tuple[str, bytes] | None],
    ) -> None:
        """Set up.

        Args:
            load_sealers: All seeds of the database; asked again when a seed is not known.
            find_batch: Seal batch id to (seed id, info), None when there is no such batch.
        """
        self._load_sealers = load_sealers
        self._sealers = load_sealers()
        self._find_batch = find_batch
        self._batches: dict[int, _Batch] = {}

    def reload_seeds(self) -> None:
        """A seed was added; inside a transaction of the caller's."""
        self._sealers = self._load_sealers()

    def begin(self, batch_id: int, seed_id: str) -> Sealing:
        """One SQL transaction's worth of sealing, under fresh random bytes."""
        sealer = self._sealer(seed_id)
        ensure(sealer, "the active seed is in the database")
        return Sealing(batch_id, seed_id, sealer.begin())  # type: ignore[union-attr]

    def open(self, field: bytes, tail: bytes, blob: bytes) -> bytes:
        """The clear bytes of one field.

        Raises:
            SealBroken: the bytes, or a column they are bound to, are not what was written.
        """
        try:
            batch_id, number = HEAD.unpack_from(blob)
            return self._batch(batch_id).open(number, prefix_of(field) + tail, blob[HEAD.size :])
        except _NOT_AS_WRITTEN:
            raise SealBroken("sealed field cut short, or of another kind") from None

    def open_rows(self, raws: Iterable[tuple[Any, ...]]) -> list[Row]:
        """Rows as ``ROW_COLUMNS`` of ``statements`` gives them, opened. Hot at start and on reads.

        Raises:
            SealBroken: naming revision and sub of the first bad row.
        """
        rows: list[Row] = []
        append, pack, unpack, size = rows.append, ROW_AAD.pack, HEAD.unpack_from, HEAD.size
        prefix, salted = prefix_of(VALUE_FIELD), prefix_of(SALTED_FIELD)
        revision = sub = current = -1
        try:
            for revision, sub, key, blob, create, version, lease, tombstone, seq in raws:
                batch_id, number = unpack(blob)
                if batch_id != current:  # neighbours mostly are of one transaction
                    opener, current = self._batch(batch_id).opener(), batch_id
                tail = pack(revision, sub, create, version, lease, seq, tombstone) + key
                if number & _SALTED:
                    value = opener(number & _NUMBER, salted + tail, blob[size:])[:-SALT_BYTES]
                else:
                    value = opener(number, prefix + tail, blob[size:])
                append(
                    _new(Row, (revision, sub, key, value, create, version, lease, tombstone == 1))
                )
        except (SealBroken, *_NOT_AS_WRITTEN) as error:
            raise SealBroken(f"row {revision}.{sub} of the history cannot be opened") from error
        return rows

    def row_opening(self, raw: tuple[Any, ...]) -> Opening | None:
        """The opening that a raw row (``ROW_COLUMNS``) carries with its value; None: none.

        Raises:
            SealBroken: the row is not what was written.
        """
        revision, sub, key, blob, create, version, lease, tombstone, seq = raw
        try:
            batch_id, number = HEAD.unpack_from(blob)
            if not number & _SALTED:
                return None
            tail = ROW_AAD.pack(revision, sub, create, version, lease, seq, tombstone) + key
            bound = prefix_of(SALTED_FIELD) + tail
            clear = self._batch(batch_id).open(number & _NUMBER, bound, blob[HEAD.size :])
        except _NOT_AS_WRITTEN:
            raise SealBroken(f"row {revision}.{sub} of the history cannot be opened") from None
        return Opening(clear[-SALT_BYTES:], "", "", b"")

    def open_opening(self, seq: int, blob: bytes) -> Opening:
        """What opens leaf ``seq``; same errors as ``open``."""
        clear = self.open(OPENING_FIELD, SEQ_AAD.pack(seq), blob)
        salt, reason, ticket, _changes = _LENGTHS.unpack_from(clear)
        at = _LENGTHS.size
        ends = (at + salt, at + salt + reason, at + salt + reason + ticket)
        return Opening(
            clear[at : ends[0]],
            clear[ends[0] : ends[1]].decode(),
            clear[ends[1] : ends[2]].decode(),
            clear[ends[2] :],
        )

    def _sealer(self, seed_id: str) -> RowSealer | None:
        if seed_id not in self._sealers:
            self.reload_seeds()
        return self._sealers.get(seed_id)

    def _batch(self, batch_id: int) -> _Batch:
        known = self._batches.get(batch_id)
        if known is not None:
            return known
        found = self._find_batch(batch_id)
        sealer = self._sealer(found[0]) if found else None
        if found is None or sealer is None:
            raise SealBroken(f"seal batch {batch_id} is unknown")
        if len(self._batches) >= SEAL_BATCHES_CACHED:
            self._batches.clear()
        batch = self._batches[batch_id] = _Batch(sealer, found[1])
        return batch


class Sealing:
    """One transaction's sealing."""

    def __init__(self, batch_id: int, seed_id: str, batch: SealBatch) -> None:
        self.batch_id = batch_id
        self.seed_id = seed_id
        self.info = batch.info
        self._batch = batch
        self._front = _BATCH.pack(batch_id)
        self._opening = self.field(OPENING_FIELD)

    @property
    def count(self) -> int:
        """Fields sealed so far."""
        return self._batch.count

    def field(self, field: bytes) -> Callable[[bytes, bytes], bytes]:
        """Seals values of one field: (packed rest of the row, clear bytes) to the stored blob.

        The packed rest is what ``Vault.open`` gets as ``tail``.
        """
        return self._batch.field(self._front, prefix_of(field))

    def salted(self) -> Callable[[bytes, bytes], bytes]:
        """``field`` for values with ``SALT_BYTES`` of salt behind them."""
        return self._batch.field(self._front, prefix_of(SALTED_FIELD), _SALTED)

    def seal_opening(
        self, seq: int, salt: bytes, reason: str, ticket: str, changes: bytes
    ) -> bytes:
        """The opening of leaf ``seq``."""
        reason_bytes, ticket_bytes = reason.encode(), ticket.encode()
        lengths = _LENGTHS.pack(len(salt), len(reason_bytes), len(ticket_bytes), len(changes))
        clear = lengths + salt + reason_bytes + ticket_bytes + changes
        return self._opening(SEQ_AAD.pack(seq), clear)
