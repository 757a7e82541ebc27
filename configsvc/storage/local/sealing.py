"""How records and actors are sealed: seeds, one derived key per transaction, what is bound.

A sealed row is bound to its table, place and hash, to the cluster and to the member: rows that
are swapped, or carried over from elsewhere, do not open (ENC-2, ENC-3).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, select, update

from configsvc.errors import ConfigError
from configsvc.limits import SEALED_PER_SEED_MAX, SEED_AGE_S_MAX
from configsvc.storage.local.messages import LocalActor, LocalIdentity, LocalRecord
from configsvc.storage.local.schema import HEAD, SEEDS
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.seal.rows import RowSealer

_SEED_BYTES: Final = 32
_RECORD: Final = struct.Struct(">HHH")  # lengths of salt, reason, ticket; the leaf is the rest
_ACTOR: Final = struct.Struct(">H")  # length of the salt; the record is the rest
_PLACE: Final = struct.Struct(">Q32s")


def record_aad(seq: int, hashed: bytes) -> bytes:
    """What the sealed part of a row of ``records`` is bound to."""
    return b"configsvc/local/record/v1" + _PLACE.pack(seq, hashed)


def actor_aad(seq: int, hashed: bytes) -> bytes:
    """Likewise, of ``actors``."""
    return b"configsvc/local/actor/v1" + _PLACE.pack(seq, hashed)


def pack_record(record: LocalRecord) -> bytes:
    """Clear bytes of a record."""
    reason, ticket = record.reason.encode(), record.ticket.encode()
    lengths = _RECORD.pack(len(record.salt), len(reason), len(ticket))
    return lengths + record.salt + reason + ticket + record.leaf


def unpack_record(seq: int, clear: bytes) -> LocalRecord:
    """Inverse of ``pack_record``."""
    salt, reason, ticket = _RECORD.unpack_from(clear)
    cuts = [_RECORD.size]
    for length in (salt, reason, ticket):
        cuts.append(cuts[-1] + length)
    return LocalRecord(
        seq,
        clear[cuts[3] :],
        clear[cuts[0] : cuts[1]],
        clear[cuts[1] : cuts[2]].decode(),
        clear[cuts[2] : cuts[3]].decode(),
    )


def pack_actor(actor: LocalActor) -> bytes:
    """Clear bytes of an actor record."""
    return _ACTOR.pack(len(actor.salt)) + actor.salt + actor.record


def unpack_actor(seq: int, hashed: bytes, clear: bytes) -> LocalActor:
    """Inverse of ``pack_actor``."""
    (salt,) = _ACTOR.unpack_from(clear)
    end = _ACTOR.size + salt
    return LocalActor(seq, hashed, clear[end:], clear[_ACTOR.size : end])


# --- seeds ---------------------------------------------------------------------------------------


def load_sealers(
    connection: Connection, identity: LocalIdentity, key_file: KeyFile, path: Path
) -> dict[str, RowSealer]:
    """Unwrap every seed.

    Raises:
        ConfigError: exit 78, the key file is not the one the seeds were wrapped with.
    """
    sealers = {}
    for seed_id, wrapped in connection.execute(select(SEEDS.c.id, SEEDS.c.wrapped)):
        try:
            seed = key_file.unwrap(wrapped, _wrap_aad(identity, seed_id))
        except SealBroken as error:
            raise ConfigError(
                f"{path}: seed {seed_id} does not unwrap",
                "start with the key file that this member was made with",
            ) from error
        sealers[seed_id] = RowSealer(seed, seed_id, _context(identity))
    return sealers


def choose_active(
    connection: Connection, identity: LocalIdentity, key_file: KeyFile, now_s: int
) -> str:
    """Id of the seed for new rows: the newest while it may serve, else one is made (ENC-4)."""
    newest = connection.execute(
        select(SEEDS.c.id, SEEDS.c.created_s).order_by(SEEDS.c.created_s.desc(), SEEDS.c.id)
    ).first()
    sealed = connection.execute(select(HEAD.c.sealed)).scalar() or 0
    if newest and sealed < SEALED_PER_SEED_MAX and now_s - newest[1] < SEED_AGE_S_MAX:
        return str(newest[0])
    seed_id = os.urandom(8).hex()
    wrapped = key_file.wrap(os.urandom(_SEED_BYTES), _wrap_aad(identity, seed_id))
    created = max(now_s, newest[1] + 1 if newest else 0)
    connection.execute(
        insert(SEEDS).values(id=seed_id, key_id=key_file.key_id, wrapped=wrapped, created_s=created)
    )
    connection.execute(update(HEAD).values(sealed=0))
    return seed_id


def rewrap(connection: Connection, identity: LocalIdentity, old: KeyFile, new: KeyFile) -> int:
    """Wrap every seed with ``new`` instead of ``old``; the number of seeds. No row is touched.

    Raises:
        SealBroken: ``old`` does not unwrap a seed.
    """
    seeds = connection.execute(select(SEEDS.c.id, SEEDS.c.wrapped)).all()
    for seed_id, wrapped in seeds:
        aad = _wrap_aad(identity, seed_id)
        again = new.wrap(old.unwrap(wrapped, aad), aad)
        connection.execute(
            update(SEEDS).where(SEEDS.c.id == seed_id).values(key_id=new.key_id, wrapped=again)
        )
    return len(seeds)


def _context(identity: LocalIdentity) -> bytes:
    return struct.pack(">QQ", identity.cluster_id, identity.member_id) + identity.store_id


def _wrap_aad(identity: LocalIdentity, seed_id: str) -> bytes:
    return b"configsvc/local-seed/v1" + _context(identity) + seed_id.encode()
